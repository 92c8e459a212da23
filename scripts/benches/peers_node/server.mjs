// What Lectern is measured beside: the chat service of the original design on Socket.IO and Node.
//
//   node server.mjs '{"port": 18300, "redis": "/path/valkey.sock" | null, "store": null | "each" | "batch",
//                     "postgres": {"host", "user", "database"}, "ping_interval": 10, "ping_timeout": 8}'
//
// It speaks Lectern's dialect (namespace, join_room, typing, message) and does less for it: a token is whatever the
// client says, nobody's membership is checked, no message has a number and a repeated one is refused by its primary key.

import http from "node:http";
import { createAdapter } from "@socket.io/redis-adapter";
import pg from "pg";
import { createClient } from "redis";
import { Server } from "socket.io";

const POOL_SIZE = 16; // connections
const COMMITTERS = 2; // batches under way, as in Lectern
const BATCH = 1000; // messages
const INSERT = "INSERT INTO peer_messages (id, room_id, user_id, text) VALUES ($1, $2, $3, $4)";
const INSERT_MANY =
  "INSERT INTO peer_messages (id, room_id, user_id, text) SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[])";

const options = JSON.parse(process.argv[2]);
const server = http.createServer((request, response) => response.end("ready"));
const io = new Server(server, {
  pingInterval: options.ping_interval * 1000,
  pingTimeout: options.ping_timeout * 1000,
  transports: ["polling", "websocket"],
});

async function useRedis(path) {
  const publisher = createClient({ socket: { path } });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  io.adapter(createAdapter(publisher, subscriber));
}

// One awaited INSERT per message: what the original design says.
function storeEach(pool) {
  return (message) =>
    pool.query({
      name: "insert",
      text: INSERT,
      values: [message.id, message.room_id, message.user_id, message.text],
    });
}

// The same with group commit: what arrived while a batch was being committed goes into the next.
function storeBatches(pool) {
  let waiting = [];
  let busy = 0;

  async function commit() {
    const batch = waiting.splice(0, BATCH);
    busy += 1;
    try {
      const columns = ["id", "room_id", "user_id", "text"].map((name) => batch.map(({ message }) => message[name]));
      await pool.query({ name: "insert_many", text: INSERT_MANY, values: columns });
      for (const { resolve } of batch) resolve();
    } catch (error) {
      for (const { reject } of batch) reject(error);
    } finally {
      busy -= 1;
      if (waiting.length) commit();
    }
  }

  return (message) =>
    new Promise((resolve, reject) => {
      waiting.push({ message, resolve, reject });
      if (busy < COMMITTERS) commit();
    });
}

async function openStore() {
  if (!options.store) return async () => {};
  const pool = new pg.Pool({ ...options.postgres, max: POOL_SIZE, min: POOL_SIZE });
  await pool.query(
    "CREATE TABLE IF NOT EXISTS peer_messages (id uuid PRIMARY KEY, room_id uuid NOT NULL, user_id uuid NOT NULL," +
      " text text NOT NULL, created_at timestamptz NOT NULL DEFAULT now())",
  );
  await pool.query("CREATE INDEX IF NOT EXISTS peer_messages_room ON peer_messages (room_id, created_at)");
  return options.store === "batch" ? storeBatches(pool) : storeEach(pool);
}

function serve(namespace, store) {
  namespace.on("connection", (socket) => {
    const user = socket.handshake.auth.token;
    const name = "Student of the school";

    socket.on("join_room", (data, ack) => {
      socket.join(data.room_id);
      ack({ ok: true });
    });

    socket.on("typing", (data, ack) => {
      socket.to(data.room_id).emit("typing", { room_id: data.room_id, user_id: user, name, on: data.on });
      ack({ ok: true });
    });

    socket.on("message", async (data, ack) => {
      const message = { room_id: data.room_id, id: data.id, user_id: user, name, text: data.text, at: new Date() };
      try {
        await store(message);
      } catch (error) {
        console.error(error.message);
        return ack({ ok: false });
      }
      ack({ ok: true });
      namespace.to(data.room_id).emit("message", message);
    });
  });
}

if (options.redis) await useRedis(options.redis);
serve(io.of("/classroom"), await openStore());
server.listen(options.port, "127.0.0.1", 4096);
