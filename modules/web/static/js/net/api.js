// Api: the REST calls of the signed-in person. Adds the access token, and once a new one when the old is refused.

import { send } from "./http.js";
import { newId } from "./ids.js";

export class Api {
  #session;

  constructor(session) {
    this.#session = session;
  }

  get = (path) => this.#call("GET", path);

  /** POST with a key, so that the same creation sent twice happens once. */
  create = (path, body, key = newId()) => this.#call("POST", path, body, { "Idempotency-Key": key });

  courses = (cursor) =>
    this.get(`/api/classroom/courses?limit=100${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
  course = (courseId) => this.get(`/api/classroom/courses/${courseId}`);
  rooms = (courseId) => this.get(`/api/classroom/courses/${courseId}/rooms?limit=200`);
  room = (roomId) => this.get(`/api/classroom/rooms/${roomId}`);
  participants = (roomId) => this.get(`/api/classroom/rooms/${roomId}/participants`);
  createCourse = (title, description) => this.create("/api/classroom/courses", { title, description });
  joinCourse = (code) => this.create("/api/classroom/courses/join", { code });
  createRoom = (courseId, name, kind) => this.create(`/api/classroom/courses/${courseId}/rooms`, { name, kind });
  unread = () => this.get("/api/chat/unread");

  async #call(method, path, body, headers) {
    try {
      return await send(method, path, { body, headers, token: await this.#session.accessToken() });
    } catch (error) {
      if (error.status !== 401 || !this.#session.signedIn) throw error;
      await this.#session.refresh();
      return send(method, path, { body, headers, token: await this.#session.accessToken() });
    }
  }
}
