// Toasts: one short message at the edge of the page. They are announced and go by themselves.

import { announce } from "./announce.js";
import { h } from "./dom.js";

const STAY = 7000; // milliseconds
const stack = h("div", { class: "toasts" });
document.body.append(stack);

export function toast(text, kind = "info") {
  const element = h("div", { class: "toast", "data-kind": kind }, text);
  stack.append(element);
  announce(text);
  setTimeout(() => element.remove(), STAY);
  while (stack.childElementCount > 3) stack.firstChild.remove();
}
