// The servers that this page may talk to: its own, then those of <meta name="lectern-servers">, comma separated.

const named = document.querySelector('meta[name="lectern-servers"]')?.content ?? "";
const list = [
  ...new Set([
    window.location.origin,
    ...named
      .split(",")
      .map((url) => url.trim())
      .filter(Boolean),
  ]),
];
let position = 0;

export function currentServer() {
  return list[position];
}

/** Move on to the next server; returns false when there is only one. */
export function tryNextServer() {
  position = (position + 1) % list.length;
  return list.length > 1;
}
