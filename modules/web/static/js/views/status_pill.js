// The status of a live class as a small label.

import { h } from "../ui/dom.js";

const NAMES = { idle: "Not started", live: "Live", ended: "Ended" };

export function statusPill(status, detail = null) {
  return h("span", { class: "pill", "data-status": status }, NAMES[status] ?? status, detail);
}
