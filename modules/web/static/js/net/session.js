// Session: who is signed in. The access token lives in memory, the refresh token in localStorage (it survives a reload).
//
// A refresh token works once: used again after a short grace it ends the whole login. So one tab at a time refreshes
// (navigator.locks) and tells the others (BroadcastChannel), and a lost answer is asked for again at once.

import { Emitter } from "../emitter.js";
import { RequestError } from "./errors.js";
import { send } from "./http.js";

const KEY = "lectern.refresh_token";
const CHANNEL = "lectern.session";
const MIN_VALIDITY = 30; // seconds an access token must still have, or half of its life where that is short
const RETRIES = [500, 2000]; // milliseconds; inside the server's grace of 10 s

/** Emits `signed-in` and `signed-out` (with a reason or null). */
export class Session extends Emitter {
  user = null;
  #token = null;
  #expiresAt = 0; // milliseconds of our own clock
  #minValidity = MIN_VALIDITY;
  #refreshing = null;
  #tabs = "BroadcastChannel" in window ? new BroadcastChannel(CHANNEL) : null;

  constructor() {
    super();
    this.#tabs?.addEventListener("message", (message) => this.#hear(message.data));
  }

  get signedIn() {
    return this.user !== null;
  }

  /** Take up the login of the last visit. Returns false when there is none; throws when the server cannot be asked. */
  async restore() {
    if (!localStorage.getItem(KEY)) return false;
    try {
      await this.refresh();
      return true;
    } catch (error) {
      if (error.code === "network" || error.code === "timeout" || error.retryable) throw error;
      return false;
    }
  }

  /** Sign in; throws `totp_required` when the account has a second factor and `totp` is missing. */
  async signIn(email, password, totp) {
    const body = totp ? { email, password, totp } : { email, password };
    this.#accept(await send("POST", "/api/auth/login", { body }));
    this.emit("signed-in");
  }

  async register(name, email, password) {
    await send("POST", "/api/auth/register", { body: { name, email, password } });
    await this.signIn(email, password);
  }

  async signOut() {
    const token = await this.accessToken().catch(() => null);
    this.#forget(null);
    this.#tabs?.postMessage({ kind: "signed-out" });
    if (!token) return;
    // The login ends at the server too, if it can be reached; this device has forgotten it in any case.
    await send("POST", "/api/auth/logout", { token }).catch(() => {});
  }

  /** An access token that is good for at least `minValidity` more seconds. */
  async accessToken({ minValidity = this.#minValidity } = {}) {
    if (!this.#fresh(minValidity)) await this.refresh();
    return this.#token;
  }

  /** Get new tokens; callers at the same time, in all tabs, share one request. */
  refresh() {
    this.#refreshing ??= this.#refreshAlone().finally(() => (this.#refreshing = null));
    return this.#refreshing;
  }

  async #refreshAlone() {
    const before = this.#token;
    const alone = navigator.locks ? (work) => navigator.locks.request("lectern.refresh", work) : (work) => work();
    await alone(async () => {
      if (this.#token !== before && this.#fresh(this.#minValidity)) return; // another tab was faster and told us
      const refreshToken = localStorage.getItem(KEY);
      if (!refreshToken) throw this.#end("Sign in to continue.");
      this.#accept(await this.#rotate(refreshToken));
    });
  }

  async #rotate(refreshToken) {
    for (const delay of [...RETRIES, null]) {
      try {
        return await send("POST", "/api/auth/refresh", { body: { refresh_token: refreshToken } });
      } catch (error) {
        if (error.status === 401 || error.status === 403 || error.status === 422) {
          throw this.#end("Your session has ended. Sign in again.");
        }
        if (delay === null || !error.retryable) throw error;
        await new Promise((resolve) => setTimeout(resolve, delay));
      }
    }
  }

  #fresh(seconds) {
    return this.#token !== null && this.#expiresAt - Date.now() > seconds * 1000;
  }

  #accept(answer) {
    this.#token = answer.access_token;
    this.#expiresAt = Date.now() + answer.expires_in * 1000;
    this.#minValidity = Math.min(MIN_VALIDITY, answer.expires_in / 2);
    this.user = answer.user ?? this.user;
    localStorage.setItem(KEY, answer.refresh_token);
    const { user } = this;
    this.#tabs?.postMessage({ kind: "tokens", token: this.#token, expiresAt: this.#expiresAt, user });
  }

  #hear(message) {
    if (message.kind === "signed-out" && this.user) this.#forget("You signed out in another tab.");
    if (message.kind !== "tokens" || !this.user) return;
    if (message.user.id !== this.user.id) return this.#forget("Somebody else signed in in another tab.");
    this.#token = message.token;
    this.#expiresAt = message.expiresAt;
  }

  #end(reason) {
    localStorage.removeItem(KEY);
    this.#forget(reason);
    return new RequestError("session_expired", reason, { status: 401 });
  }

  #forget(reason) {
    this.#token = null;
    this.#expiresAt = 0;
    if (reason === null) localStorage.removeItem(KEY);
    const wasSignedIn = this.user !== null;
    this.user = null;
    if (wasSignedIn) this.emit("signed-out", reason);
  }
}
