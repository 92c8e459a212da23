// Room: the view of one room, folded from its log.
//
// Rules (CONTRACT §4): an event is applied only when its seq is the last one plus one; what is older is dropped; a gap means
// joining again with `after`. While a join is under way events wait in a buffer. The state of a class starts from the
// snapshot of the join ack; a resumed join only adds the missed events to what is here.

import { Emitter } from "../emitter.js";
import { newId } from "../net/ids.js";
import { foldClass } from "./class_state.js";
import { Outbox } from "./outbox.js";
import { ReadMarker } from "./read_marker.js";
import { Roster } from "./roster.js";
import { Timeline } from "./timeline.js";
import { Typing } from "./typing.js";

const FIRST_PAGE = 100; // events
const RESUME_LIMIT = 500; // events
const PAGE = 100; // events of history
const KEEP = 600; // entries that stay loaded while one reads the end
const REJOIN_WAIT = 1000; // milliseconds after a join that was refused for the moment
const REFETCH_WAIT = 700; // milliseconds
const MAX_BUFFER = 1000; // events that wait for a join; more than this and the join is asked for again anyway

export const NAMESPACES = { class: "/classroom" };

/**
 * Emits `changed` with one of "room", "timeline", "class", "people", "typing", "read"; `event` with each new room event;
 * `resumed` with {missed} after a lost connection, the missed events or null when the room began anew; `closed` with {code} when the room can no longer be seen.
 */
export class Room extends Emitter {
  id;
  me;
  info = null; // the room of the join ack
  you = { role: null, permissions: [] };
  joined = false;
  hasEarlier = false;
  classState = null;
  timeline = new Timeline();
  roster = new Roster();
  typing;
  outbox;
  marker;
  #channel;
  #api;
  #readSeq;
  #epoch = null;
  #last = null; // seq of the last event applied
  #earliest = null; // seq of the first event loaded
  #joining = false;
  #joinAgain = false;
  #buffer = [];
  #closed = false;
  #away = false; // the connection was lost since the last join
  #loading = null;
  #refetch = null;

  /** `readSeq` is how far the person has read, as the server knows it; null when it could not be asked. */
  constructor({ id, me, channel, api, readSeq }) {
    super();
    this.id = id;
    this.me = me;
    this.#channel = channel;
    this.#api = api;
    this.#readSeq = readSeq;
    this.typing = new Typing({
      announce: (on) => this.#tell("typing", { on }),
      changed: () => this.emit("changed", "typing"),
    });
    this.outbox = new Outbox({
      key: `lectern.outbox.${me.id}.${id}`,
      send: ({ id: messageId, text }) => this.#channel.durable("message", { room_id: id, id: messageId, text }),
      changed: () => this.emit("changed", "timeline"),
    });
    this.marker = new ReadMarker({
      tell: (seq) => this.#tell("read", { seq }),
      changed: () => this.emit("changed", "read"),
    });
    channel.on("connected", () => this.#join());
    channel.on("disconnected", () => this.#disconnected());
    channel.on("event", (name, payload) => this.#receive(name, payload));
    if (channel.connected) this.#join();
  }

  can(command) {
    return this.you.permissions.includes(command);
  }

  get lastSeq() {
    return this.#last ?? 0;
  }

  /** Run a durable command of the room; its id stays the same through every repetition. */
  command(name, payload = {}) {
    return this.#channel.durable(name, { room_id: this.id, cmd_id: newId(), ...payload });
  }

  /** Add a line of our own to the timeline. */
  note(text) {
    this.timeline.note(text);
    this.emit("changed", "timeline");
  }

  /** Load the page before what is here; callers at the same time share it. */
  loadEarlier() {
    this.#loading ??= this.#loadEarlier().finally(() => (this.#loading = null));
    return this.#loading;
  }

  /** Let go of old entries, which history can bring back, while the reader is at the end. */
  trim() {
    if (!this.timeline.trim(KEEP)) return;
    this.#earliest = this.timeline.entries[0].seq;
    this.hasEarlier = true;
  }

  /** Leave the room for good; the channel stays the caller's. */
  close() {
    this.#closed = true;
    clearTimeout(this.#refetch);
    this.typing.clear();
    this.marker.flush();
    if (this.joined) this.#channel.command("leave_room", { room_id: this.id }).catch(() => {});
  }

  // — joining —

  async #join() {
    if (this.#closed) return;
    if (this.#joining) {
      this.#joinAgain = true;
      return;
    }
    this.#joining = true;
    this.#joinAgain = false;
    try {
      this.#accept(await this.#channel.command("join_room", this.#joinRequest()));
    } catch (error) {
      this.#joinFailed(error);
    } finally {
      this.#joining = false;
    }
    if (this.#joinAgain) this.#join();
  }

  #joinRequest() {
    if (this.#last === null) return { room_id: this.id, limit: FIRST_PAGE };
    return { room_id: this.id, after: this.#last, epoch: this.#epoch, limit: RESUME_LIMIT };
  }

  #joinFailed(error) {
    if (error.code === "disconnected") return; // the next connection joins
    if (error.retryable) setTimeout(() => this.#channel.connected && this.#join(), error.retryAfterMs ?? REJOIN_WAIT);
    else this.#shut(error.code, error.message);
  }

  #accept(ack) {
    if (this.#closed) return;
    const returning = this.#away;
    this.#away = false;
    this.info = ack.room;
    this.you = ack.you;
    this.joined = true;
    if (ack.resumed) this.#resume(ack);
    else this.#startOver(ack);
    this.roster.replace(ack.participants);
    this.#replay();
    ["room", "timeline", "class", "people"].forEach((part) => this.emit("changed", part));
    if (returning) this.emit("resumed", { missed: ack.resumed ? ack.events : null });
    this.outbox.drain();
  }

  #resume(ack) {
    ack.events.forEach((event) => event.seq === this.#last + 1 && this.#apply(event));
    this.#epoch = ack.epoch;
    this.#last = ack.seq;
  }

  #startOver(ack) {
    const first = this.#last === null;
    this.#epoch = ack.epoch;
    this.#last = ack.seq;
    this.classState = ack.snapshot?.state ?? null;
    this.timeline.replace(ack.events);
    ack.events.forEach((event) => event.type === "message" && this.outbox.remove(event.data.id));
    this.#earliest = ack.events[0]?.seq ?? ack.seq + 1;
    this.hasEarlier = this.#earliest > 1;
    if (first) this.marker.begin(ack.seq, this.#readSeq);
  }

  #replay() {
    const waiting = this.#buffer.splice(0);
    waiting.forEach((event) => this.#event(event));
  }

  #disconnected() {
    this.#away = this.#last !== null;
    this.joined = false;
    this.typing.clear();
    this.emit("changed", "room");
  }

  // — what the server sends —

  #receive(name, payload) {
    if (this.#closed) return;
    if (name === "resync_required") {
      if (payload?.room_ids?.includes(this.id)) this.#join();
    } else if (payload?.room_id !== this.id) {
      return;
    } else if (name === "access_revoked") {
      this.#shut(payload.code);
    } else if (payload.seq !== undefined && payload.epoch !== undefined) {
      this.#event(payload);
    } else {
      this.#ephemeral(name, payload);
    }
  }

  #event(event) {
    if (this.#joining || this.#last === null) {
      if (this.#buffer.length < MAX_BUFFER) this.#buffer.push(event);
      return;
    }
    if (event.epoch === this.#epoch && event.seq <= this.#last) return;
    if (event.epoch !== this.#epoch || event.seq > this.#last + 1) {
      this.#join();
      return;
    }
    this.#apply(event);
    this.emit("changed", "timeline");
    this.emit("event", event);
  }

  #apply(event) {
    this.#last = event.seq;
    this.timeline.append(event);
    if (event.type === "message") {
      this.outbox.remove(event.data.id);
      if (event.actor) this.typing.heard(event.actor.id, event.actor.name, false);
    }
    if (!this.classState) return;
    const before = this.classState;
    this.classState = foldClass(before, event);
    if (this.classState !== before) this.emit("changed", "class");
  }

  #ephemeral(name, payload) {
    if (name === "typing" && payload.user_id !== this.me.id)
      this.typing.heard(payload.user_id, payload.name, payload.on);
    if (name === "read" && payload.user_id === this.me.id) this.marker.heard(payload.seq);
    const roster = this.roster.apply(name, payload);
    if (roster === "stale")
      this.#refetch ??= setTimeout(() => this.#fetchParticipants(), REFETCH_WAIT * (1 + Math.random()));
    if (roster) this.emit("changed", "people");
  }

  // After a wait by chance: everybody in a large room notices the same jump at the same moment.
  async #fetchParticipants() {
    this.#refetch = null;
    try {
      this.roster.replace(await this.#api.participants(this.id));
      this.emit("changed", "people");
    } catch (error) {
      console.warn("The list of participants could not be fetched again.", error.code);
    }
  }

  #shut(code, message = null) {
    this.#closed = true;
    this.joined = false;
    this.typing.clear();
    this.emit("closed", { code, message });
  }

  // — the rest —

  async #loadEarlier() {
    const request = { room_id: this.id, before: this.#earliest, limit: PAGE };
    const { events } = await this.#channel.command("history", request);
    const wanted = events.filter((event) => event.seq < this.#earliest);
    this.timeline.prepend(wanted);
    this.#earliest = wanted[0]?.seq ?? 1;
    this.hasEarlier = this.#earliest > 1;
    this.emit("changed", "timeline");
  }

  /** Tell something that may get lost. */
  #tell(name, payload) {
    if (this.joined) this.#channel.command(name, { room_id: this.id, ...payload }).catch(() => {});
  }
}
