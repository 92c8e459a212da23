// One room: opens its namespace, joins, and lays out the parts. The parts read the Room and redraw when it says so.

import { NAMESPACES, Room } from "../room/room.js";
import { fill, h } from "../ui/dom.js";
import { empty, failed, loading } from "../ui/states.js";
import { plural } from "../ui/format.js";
import { Announcer } from "./announcer.js";
import { Chat } from "./chat.js";
import { ClassBar } from "./class_bar.js";
import { connectionState } from "./connection_state.js";
import { People } from "./people.js";

const CLOSED = {
  not_found: ["There is no such room", "It does not exist, or you are not a member of it."],
  forbidden: ["You cannot enter this room", "Ask your teacher if you think that this is a mistake."],
  member_removed: ["You were removed from this room", "Ask your teacher if you think that this is a mistake."],
};
const REVOKED = ["You no longer have access to this room", "Your membership ended while you were here."];

export function roomView(context, { courseId, roomId }) {
  const { connection } = context;
  const element = h("div", { class: "room-page" }, loading("Opening the room …"));
  const indicator = connectionState(connection);
  const disposables = [indicator];
  let disposed = false;

  async function open() {
    try {
      const { api } = context;
      const [info, course, readSeq] = await Promise.all([
        api.room(roomId),
        api.course(courseId),
        readSeqOf(api, roomId),
      ]);
      if (disposed) return;
      const crumbs = [
        ["My courses", "/courses"],
        [course.title, `/courses/${courseId}`],
        [info.name, `/courses/${courseId}/rooms/${roomId}`],
      ];
      context.setCrumbs(info.name, crumbs, indicator.element);
      enter(info, readSeq);
    } catch (error) {
      if (!disposed) fill(element, failed(error, open));
    }
  }

  function enter(info, readSeq) {
    const channel = connection.open(NAMESPACES[info.kind] ?? "/chat");
    const room = new Room({ id: roomId, me: context.session.user, channel, api: context.api, readSeq });
    const parts = [new Chat(room, info), new People(room, info), new Announcer(room, info)];
    const [chat, people] = parts;
    const bar = new ClassBar(room, info, { onPeople: () => people.open() });
    fill(element, bar.element, h("div", { class: "room-body" }, chat.element, people.element));
    room.on("resumed", ({ missed }) => room.note(resumeLine(missed, room.me)));
    room.on("closed", ({ code, message }) => leave(code, message));
    disposables.push(bar, ...parts, { dispose: () => closeAll(room, channel) });
  }

  function leave(code, message) {
    const [title, text] = CLOSED[code] ?? REVOKED;
    dispose();
    const back = h("a", { class: "button primary", href: `#/courses/${courseId}` }, "Back to the course");
    fill(element, empty({ icon: "warning", title, text: CLOSED[code] ? text : message || text, actions: [back] }));
  }

  function dispose() {
    disposed = true;
    disposables.splice(0).forEach((part) => part.dispose());
  }

  open();
  return {
    title: "Room",
    layout: "room",
    crumbs: [["My courses", "/courses"]],
    element,
    tools: indicator.element,
    dispose,
  };
}

// How far one has read decides only where the line "New" stands: without an answer there is none.
async function readSeqOf(api, roomId) {
  const { items } = await api.unread().catch(() => ({ items: [] }));
  return items.find((item) => item.room_id === roomId)?.read_seq ?? null;
}

function closeAll(room, channel) {
  room.close();
  channel.close();
}

function resumeLine(missed, me) {
  if (!missed)
    return "Reconnected. You were away for long, so this shows the newest messages; scroll up for what is before.";
  const messages = missed.filter((event) => event.type === "message" && event.actor?.id !== me.id).length;
  return messages
    ? `Reconnected. ${plural(messages, "message")} came in meanwhile.`
    : "Reconnected. You missed nothing.";
}
