// Announcer: says what happens in the room to those who do not see it, and counts unread messages in the title of a hidden page.

import { announce } from "../ui/announce.js";
import { plural } from "../ui/format.js";

const GATHER = 1000; // milliseconds
const MOST = 3; // messages read out one by one

export class Announcer {
  #room;
  #name;
  #waiting = [];
  #timer = null;
  #unread = 0;
  #onVisible = () => this.#seen();

  constructor(room, info) {
    this.#room = room;
    this.#name = info.name;
    room.on("event", (event) => this.#heard(event));
    document.addEventListener("visibilitychange", this.#onVisible);
  }

  dispose() {
    clearTimeout(this.#timer);
    document.removeEventListener("visibilitychange", this.#onVisible);
  }

  #heard(event) {
    const text = this.#sentence(event);
    if (!text) return;
    if (document.visibilityState !== "visible" && event.type === "message") {
      this.#unread += 1;
      document.title = `(${this.#unread}) ${this.#name} · Lectern`;
    }
    this.#waiting.push(text);
    this.#timer ??= setTimeout(() => this.#speak(), GATHER);
  }

  #sentence({ type, actor, data }) {
    if (type === "class_started") return "The class has started.";
    if (type === "class_ended") return "The class has ended.";
    if (actor?.id === this.#room.me.id) return null;
    if (type === "message") return `${actor?.name ?? "Somebody"}: ${data.text}`;
    if (type === "hand_raised" && this.#room.can("call_on")) return `${data.name} raised a hand.`;
    return null; // who is called on is a status line of its own
  }

  #speak() {
    this.#timer = null;
    const texts = this.#waiting.splice(0);
    if (texts.length > MOST) announce(`${plural(texts.length, "new message")} in ${this.#name}.`);
    else texts.forEach(announce);
  }

  #seen() {
    if (document.visibilityState !== "visible") return;
    this.#unread = 0;
    document.title = `${this.#name} · Lectern`;
  }
}
