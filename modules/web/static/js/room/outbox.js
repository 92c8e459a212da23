// Outbox: our messages that the log does not show yet. Each keeps its id through every retry and a reload of the page, so it
// is said once however often it is sent. They go out one after the other, in the order they were written.

import { newId } from "../net/ids.js";

export class Outbox {
  items = []; // {id, text, at, state: "pending" | "sent" | "failed", error}
  #key;
  #send;
  #changed;
  #draining = false;

  /** `send(item)` resolves when the message is committed. */
  constructor({ key, send, changed }) {
    this.#key = key;
    this.#send = send;
    this.#changed = changed;
    this.items = JSON.parse(sessionStorage.getItem(key) ?? "[]").map((item) => ({ ...item, error: null }));
  }

  add(text) {
    this.items.push({ id: newId(), text, at: new Date().toISOString(), state: "pending", error: null });
    this.#update();
    return this.drain();
  }

  retry(id) {
    const item = this.items.find((each) => each.id === id);
    if (!item) return null;
    Object.assign(item, { state: "pending", error: null });
    this.#update();
    return this.drain();
  }

  /** The log shows the message, or the person gave it up. */
  remove(id) {
    const before = this.items.length;
    this.items = this.items.filter((item) => item.id !== id);
    if (this.items.length !== before) this.#update();
  }

  /** Send what is pending. While the connection is away everything stays pending; call again when it is back. */
  async drain() {
    if (this.#draining) return;
    this.#draining = true;
    try {
      for (let item; (item = this.items.find((each) => each.state === "pending"));) {
        if (!(await this.#deliver(item))) break;
      }
    } finally {
      this.#draining = false;
    }
  }

  async #deliver(item) {
    try {
      await this.#send(item);
      item.state = "sent";
    } catch (error) {
      if (error.code === "disconnected") return false;
      Object.assign(item, { state: "failed", error });
    }
    this.#update();
    return true;
  }

  #update() {
    const kept = this.items.map(({ id, text, at, state }) => ({
      id,
      text,
      at,
      state: state === "sent" ? "pending" : state,
    }));
    if (kept.length) sessionStorage.setItem(this.#key, JSON.stringify(kept));
    else sessionStorage.removeItem(this.#key);
    this.#changed();
  }
}
