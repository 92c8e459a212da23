// The composer: Enter sends, Shift+Enter makes a line. What is not sent yet is kept, also through a reload.

import { fill, h, perFrame } from "../ui/dom.js";
import { icon } from "../ui/icons.js";

const MAX_LENGTH = 8000; // characters
const WARN_AT = 7500;
const MAX_HEIGHT = 200; // pixels

export class Composer {
  #room;
  #key;
  #onSent;
  #left = h("span", { class: "composer-left", "aria-live": "polite" });
  #readOnly = h("p", { class: "composer-closed", hidden: true }, "You can read here, but not write.");
  #text;
  #form;

  constructor(room, info, { onSent }) {
    this.#room = room;
    this.#key = `lectern.draft.${room.me.id}.${room.id}`;
    this.#onSent = onSent;
    this.#text = h("textarea", {
      class: "composer-text",
      rows: 1,
      placeholder: `Write to ${info.name}`,
      "aria-label": "Message",
      enterkeyhint: "send",
    });
    this.#form = h("form", { class: "composer" }, [
      this.#text,
      this.#left,
      h("button", { class: "button primary icon-only", type: "submit", "aria-label": "Send" }, icon("send")),
    ]);
    this.element = h("div", { class: "composer-place" }, this.#form, this.#readOnly);
    this.#text.value = sessionStorage.getItem(this.#key) ?? "";
    this.#text.addEventListener("input", () => this.#wrote());
    this.#text.addEventListener("keydown", (event) => this.#pressed(event));
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    room.on("changed", (part) => part === "room" && this.#allow());
    perFrame(() => this.#resize())();
  }

  #pressed(event) {
    const onlyLine = event.shiftKey || event.altKey || (matchMedia("(pointer: coarse)").matches && !event.ctrlKey);
    if (event.key !== "Enter" || event.isComposing || onlyLine) return;
    event.preventDefault();
    this.#send();
  }

  #wrote() {
    sessionStorage.setItem(this.#key, this.#text.value);
    this.#resize();
    const length = [...this.#text.value].length;
    const left = MAX_LENGTH - length;
    fill(this.#left, length > WARN_AT && (left >= 0 ? `${left} left` : `${-left} too many`));
    this.#form.toggleAttribute("data-too-long", left < 0);
    if (this.#text.value.trim()) this.#room.typing.wrote();
    else this.#room.typing.stopped();
  }

  #send() {
    const text = this.#text.value.trim();
    if (!text || [...text].length > MAX_LENGTH) return;
    this.#room.typing.stopped();
    this.#room.outbox.add(text);
    this.#room.marker.answered();
    this.#text.value = "";
    sessionStorage.removeItem(this.#key);
    fill(this.#left);
    this.#resize();
    this.#onSent();
    this.#text.focus();
  }

  #resize() {
    this.#text.style.height = "auto";
    this.#text.style.height = `${Math.min(this.#text.scrollHeight, MAX_HEIGHT)}px`;
  }

  #allow() {
    const mayWrite = this.#room.can("message") || !this.#room.info;
    this.#form.hidden = !mayWrite;
    this.#readOnly.hidden = mayWrite;
  }
}
