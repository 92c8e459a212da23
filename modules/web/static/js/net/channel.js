// Channel: one namespace across all its connections. Commands go out and get an ack; events come in.

import { Emitter } from "../emitter.js";
import { refusalOf, RequestError } from "./errors.js";

const ACK_TIMEOUT = 8000; // milliseconds
const PATIENCE = 30_000; // milliseconds until a durable command is given up
const SILENT_WAIT = 3000; // milliseconds; a longer retry_after is shown to the person instead of waited for

/** Emits `connected` (each time anew), `disconnected`, and `event` with (name, payload). */
export class Channel extends Emitter {
  namespace;
  #socket = null;
  #wasConnected = false;
  #release;

  constructor(namespace, release) {
    super();
    this.namespace = namespace;
    this.#release = release;
  }

  get connected() {
    return this.#socket?.connected ?? false;
  }

  attach(socket) {
    this.#socket = socket;
    socket.on("connect", () => {
      if (this.#socket !== socket) return;
      this.#wasConnected = true;
      this.emit("connected");
    });
    socket.onAny((name, payload) => this.#socket === socket && this.emit("event", name, payload));
  }

  detach() {
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.disconnect();
    if (this.#wasConnected) this.emit("disconnected");
    this.#wasConnected = false;
  }

  close() {
    this.#release();
  }

  /** Send a command once and wait for its ack. Throws a RequestError when it is refused or not answered. */
  async command(name, payload) {
    const socket = this.#socket;
    if (!socket?.connected) throw new RequestError("disconnected", "", { retryable: true });
    let ack;
    try {
      ack = await socket.timeout(ACK_TIMEOUT).emitWithAck(name, payload);
    } catch {
      throw new RequestError(socket.connected ? "timeout" : "disconnected", "", { retryable: true });
    }
    if (!ack?.ok) throw refusalOf(ack?.error);
    return ack;
  }

  /**
   * Send a command that carries its own id until it is answered, through lost connections and short refusals: the id makes
   * it happen once. Throws the last RequestError after 30 s.
   */
  async durable(name, payload) {
    const giveUpAt = Date.now() + PATIENCE;
    for (;;) {
      try {
        return await this.command(name, payload);
      } catch (error) {
        const wait = error.retryAfterMs ?? 500;
        if (!error.retryable || wait > SILENT_WAIT || Date.now() + wait > giveUpAt) throw error;
        await new Promise((resolve) => setTimeout(resolve, wait));
        if (!this.connected && !(await this.#connectedBefore(giveUpAt))) throw error;
      }
    }
  }

  #connectedBefore(time) {
    return new Promise((resolve) => {
      const settle = (value) => {
        clearTimeout(timer);
        forget();
        resolve(value);
      };
      const timer = setTimeout(() => settle(false), time - Date.now());
      const forget = this.on("connected", () => settle(true));
    });
  }
}
