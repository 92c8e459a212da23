// Ids made by the client: of messages, commands and creations, so that a repetition happens once.

export function newId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  // A page over plain HTTP from another machine is no secure context and has no randomUUID: version 4 by hand.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
