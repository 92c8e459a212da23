// Drives the official Socket.IO client against a running server and prints one JSON object with what it saw.
// Usage: node classroom.mjs URL TOKEN ROOM_ID
import { randomUUID } from "node:crypto";
import { io } from "socket.io-client";

const [url, token, roomId] = process.argv.slice(2);
const MESSAGES = 300;
const TIMEOUT = 10_000;

const open = (namespace, options = {}) => io(url + namespace, { forceNew: true, auth: { token }, ...options });
const connected = (socket) =>
  new Promise((resolve, reject) => {
    socket.on("connect", resolve);
    socket.on("connect_error", reject);
  });
const call = (socket, command, payload) => socket.timeout(TIMEOUT).emitWithAck(command, { room_id: roomId, ...payload });
const until = async (condition) => {
  const deadline = Date.now() + TIMEOUT;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`timed out waiting for ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
};
const seqs = (events) => events.map((event) => event.seq);

const report = {};

// Three clients with the three ways to connect; the first is upgrading while messages arrive.
const sockets = {
  upgrading: open("/chat"),
  websocket: open("/chat", { transports: ["websocket"] }),
  polling: open("/classroom", { transports: ["polling"] }),
};
const received = {};
for (const [name, socket] of Object.entries(sockets)) {
  received[name] = [];
  socket.on("message", (event) => received[name].push(event));
}
await Promise.all(Object.values(sockets).map(connected));
const joins = {};
for (const [name, socket] of Object.entries(sockets)) joins[name] = await call(socket, "join_room", {});
const sends = [];
for (let n = 0; n < MESSAGES; n++) {
  sends.push(call(sockets.websocket, "message", { id: randomUUID(), text: `${n} žluťoučký 😀` }));
  if (n % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
}
const acks = await Promise.all(sends);
await until(() => Object.values(received).every((events) => events.length >= MESSAGES));
report.transports = Object.fromEntries(Object.entries(sockets).map(([n, s]) => [n, s.io.engine.transport.name]));
report.acked = acks.filter((ack) => ack.ok).length;
report.ack_seqs = seqs(acks);
report.received = Object.fromEntries(Object.entries(received).map(([name, events]) => [name, seqs(events)]));
report.texts_whole = received.polling.every((event, n) => event.data.text === `${n} žluťoučký 😀`);

// Refusals carry their code, and a refused socket gets nothing.
report.refused = await new Promise((resolve) => {
  const socket = open("/chat", { auth: { token: "no token" }, reconnection: false });
  socket.on("connect_error", (error) => {
    socket.close();
    resolve({ message: error.message, data: error.data });
  });
});
report.unknown_namespace = await new Promise((resolve) => {
  const socket = open("/nowhere", { reconnection: false });
  socket.on("connect_error", (error) => {
    socket.close();
    resolve(error.message);
  });
});

// Two namespaces over one connection, and an emit with retries that is sent until it is acked.
const shared = io(url + "/chat", { auth: { token } });
const both = shared.io.socket("/classroom", { auth: { token } });
both.connect();
await Promise.all([connected(shared), connected(both)]);
report.one_connection = shared.io === both.io && shared.io.engine.id === both.io.engine.id;
const retrying = open("/chat", { retries: 3, ackTimeout: 2000 });
await connected(retrying);
report.retried = await new Promise((resolve) =>
  retrying.emit("message", { room_id: roomId, id: randomUUID(), text: "with retries" }, (error, ack) => resolve(error ?? ack)),
);

// The connection is lost; the client comes back by itself and resumes where it was.
const last = received.websocket[MESSAGES - 1]; // what was said with retries may have come by now, or not
sockets.websocket.io.engine.close();
await call(sockets.polling, "message", { id: randomUUID(), text: "while you were away" });
await until(() => sockets.websocket.connected);
const resumed = await call(sockets.websocket, "join_room", { after: last.seq, epoch: last.epoch });
report.resumed = { resumed: resumed.resumed, texts: resumed.events.map((event) => event.data.text) };

report.disconnect_reason = await new Promise((resolve) => {
  sockets.upgrading.on("disconnect", resolve);
  sockets.upgrading.disconnect();
});
for (const socket of [...Object.values(sockets), shared, both, retrying]) socket.close();
console.log(JSON.stringify(report));
