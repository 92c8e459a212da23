// Connection: one Socket.IO connection with a channel per namespace, kept alive by ourselves.
//
// The library's own reconnection is off, because the wait is ours to choose: `going_away` names it, a refused token needs
// a new one first, a dead server means the next server, and the view shows the seconds.

import { Manager } from "../../vendor/socket.io.esm.min.js";
import { Emitter } from "../emitter.js";
import { Channel } from "./channel.js";
import { currentServer, tryNextServer } from "./servers.js";

const CONNECT_TIMEOUT = 8000; // milliseconds
const BACKOFF = [500, 1000, 2000, 4000, 8000, 15_000]; // milliseconds, each with up to half of it as jitter
const ATTEMPTS_PER_SERVER = 2;
const TOKEN_VALIDITY = 90; // seconds that a token must have to be worth extending a connection with
const SESSION_CODES = ["session_expired", "unauthenticated"];

/**
 * Emits `state` with {name, retryAt, reason}: "idle" (nothing is open), "connecting" (the first time), "live", "reconnecting" or
 * "offline" (both with `retryAt` while they wait, and `reason` in words when the server refused), "ended" (signed out).
 */
export class Connection extends Emitter {
  state = { name: "idle", retryAt: null, reason: null };
  #session;
  #channels = new Map();
  #manager = null;
  #attempt = 0; // what an earlier attempt still reports is ignored
  #failures = 0;
  #wasLive = false;
  #timer = null; // until the next attempt
  #plannedAt = null; // when a server that goes away told us to come back
  #refreshFirst = false;

  constructor(session) {
    super();
    this.#session = session;
    session.on("signed-out", () => this.#stop("ended"));
    window.addEventListener("online", () => this.reconnectNow());
    window.addEventListener(
      "offline",
      () => this.state.name === "reconnecting" && this.#setState("offline", this.state),
    );
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.reconnectNow());
  }

  /** Open a namespace; `close()` the channel when it is no longer needed. */
  open(namespace) {
    const channel = new Channel(namespace, () => this.#close(channel));
    this.#channels.set(namespace, channel);
    if (this.#manager) this.#attach(channel);
    else if (this.state.name === "idle" || this.state.name === "ended") this.#connect();
    return channel;
  }

  /** End the wait for the next attempt. */
  reconnectNow() {
    if (this.#timer && this.state.name !== "live") this.#connect();
  }

  async #connect() {
    this.#drop();
    const attempt = this.#attempt;
    this.#setState(this.#wasLive || this.#failures > 0 ? "reconnecting" : "connecting");
    try {
      if (this.#refreshFirst) await this.#session.refresh();
      await this.#session.accessToken();
    } catch (error) {
      if (attempt === this.#attempt) this.#retry(error.retryAfterMs);
      return;
    }
    if (attempt !== this.#attempt) return;
    this.#refreshFirst = false;
    this.#manager = this.#openManager(attempt);
    for (const channel of this.#channels.values()) this.#attach(channel);
  }

  #openManager(attempt) {
    const manager = new Manager(currentServer(), {
      path: "/socket.io/",
      transports: ["websocket", "polling"],
      tryAllTransports: true,
      reconnection: false,
      autoConnect: false,
      timeout: CONNECT_TIMEOUT,
    });
    manager.on("error", () => this.#lost(attempt));
    manager.on("close", () => this.#lost(attempt));
    return manager;
  }

  #attach(channel) {
    const attempt = this.#attempt;
    const socket = this.#manager.socket(channel.namespace, {
      auth: (give) =>
        this.#session.accessToken().then(
          (token) => give({ token }),
          () => give({}),
        ),
    });
    socket.on("connect", () => this.#connected(attempt));
    socket.on("connect_error", (error) => this.#refused(attempt, error));
    socket.on("disconnect", () => this.#lost(attempt));
    socket.on("token_expiring", () => this.#extend(channel));
    socket.on("session_expired", () => (this.#refreshFirst = true));
    socket.on("going_away", (notice) => this.#plan(attempt, notice?.reconnect_in_ms ?? 0));
    channel.attach(socket);
    socket.connect();
  }

  #connected(attempt) {
    if (attempt !== this.#attempt || ![...this.#channels.values()].every((channel) => channel.connected)) return;
    this.#failures = 0;
    this.#wasLive = true;
    this.#setState("live");
  }

  #refused(attempt, error) {
    if (attempt !== this.#attempt) return;
    const code = error.data?.code; // without one there was no answer at all
    const session = SESSION_CODES.includes(code);
    if (session) this.#refreshFirst = true;
    this.#retry(error.data?.retry_after_ms, code && !session ? error.message : null);
  }

  #lost(attempt) {
    if (attempt === this.#attempt) this.#retry(null);
  }

  #retry(waitMs, reason = null) {
    const plannedAt = this.#plannedAt;
    this.#drop();
    this.#failures += 1;
    if (plannedAt || this.#failures % ATTEMPTS_PER_SERVER === 0) tryNextServer();
    const step = BACKOFF[Math.min(this.#failures, BACKOFF.length) - 1];
    const wait = plannedAt ? Math.max(0, plannedAt - Date.now()) : (waitMs ?? step * (1 + Math.random() / 2));
    this.#timer = setTimeout(() => this.#connect(), wait);
    this.#setState(navigator.onLine ? "reconnecting" : "offline", { retryAt: Date.now() + wait, reason });
  }

  // A server that goes away still serves for a while: stay until the time it named, then move.
  #plan(attempt, waitMs) {
    if (attempt !== this.#attempt || this.#plannedAt) return;
    this.#plannedAt = Date.now() + waitMs;
    this.#timer = setTimeout(() => {
      tryNextServer();
      this.#connect();
    }, waitMs);
  }

  async #extend(channel) {
    try {
      const token = await this.#session.accessToken({ minValidity: TOKEN_VALIDITY });
      await channel.command("authenticate", { token });
    } catch (error) {
      console.warn("The connection could not be extended and will be made anew.", error.code);
      this.#refreshFirst = true;
    }
  }

  #close(channel) {
    channel.detach();
    if (this.#channels.get(channel.namespace) === channel) this.#channels.delete(channel.namespace);
    if (this.#channels.size === 0) this.#stop("idle");
  }

  #stop(name) {
    this.#drop();
    this.#failures = 0;
    this.#wasLive = false;
    this.#refreshFirst = false;
    this.#setState(name);
  }

  #drop() {
    this.#attempt += 1;
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#plannedAt = null;
    for (const channel of this.#channels.values()) channel.detach();
    this.#manager = null;
  }

  #setState(name, { retryAt = null, reason = null } = {}) {
    this.state = { name, retryAt, reason };
    this.emit("state", this.state);
  }
}
