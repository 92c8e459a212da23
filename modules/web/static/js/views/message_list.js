// The messages of a room: days, groups of one author, notices, our own messages that are on their way, and the line "New".
//
// While one reads the end the list follows it; while one reads further up it stays where it is and counts what is new.

import { describe } from "../net/errors.js";
import { fill, h, KeyedList, perFrame } from "../ui/dom.js";
import { dayKey, plural } from "../ui/format.js";
import { icon } from "../ui/icons.js";
import { toast } from "../ui/toast.js";
import { dayRow, messageRow, newRow, noticeRow } from "./message_rows.js";

const GROUP_FOR = 5 * 60_000; // milliseconds between two messages of one group
const NEAR_END = 60; // pixels
const NEAR_START = 200; // pixels

export class MessageList {
  #room;
  #rows;
  #items = h("ol", { class: "messages" });
  #earlier = h("div", { class: "earlier" });
  #jump = h("button", { class: "jump", type: "button", hidden: true, onclick: () => this.toEnd() });
  #log;
  #atEnd = true;
  #unseen = 0;
  #loading = false;
  #redraw = perFrame(() => this.#update());
  #observer = new ResizeObserver(() => this.#settle());
  #onVisibility = () => this.#looked();

  constructor(room) {
    this.#room = room;
    this.#rows = new KeyedList(this.#items);
    this.#log = h(
      "div",
      { class: "log", role: "log", "aria-live": "off", "aria-label": "Messages", tabindex: "0" },
      this.#earlier,
      this.#items,
    );
    this.element = h("div", { class: "log-place" }, this.#log, this.#jump);
    this.#log.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.#observer.observe(this.#log);
    document.addEventListener("visibilitychange", this.#onVisibility);
    room.on("changed", (part) => ["timeline", "read", "room"].includes(part) && this.#redraw());
    room.on("event", (event) => this.#came(event));
    this.#update();
  }

  dispose() {
    this.#observer.disconnect();
    document.removeEventListener("visibilitychange", this.#onVisibility);
  }

  toEnd() {
    this.#atEnd = true;
    this.#redraw();
  }

  #update() {
    if (this.#atEnd) this.#room.trim();
    const anchor = this.#atEnd ? null : this.#firstVisible();
    this.#rows.update(this.#plan());
    this.#updateEarlier();
    this.#keepPlace(anchor);
    this.#settle();
  }

  /** What the list shows, as rows for KeyedList. */
  #plan() {
    const { timeline, outbox, marker, me } = this.#room;
    const waiting = outbox.items.map((item) => ({
      kind: "message",
      key: item.id,
      actor: me,
      mine: item,
      ...item,
      seq: Infinity,
    }));
    const entries = [...timeline.entries, ...waiting];
    const lastOwn = timeline.entries.findLast((entry) => entry.kind === "message" && entry.actor?.id === me.id);
    const rows = [];
    let previous = null;
    let newShown = marker.newAfter === null;
    for (const entry of entries) {
      if (!previous || dayKey(previous.at) !== dayKey(entry.at)) {
        rows.push(dayRow(entry));
        previous = null;
      }
      if (!newShown && entry.kind === "message" && entry.seq > marker.newAfter && entry.actor?.id !== me.id) {
        rows.push(newRow());
        newShown = true;
        previous = null;
      }
      const grouped = belongTogether(previous, entry);
      rows.push(
        entry.kind === "message"
          ? messageRow(entry, this.#room, { grouped, delivered: entry === lastOwn })
          : noticeRow(entry),
      );
      previous = entry;
    }
    return rows;
  }

  #updateEarlier() {
    const { hasEarlier, timeline } = this.#room;
    const state = !this.#room.info
      ? "joining"
      : this.#loading
        ? "loading"
        : hasEarlier
          ? "more"
          : timeline.entries.length
            ? "start"
            : "empty";
    if (this.#earlier.dataset.state === state) return;
    this.#earlier.dataset.state = state;
    fill(
      this.#earlier,
      {
        joining: () => h("p", { role: "status" }, h("span", { class: "spinner", "aria-hidden": "true" }), "Joining …"),
        loading: () => h("p", {}, "Loading earlier messages …"),
        more: () =>
          h(
            "button",
            { class: "button small", type: "button", onclick: () => this.#loadEarlier() },
            "Earlier messages",
          ),
        start: () => h("p", {}, "This is the beginning of the room."),
        empty: () =>
          h("div", { class: "log-empty" }, icon("chat"), h("p", {}, "No messages yet. Say hello to the room.")),
      }[state](),
    );
  }

  async #loadEarlier() {
    if (this.#loading || !this.#room.hasEarlier) return;
    this.#loading = true;
    this.#updateEarlier();
    try {
      await this.#room.loadEarlier();
    } catch (error) {
      toast(describe(error), "error");
    } finally {
      this.#loading = false;
      this.#redraw();
    }
  }

  // — where the reader is —

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#log;
    const wasAtEnd = this.#atEnd;
    this.#atEnd = scrollHeight - scrollTop - clientHeight < NEAR_END;
    if (wasAtEnd && !this.#atEnd) this.#room.marker.lookedAway();
    if (this.#atEnd) this.#read();
    if (scrollTop < NEAR_START && !this.#atEnd) this.#loadEarlier();
  }

  /** Follow the end, and fill a list that is too short to be scrolled. */
  #settle() {
    if (!this.#atEnd) return;
    this.#log.scrollTop = this.#log.scrollHeight;
    this.#read();
    if (this.#room.joined && this.#log.scrollHeight <= this.#log.clientHeight) this.#loadEarlier();
  }

  #read() {
    if (document.visibilityState !== "visible") return;
    this.#unseen = 0;
    this.#updateJump();
    this.#room.marker.reached(this.#room.lastSeq);
  }

  #looked() {
    if (document.visibilityState !== "visible") this.#room.marker.lookedAway();
    else if (this.#atEnd) this.#read();
  }

  #came(event) {
    if (this.#atEnd || event.type !== "message") return;
    this.#unseen += 1;
    this.#updateJump();
  }

  #updateJump() {
    this.#jump.hidden = this.#unseen === 0;
    fill(this.#jump, plural(this.#unseen, "new message"), icon("arrowDown"));
  }

  #firstVisible() {
    const top = this.#log.getBoundingClientRect().top;
    const node = [...this.#items.children].find((item) => item.getBoundingClientRect().bottom > top);
    return node && { node, offset: node.getBoundingClientRect().top };
  }

  #keepPlace(anchor) {
    if (anchor?.node.isConnected) this.#log.scrollTop += anchor.node.getBoundingClientRect().top - anchor.offset;
  }
}

function belongTogether(previous, entry) {
  return (
    previous?.kind === "message" &&
    entry.kind === "message" &&
    previous.actor?.id === entry.actor?.id &&
    new Date(entry.at) - new Date(previous.at) < GROUP_FOR
  );
}
