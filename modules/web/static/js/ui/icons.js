// Icons: strokes on a grid of 24, drawn in the colour of the text. Decorative; the control beside them carries the name.

const SVG = "http://www.w3.org/2000/svg";
const PATHS = {
  arrowDown: "M12 5v14M6 13l6 6 6-6",
  chat: "M4 5h16v11H9l-5 4z",
  check: "M5 12.5l4.5 4.5L19 7",
  chevron: "M9 6l6 6-6 6",
  clock: "M12 3a9 9 0 100 18 9 9 0 000-18zM12 7v5l3.5 2",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  hand: "M7 11V6.5a1.5 1.5 0 013 0V11V4.5a1.5 1.5 0 013 0V11V5.5a1.5 1.5 0 013 0V12V8.5a1.5 1.5 0 013 0V15a6 6 0 01-6 6h-1.5a6 6 0 01-4.6-2.1L4 14.5a1.5 1.5 0 012.3-2L8 14.5",
  people:
    "M9 11a3.5 3.5 0 100-7 3.5 3.5 0 000 7zM2.5 20a6.5 6.5 0 0113 0M16 4.3a3.5 3.5 0 010 6.4M18 14.2a6.5 6.5 0 013.5 5.8",
  plus: "M12 5v14M5 12h14",
  retry: "M4 12a8 8 0 108-8H6M9 1L6 4l3 3",
  screen: "M3 5h18v11H3zM12 16v4M8 20h8M7.5 12l3-3 2 2 4-4",
  send: "M4 12l16-8-5 16-3.5-6.5zM11.5 13.5L20 4",
  stop: "M7 7h10v10H7z",
  play: "M8 5.5v13l10-6.5z",
  warning: "M12 4l9 16H3zM12 10v4.5M12 17v.5",
};

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const attributes = { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true", focusable: "false" };
  Object.entries(attributes).forEach(([key, value]) => svg.setAttribute(key, value));
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}
