// Forms: labelled fields, one error line, and a button that is busy while the answer is awaited.

import { describe } from "../net/errors.js";
import { fill, h } from "./dom.js";

let count = 0;

/** A labelled input; `attributes` go to the input. */
export function field(label, attributes, hint = null) {
  const id = `field-${++count}`;
  const hintId = hint ? `${id}-hint` : null;
  const tag = attributes.rows ? "textarea" : "input";
  return h("div", { class: "field" }, [
    h("label", { for: id }, label),
    h(tag, { id, class: "input", "aria-describedby": hintId, ...attributes }),
    hint && h("p", { class: "hint", id: hintId }, hint),
  ]);
}

/**
 * A form that calls `submit(values)`. What `submit` throws is shown above the buttons in plain words; fields stay filled.
 * `buttons` come before the submit button.
 */
export function form({ fields, action, submit, buttons = [] }) {
  const error = h("p", { class: "form-error", role: "alert" });
  const button = h("button", { class: "button primary", type: "submit" }, action);
  const element = h(
    "form",
    { class: "form", novalidate: true },
    fields,
    error,
    h("div", { class: "form-buttons" }, buttons, button),
  );

  element.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (element.hasAttribute("aria-busy")) return;
    fill(error);
    const invalid = element.querySelector(":invalid");
    if (invalid) {
      fill(error, complaintOf(invalid));
      invalid.focus();
      return;
    }
    button.setAttribute("aria-disabled", "true"); // not `disabled`, which loses the focus
    element.setAttribute("aria-busy", "true");
    try {
      await submit(Object.fromEntries(new FormData(element)));
    } catch (problem) {
      fill(error, describe(problem));
    } finally {
      button.removeAttribute("aria-disabled");
      element.removeAttribute("aria-busy");
    }
  });
  return element;
}

function complaintOf(input) {
  const label = input.labels[0]?.textContent ?? "This field";
  if (input.validity.valueMissing) return `${label} is missing.`;
  if (input.validity.typeMismatch) return `${label} does not look right.`;
  if (input.validity.tooShort) return `${label} needs at least ${input.minLength} characters.`;
  return input.validationMessage;
}
