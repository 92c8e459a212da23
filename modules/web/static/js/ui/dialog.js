// Dialogs: the browser's own modal dialog, which keeps the focus inside and gives it back.

import { h } from "./dom.js";
import { icon } from "./icons.js";

/** Show a dialog. `build(close)` returns its content; the dialog is gone when it closes. */
export function openDialog(title, build) {
  const close = () => dialog.close();
  const dialog = h("dialog", { class: "dialog", "aria-labelledby": "dialog-title" }, [
    h("div", { class: "dialog-head" }, [
      h("h2", { id: "dialog-title" }, title),
      h(
        "button",
        { class: "button quiet icon-only", type: "button", "aria-label": "Close", onclick: close },
        icon("close"),
      ),
    ]),
    build(close),
  ]);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && close());
  document.body.append(dialog);
  dialog.showModal();
  dialog.querySelector("input, textarea, .form-buttons .button")?.focus();
}

/** Ask before something that cannot be undone. */
export function confirm({ title, text, action, run }) {
  openDialog(title, (close) => {
    const confirmed = () => {
      close();
      run();
    };
    return h("div", { class: "form" }, [
      h("p", {}, text),
      h("div", { class: "form-buttons" }, [
        h("button", { class: "button", type: "button", onclick: close }, "Cancel"),
        h("button", { class: "button danger", type: "button", onclick: confirmed }, action),
      ]),
    ]);
  });
}
