// Timeline: what a room shows of its log, in order of seq: messages, and the events that are worth a line.
//
// Later events change earlier entries (edits, deletions), and an earlier page may arrive after the change to it.

const NOTICES = new Set(["class_started", "class_ended", "hand_called"]);

export class Timeline {
  entries = [];
  #messages = new Map(); // id → entry
  #changes = new Map(); // id → {seq, change}, kept because the message itself may be loaded later, or again

  /** Start again with these events. */
  replace(events) {
    this.entries = [];
    this.#messages.clear();
    this.#changes.clear();
    events.forEach((event) => this.append(event));
  }

  append(event) {
    const entry = this.#entryOf(event);
    if (entry) this.entries.push(entry);
  }

  /** Add an older page in front. */
  prepend(events) {
    const older = events.map((event) => this.#entryOf(event)).filter(Boolean);
    this.entries = [...older, ...this.entries];
  }

  /** Put a line of our own, which is not in the log, after what is there now; it takes the place of the last such line. */
  note(text) {
    this.entries = this.entries.filter((entry) => entry.kind !== "note");
    const seq = this.entries.at(-1)?.seq ?? 0;
    this.entries.push({ kind: "note", key: `note:${Date.now()}`, seq, at: new Date().toISOString(), text });
  }

  /** Keep only the newest `count` entries. Returns true when something was dropped. */
  trim(count) {
    const dropped = this.entries.splice(0, Math.max(0, this.entries.length - count));
    dropped.forEach((entry) => this.#messages.delete(entry.id));
    return dropped.length > 0;
  }

  #entryOf(event) {
    if (event.type === "message") return this.#messageOf(event);
    if (event.type === "message_edited") this.#change(event, { text: event.data.text, edited: true });
    if (event.type === "message_deleted") this.#change(event, { text: null });
    if (!NOTICES.has(event.type)) return null;
    const { seq, at, actor, data, type } = event;
    return { kind: "notice", key: `notice:${seq}`, seq, at, actor, data, type };
  }

  #messageOf({ seq, at, actor, data }) {
    const entry = {
      kind: "message",
      key: data.id ?? `redacted:${seq}`,
      seq,
      at,
      actor,
      id: data.id,
      text: data.text ?? null,
    };
    if (entry.text !== null) Object.assign(entry, this.#changes.get(data.id)?.change);
    if (data.id) this.#messages.set(data.id, entry);
    return entry;
  }

  #change(event, change) {
    const { id } = event.data;
    if ((this.#changes.get(id)?.seq ?? 0) > event.seq) return;
    this.#changes.set(id, { seq: event.seq, change });
    const entry = this.#messages.get(id);
    if (entry && entry.text !== null) Object.assign(entry, change);
  }
}
