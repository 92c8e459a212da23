// Roster: who is in the room. It begins with the participants of the join ack and follows the ephemeral events, which may be
// lost: a jump of `version` says so, and then the list is fetched again.

export class Roster {
  count = 0;
  #users = new Map();
  #version = null;

  /** Those we know of, by name: of a large room the first hundred and who came since. `count` is how many there are. */
  get users() {
    return [...this.#users.values()].sort((a, b) => a.name.localeCompare(b.name));
  }

  replace({ count, users, version }) {
    this.#users = new Map(users.map((user) => [user.id, user]));
    this.count = count ?? users.length;
    this.#version = version ?? null;
  }

  /** Take an ephemeral event. Returns "changed", "stale" (fetch the participants again) or null (not for us). */
  apply(name, payload) {
    if (name === "user_joined") this.#joined([payload.user], payload.count);
    else if (name === "user_left") this.#left([payload.user_id], payload.count);
    else if (name === "presence_changed") return this.#changed(payload);
    else return null;
    return "changed";
  }

  #changed({ version, since, count, joined, left }) {
    if (this.#version !== null && version <= this.#version) return null;
    // A summary stands for all changes behind `since`; one that begins later than what is known here has a gap before it.
    const jumped = this.#version !== null && since > this.#version;
    this.#version = version;
    this.#left(left, count);
    this.#joined(joined, count);
    return jumped ? "stale" : "changed";
  }

  #joined(users, count) {
    users.forEach((user) => this.#users.set(user.id, user));
    this.count = count;
  }

  #left(userIds, count) {
    userIds.forEach((id) => this.#users.delete(id));
    this.count = count;
  }
}
