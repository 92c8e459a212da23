// The chat of a room: the messages, who is typing, and the composer.

import { fill, h, perFrame } from "../ui/dom.js";
import { listOf } from "../ui/format.js";
import { Composer } from "./composer.js";
import { MessageList } from "./message_list.js";

const MOST_NAMES = 3;

export class Chat {
  #typing = h("p", { class: "typing" });
  #list;

  constructor(room, info) {
    this.#list = new MessageList(room);
    const composer = new Composer(room, info, { onSent: () => this.#list.toEnd() });
    this.element = h(
      "section",
      { class: "chat", "aria-label": "Chat" },
      this.#list.element,
      this.#typing,
      composer.element,
    );
    const redraw = perFrame(() => fill(this.#typing, typingLine(room.typing.names)));
    room.on("changed", (part) => part === "typing" && redraw());
  }

  dispose() {
    this.#list.dispose();
  }
}

function typingLine(names) {
  if (!names.length) return null;
  if (names.length > MOST_NAMES) return "Several people are typing …";
  return `${listOf(names)} ${names.length === 1 ? "is" : "are"} typing …`;
}
