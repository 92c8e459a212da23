// The frame around every page: the bar with the way back, the account menu, and the place of the page itself.

import { avatar } from "../ui/avatar.js";
import { fill, h } from "../ui/dom.js";
import { chooseTheme, currentTheme, THEMES } from "../ui/theme.js";

const THEME_NAMES = { auto: "Like the system", light: "Light", dark: "Dark" };

export class Shell {
  #session;
  #bar = h("header", { class: "bar" });
  #main = h("main", { id: "main", tabindex: "-1" });
  #shown = false;

  constructor({ session, root }) {
    this.#session = session;
    fill(root, this.#bar, this.#main);
    document.querySelector("[data-skip]").addEventListener("click", (event) => {
      event.preventDefault();
      this.#main.focus();
    });
  }

  /** Show a page: {title, element, crumbs?: [[name, path]], layout?: "page" | "room" | "plain", tools?}. */
  show(page) {
    this.setTitle(page.title);
    this.#main.className = page.layout ?? "page";
    fill(this.#main, page.element);
    this.setCrumbs(page.crumbs ?? [], page.tools);
    window.scrollTo(0, 0);
    if (this.#shown) this.#main.focus({ preventScroll: true });
    this.#shown = true;
  }

  setTitle(title) {
    document.title = title ? `${title} · Lectern` : "Lectern";
  }

  /** The way from the courses to here; `tools` stand beside the account menu. */
  setCrumbs(crumbs, tools = null) {
    this.#bar.hidden = !this.#session.signedIn;
    if (!this.#session.signedIn) return;
    const links = crumbs.map(([name, path], index) =>
      h("li", {}, h("a", { href: `#${path}`, "aria-current": index === crumbs.length - 1 && "page" }, name)),
    );
    fill(this.#bar, [
      h("a", { class: "brand", href: "#/courses", "aria-label": "Lectern, my courses" }, [
        h("img", { src: "/static/icons/favicon.svg", alt: "", width: 28, height: 28 }),
        h("span", {}, "Lectern"),
      ]),
      h("nav", { class: "crumbs", "aria-label": "You are here" }, h("ol", {}, links)),
      tools,
      this.#accountMenu(),
    ]);
  }

  #accountMenu() {
    const { user } = this.#session;
    const panel = h("div", { class: "menu-panel", id: "account-panel", hidden: true }, [
      h("p", { class: "menu-name" }, user.name),
      h("p", { class: "menu-detail" }, user.email ?? ""),
      themeChoice(),
      h("button", { class: "button wide", type: "button", onclick: () => this.#session.signOut() }, "Sign out"),
    ]);
    const button = h(
      "button",
      {
        class: "menu-button",
        type: "button",
        "aria-label": `Account of ${user.name}`,
        "aria-expanded": "false",
        "aria-controls": "account-panel",
        onclick: () => setOpen(panel.hidden),
      },
      avatar(user, "small"),
    );
    const setOpen = (open) => {
      panel.hidden = !open;
      button.setAttribute("aria-expanded", String(open));
    };
    const menu = h("div", { class: "menu" }, button, panel);
    menu.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || panel.hidden) return;
      setOpen(false);
      button.focus();
    });
    menu.addEventListener("focusout", (event) => {
      if (event.relatedTarget && !menu.contains(event.relatedTarget)) setOpen(false);
    });
    document.addEventListener("click", function outside(event) {
      if (!menu.isConnected) document.removeEventListener("click", outside);
      else if (!menu.contains(event.target)) setOpen(false);
    });
    return menu;
  }
}

function themeChoice() {
  const choices = THEMES.map((theme) =>
    h("label", { class: "choice" }, [
      h("input", {
        type: "radio",
        name: "theme",
        value: theme,
        checked: theme === currentTheme(),
        onchange: () => chooseTheme(theme),
      }),
      THEME_NAMES[theme],
    ]),
  );
  return h("fieldset", { class: "theme" }, h("legend", {}, "Colours"), choices);
}
