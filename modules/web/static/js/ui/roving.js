// Roving focus: a list of controls is one stop of the Tab key; the arrow keys, Home and End move inside it.

const STEPS = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };

export function roving(container, selector) {
  const items = () => [...container.querySelectorAll(selector)];
  const choose = (chosen) => items().forEach((item) => (item.tabIndex = item === chosen ? 0 : -1));

  container.addEventListener("focusin", (event) => event.target.matches(selector) && choose(event.target));
  container.addEventListener("keydown", (event) => {
    const all = items();
    const position = all.indexOf(document.activeElement);
    if (position < 0) return;
    const target = { Home: 0, End: all.length - 1 }[event.key] ?? position + (STEPS[event.key] ?? NaN);
    if (!all[target]) return;
    event.preventDefault();
    all[target].focus();
  });

  /** Call after the list changed: exactly one control stays reachable. */
  return () => {
    const all = items();
    choose(all.includes(document.activeElement) ? document.activeElement : all[0]);
  };
}
