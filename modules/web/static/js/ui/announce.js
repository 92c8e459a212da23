// Announcements for screen readers: one polite region for the whole page.

import { h } from "./dom.js";

const CLEAR_AFTER = 6000; // milliseconds
const region = h("div", { class: "visually-hidden", role: "status", "aria-live": "polite", "data-announcer": true });
document.body.append(region);

export function announce(text) {
  const line = h("p", {}, text);
  region.append(line);
  setTimeout(() => line.remove(), CLEAR_AFTER);
  while (region.childElementCount > 5) region.firstChild.remove();
}
