// What a page shows when there is nothing to show: loading, empty, failed.

import { describe } from "../net/errors.js";
import { h } from "./dom.js";
import { icon } from "./icons.js";

export function loading(text = "Loading …") {
  return h(
    "div",
    { class: "state", role: "status" },
    h("span", { class: "spinner", "aria-hidden": "true" }),
    h("p", {}, text),
  );
}

export function empty({ icon: name, title, text, actions = [] }) {
  return h("div", { class: "state" }, [
    h("span", { class: "state-icon" }, icon(name)),
    h("h2", {}, title),
    h("p", {}, text),
    actions.length > 0 && h("div", { class: "state-actions" }, actions),
  ]);
}

export function failed(error, retry) {
  return h("div", { class: "state", role: "alert" }, [
    h("span", { class: "state-icon" }, icon("warning")),
    h("h2", {}, error.code === "not_found" ? "There is nothing here" : "That did not work"),
    h("p", {}, describe(error)),
    h("div", { class: "state-actions" }, [
      retry && h("button", { class: "button primary", type: "button", onclick: retry }, "Try again"),
      h("a", { class: "button", href: "#/courses" }, "My courses"),
    ]),
  ]);
}
