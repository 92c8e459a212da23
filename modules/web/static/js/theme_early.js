// Runs before the first paint, as a plain script, so that a chosen theme does not flash. ui/theme.js owns the choice.
(() => {
  const theme = localStorage.getItem("lectern.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
