// What the official client can do beyond a plain conversation; prints one JSON object with what it saw.
// Usage: node behaviours.mjs URL TOKEN ROOM_ID
import { randomUUID } from "node:crypto";
import { io } from "socket.io-client";

const [url, token, roomId] = process.argv.slice(2);
const TIMEOUT = 10_000;
const LOAD = 400; // messages while clients upgrade

const open = (namespace, options = {}) => io(url + namespace, { forceNew: true, auth: { token }, ...options });
const connected = (socket) =>
  new Promise((resolve, reject) => {
    if (socket.connected) resolve();
    socket.once("connect", resolve);
    socket.once("connect_error", reject);
  });
const call = (socket, command, payload) => socket.timeout(TIMEOUT).emitWithAck(command, { room_id: roomId, ...payload });
const say = (socket, text) => call(socket, "message", { id: randomUUID(), text });
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const until = async (condition) => {
  const deadline = Date.now() + TIMEOUT;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`timed out waiting for ${condition}`);
    await pause(5);
  }
};
const seen = (socket) => {
  const seqs = [];
  socket.on("message", (event) => seqs.push(event.seq));
  return seqs;
};
const contiguous = (seqs) => seqs.every((seq, n) => n === 0 || seq === seqs[n - 1] + 1);
const report = {};

// Clients join by polling and upgrade while messages pour in, some of them their own; nothing is lost or reordered.
const speaker = open("/chat", { transports: ["websocket"] });
await connected(speaker);
await call(speaker, "join_room", {});
let pouring = true;
const pour = (async () => {
  let last;
  for (let n = 0; n < LOAD; n++) last = await say(speaker, `${n} ${"x".repeat(n % 50 === 0 ? 7000 : 50)}`);
  pouring = false;
  return last.seq;
})();
const upgrading = [];
while (pouring && upgrading.length < 12) {
  const socket = open("/classroom");
  const client = { socket, seqs: seen(socket), began: null };
  upgrading.push(client);
  connected(socket).then(async () => {
    client.began = (await call(socket, "join_room", { limit: 1 })).seq;
    client.own = (await say(socket, "me too")).ok;
  });
  await pause(8);
}
await pour;
await until(() => upgrading.every((client) => client.own !== undefined));
const head = (await say(speaker, "the last one")).seq;
await until(() => upgrading.every((client) => client.seqs.at(-1) === head));
report.upgraded = upgrading.every((client) => client.socket.io.engine.transport.name === "websocket");
report.upgrade_contiguous = upgrading.every((client) => contiguous(client.seqs) && client.seqs[0] === client.began + 1);
upgrading.forEach((client) => client.socket.close());

// An ack in time, and one that does not come in time: the client goes on, and the late ack disturbs nothing.
report.ack_in_time = (await call(speaker, "typing", { on: true })).ok;
const ahead = Array.from({ length: 50 }, (_, n) => say(speaker, `ahead ${n}`)); // they are carried out first
report.ack_too_late = await speaker
  .timeout(0)
  .emitWithAck("typing", { room_id: roomId, on: false })
  .then(() => "acked", (error) => error.message);
report.after_late_ack = (await say(speaker, "still here")).ok && (await Promise.all(ahead)).every((ack) => ack.ok);

// `auth` as a callback is asked again for each attempt: first it has no valid token, later it has.
let asked = 0;
const asking = open("/chat", { reconnectionDelay: 50, auth: (give) => give({ token: asked++ ? token : "none yet" }) });
report.first_refusal = await new Promise((resolve) => asking.once("connect_error", (error) => resolve(error.data.code)));
asking.connect();
await connected(asking);
asking.io.engine.close();
await until(() => !asking.connected);
await until(() => asking.connected);
report.auth_asked = asked;

// What is emitted while there is no connection: buffered, unless it is volatile.
const away = open("/chat", { reconnectionDelay: 50, transports: ["websocket"] });
const texts = [];
speaker.on("message", (event) => texts.push(event.data.text));
away.volatile.emit("message", { room_id: roomId, id: randomUUID(), text: "volatile, away" });
away.emit("message", { room_id: roomId, id: randomUUID(), text: "buffered" });
await connected(away);
away.io.engine.close();
await until(() => !away.connected);
away.emit("message", { room_id: roomId, id: randomUUID(), text: "buffered again" });
await until(() => away.connected);
away.volatile.emit("message", { room_id: roomId, id: randomUUID(), text: "volatile, here" });
await until(() => texts.includes("volatile, here"));
report.while_away = texts.filter((text) => text.startsWith("volatile") || text.startsWith("buffered"));

// With `retries`, an emit whose connection dies is sent again under its id, and happens once; the queue goes on.
const retrying = open("/chat", { retries: 5, ackTimeout: 1000, reconnectionDelay: 50 });
await connected(retrying);
const attempts = [];
for (let n = 0; n < 5; n++) {
  const id = randomUUID();
  attempts.push(new Promise((resolve) => {
    retrying.emit("message", { room_id: roomId, id, text: `retried ${n}` }, (error, ack) => resolve(error ?? ack));
  }));
  if (n === 2) retrying.io.engine.close();
}
report.retried = (await Promise.all(attempts)).map((ack) => ack.ok === true);
await until(() => texts.includes("retried 4"));
report.retried_once = [0, 1, 2, 3, 4].every((n) => texts.filter((text) => text === `retried ${n}`).length === 1);
const silent = open("/chat", { retries: 2, ackTimeout: 1000 });
await connected(silent);
report.retried_refusal = await new Promise((resolve) =>
  silent.emit("no such command", {}, (error, ack) => resolve(error ?? ack.error.code)),
);

// Several namespaces over one connection: one can be left and joined again, and the other does not notice.
const manager = open("/chat", { transports: ["websocket"] });
const second = manager.io.socket("/classroom", { auth: { token } });
const unknown = manager.io.socket("/nowhere", {});
const refused = new Promise((resolve) => unknown.once("connect_error", (error) => resolve(error.message)));
second.connect();
unknown.connect();
await Promise.all([connected(manager), connected(second)]);
report.unknown_beside = await refused;
const engine = manager.io.engine.id;
second.disconnect();
report.other_stays = (await say(manager, "alone")).ok;
second.connect();
await connected(second);
report.same_connection = manager.io.engine.id === engine && (await call(second, "join_room", {})).ok;

// Polling only, with many messages at once in both directions.
const polling = open("/classroom", { transports: ["polling"] });
const polled = seen(polling);
await connected(polling);
const joined = await call(polling, "join_room", { limit: 1 });
const acks = await Promise.all(Array.from({ length: 100 }, (_, n) => say(polling, `polled ${n} ${"ž".repeat(500)}`)));
await until(() => polled.length >= 100);
report.polling = polling.io.engine.transport.name === "polling" && acks.every((ack) => ack.ok);
report.polled_contiguous = contiguous(polled) && polled[0] === joined.seq + 1;

// Binary is refused: the connection is closed, the client comes back and can go on.
const binary = open("/chat", { transports: ["websocket"], reconnectionDelay: 50 });
await connected(binary);
const closed = new Promise((resolve) => binary.once("disconnect", (reason, details) => resolve([reason, details?.context?.code])));
binary.emit("message", { room_id: roomId, id: randomUUID(), text: Buffer.from("bytes") });
report.binary = await closed;
await until(() => binary.connected);

for (const socket of [speaker, asking, away, retrying, silent, manager, second, unknown, polling, binary]) socket.close();
console.log(JSON.stringify(report));
