// Typing: who writes at the moment, and our own announcement of it, at most every 2 s.

const ANNOUNCE_EVERY = 2000; // milliseconds
const FORGET_AFTER = 5000; // milliseconds without news

export class Typing {
  #writers = new Map(); // user id → {name, timer}
  #changed;
  #announce;
  #announcedAt = 0;

  /** `announce(on)` tells the room about us, `changed()` is called when the writers change. */
  constructor({ announce, changed }) {
    this.#announce = announce;
    this.#changed = changed;
  }

  get names() {
    return [...this.#writers.values()].map((writer) => writer.name);
  }

  heard(userId, name, on) {
    const known = this.#writers.has(userId);
    this.#forget(userId);
    if (on) {
      const timer = setTimeout(() => this.heard(userId, name, false), FORGET_AFTER);
      this.#writers.set(userId, { name, timer });
    }
    if (known !== on) this.#changed();
  }

  wrote() {
    if (Date.now() - this.#announcedAt < ANNOUNCE_EVERY) return;
    this.#announcedAt = Date.now();
    this.#announce(true);
  }

  stopped() {
    if (!this.#announcedAt) return;
    this.#announcedAt = 0;
    this.#announce(false);
  }

  clear() {
    [...this.#writers.keys()].forEach((id) => this.#forget(id));
  }

  #forget(id) {
    clearTimeout(this.#writers.get(id)?.timer);
    this.#writers.delete(id);
  }
}
