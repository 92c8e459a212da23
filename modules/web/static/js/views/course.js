// One course: its rooms by kind, with what is live at the moment.

import { fill, h } from "../ui/dom.js";
import { openDialog } from "../ui/dialog.js";
import { field, form } from "../ui/form.js";
import { plural } from "../ui/format.js";
import { icon } from "../ui/icons.js";
import { empty, failed, loading } from "../ui/states.js";
import { toast } from "../ui/toast.js";
import { statusPill } from "./status_pill.js";

const REFRESH_EVERY = 15_000; // milliseconds, while the page is looked at
const MOST_UNREAD = 99;
const INSTRUCTORS = ["owner", "instructor"];
const GROUPS = [
  {
    kind: "class",
    title: "Live classes",
    one: "Live class",
    icon: "screen",
    hint: "Class with hands, roster and chat",
  },
  { kind: "lounge", title: "Lounges", one: "Lounge", icon: "chat", hint: "Chat of the whole course" },
  { kind: "group", title: "Groups", one: "Group", icon: "people", hint: "Chat of a group" },
];

export function courseView({ api, go, setCrumbs }, { courseId }) {
  const element = h("div", { class: "column" }, loading("Loading the course …"));
  const rooms = h("div", { class: "room-groups" });
  let course = null;
  let shown = "";

  async function load() {
    try {
      const [found, page] = await Promise.all([api.course(courseId), roomsWithUnread()]);
      course = found;
      setCrumbs(course.title, [
        ["My courses", "/courses"],
        [course.title, `/courses/${courseId}`],
      ]);
      fill(element, heading(), rooms);
      showRooms(page);
    } catch (error) {
      fill(element, failed(error, load));
    }
  }

  async function roomsWithUnread() {
    const [found, unread] = await Promise.all([api.rooms(courseId), api.unread().catch(() => ({ items: [] }))]);
    const counts = new Map(unread.items.map((item) => [item.room_id, item.unread]));
    return found.items.map((room) => ({ ...room, unread: counts.get(room.id) ?? 0 }));
  }

  async function refresh() {
    if (!course || document.visibilityState !== "visible") return;
    try {
      showRooms(await roomsWithUnread());
    } catch (error) {
      console.warn("The rooms could not be refreshed.", error.code);
    }
  }

  function showRooms(items) {
    const signature = JSON.stringify(items);
    if (signature === shown) return; // keeps the focus where it is
    shown = signature;
    fill(rooms, items.length ? GROUPS.map((group) => roomGroup(group, items, courseId)) : noRooms());
  }

  function heading() {
    const teaches = INSTRUCTORS.includes(course.role);
    return h("div", { class: "page-head" }, [
      h("div", {}, [
        h("h1", {}, course.title),
        course.description && h("p", { class: "lead" }, course.description),
        h("p", { class: "detail" }, plural(course.member_count, "member")),
      ]),
      teaches &&
        h("div", { class: "page-actions" }, [
          course.join_code && h("button", { class: "button", type: "button", onclick: invite }, "Invite"),
          h("button", { class: "button primary", type: "button", onclick: createRoom }, icon("plus"), "New room"),
        ]),
    ]);
  }

  function createRoom() {
    openDialog("New room", (close) =>
      roomForm(async ({ name, kind }) => {
        const room = await api.createRoom(courseId, name.trim(), kind);
        close();
        go(`/courses/${courseId}/rooms/${room.id}`);
      }),
    );
  }

  function invite() {
    openDialog("Invite to this course", () => inviteCode(course.join_code));
  }

  load();
  const timer = setInterval(refresh, REFRESH_EVERY);
  document.addEventListener("visibilitychange", refresh);
  return {
    title: "Course",
    crumbs: [["My courses", "/courses"]],
    element,
    dispose() {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", refresh);
    },
  };
}

function roomGroup(group, items, courseId) {
  const members = items.filter((room) => room.kind === group.kind);
  if (!members.length) return null;
  const headingId = `rooms-${group.kind}`;
  return h("section", { class: "room-group", "aria-labelledby": headingId }, [
    h("h2", { id: headingId }, group.title),
    h(
      "ul",
      { class: "room-list" },
      members.map((room) => roomLine(room, group, courseId)),
    ),
  ]);
}

function roomLine(room, group, courseId) {
  return h(
    "li",
    {},
    h("a", { class: "room-line", "data-status": room.status, href: `#/courses/${courseId}/rooms/${room.id}` }, [
      h("span", { class: "room-icon" }, icon(group.icon)),
      h("span", { class: "room-name" }, h("strong", {}, room.name), h("span", {}, group.hint)),
      room.unread > 0 &&
        h("span", { class: "tag accent" }, room.unread > MOST_UNREAD ? `${MOST_UNREAD}+` : room.unread, " new"),
      room.kind === "class" && statusPill(room.status),
      h("span", { class: "room-go" }, icon("chevron")),
    ]),
  );
}

function noRooms() {
  return empty({
    icon: "chat",
    title: "No rooms yet",
    text: "As soon as a live class or a lounge is made here, you will find it on this page.",
  });
}

function roomForm(submit) {
  const kinds = GROUPS.slice(0, 2).map(({ kind, one, hint }, index) =>
    h("label", { class: "choice" }, [
      h("input", { type: "radio", name: "kind", value: kind, checked: index === 0 }),
      h("span", {}, h("strong", {}, one), ` ${hint}`),
    ]),
  );
  return form({
    fields: [
      field("Name", { name: "name", required: true, maxlength: 200, autocomplete: "off" }),
      h("fieldset", { class: "choices" }, h("legend", {}, "Kind"), kinds),
    ],
    action: "Create room",
    submit,
  });
}

function inviteCode(code) {
  const copy = async () => {
    await navigator.clipboard?.writeText(code);
    toast("The code was copied.");
  };
  return h("div", { class: "form" }, [
    h("p", {}, "Whoever has this code can join the course as a learner:"),
    h("p", { class: "invite-code" }, code),
    h(
      "div",
      { class: "form-buttons" },
      h("button", { class: "button primary", type: "button", onclick: copy }, icon("copy"), "Copy the code"),
    ),
  ]);
}
