// The theme: "auto" follows the system; "light" and "dark" are kept for the next visit (theme_early.js applies them).

const KEY = "lectern.theme";
export const THEMES = ["auto", "light", "dark"];

export function currentTheme() {
  return localStorage.getItem(KEY) ?? "auto";
}

export function chooseTheme(theme) {
  if (theme === "auto") {
    localStorage.removeItem(KEY);
    delete document.documentElement.dataset.theme;
  } else {
    localStorage.setItem(KEY, theme);
    document.documentElement.dataset.theme = theme;
  }
}
