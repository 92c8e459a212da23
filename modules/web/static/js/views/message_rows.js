// The rows of the message list, each as {key, signature, build} for KeyedList.

import { describe } from "../net/errors.js";
import { avatar } from "../ui/avatar.js";
import { h } from "../ui/dom.js";
import { clockTime, dayName, fullTime } from "../ui/format.js";
import { icon } from "../ui/icons.js";
import { linkedText } from "../ui/linked_text.js";

const NOTICES = {
  class_started: () => "The class started",
  class_ended: () => "The class ended",
  hand_called: ({ data }) => `${data.name} was called on`,
};

export function dayRow({ at, key }) {
  const name = dayName(at);
  return { key: `day:${key}`, signature: name, build: () => h("li", { class: "day" }, h("span", {}, name)) };
}

export function newRow() {
  return { key: "new", signature: "", build: () => h("li", { class: "new-line" }, h("span", {}, "New")) };
}

export function noticeRow(entry) {
  const text = entry.kind === "note" ? entry.text : NOTICES[entry.type](entry);
  return {
    key: entry.key,
    signature: text,
    build: () => h("li", { class: "notice", "data-kind": entry.kind }, h("span", {}, text), timeOf(entry.at)),
  };
}

/** `grouped` leaves out the head under an earlier message of the same author; `delivered` marks our last one. */
export function messageRow(entry, room, { grouped, delivered }) {
  const own = entry.actor?.id === room.me.id;
  const state = entry.mine?.state ?? "logged";
  const error = entry.mine?.error;
  return {
    key: entry.key,
    signature: [grouped, delivered, state, error && describe(error), entry.edited, entry.text].join("|"),
    build: () =>
      h("li", { class: "message", "data-grouped": grouped, "data-own": own, "data-state": state }, [
        grouped ? h("span", { class: "message-gutter" }, timeOf(entry.at)) : avatar(entry.actor),
        h("div", { class: "message-body" }, [
          head(entry, own, grouped),
          textOf(entry),
          state === "failed"
            ? failedLine(entry, room, error)
            : h("span", { class: "message-state" }, stateMark(state, delivered)),
        ]),
      ]),
  };
}

function head(entry, own, grouped) {
  const name = entry.actor?.name ?? "Somebody who left";
  if (grouped) return h("span", { class: "visually-hidden" }, `${name}: `);
  return h("p", { class: "message-head" }, [
    h("strong", {}, name),
    own && h("span", { class: "detail" }, " (you)"),
    timeOf(entry.at),
  ]);
}

function textOf(entry) {
  if (entry.text === null) return h("p", { class: "message-text removed" }, "This message was deleted.");
  return h(
    "p",
    { class: "message-text" },
    linkedText(entry.text),
    entry.edited && h("span", { class: "detail" }, " (edited)"),
  );
}

function timeOf(at) {
  return h("time", { datetime: at, title: fullTime(at) }, clockTime(at));
}

function stateMark(state, delivered) {
  if (state === "pending") return [icon("clock"), h("span", { class: "visually-hidden" }, "Sending")];
  if (state === "sent" || delivered) return [icon("check"), h("span", { class: "visually-hidden" }, "Sent")];
  return null;
}

function failedLine(entry, room, error) {
  return h("p", { class: "message-failed" }, [
    icon("warning"),
    h("span", {}, error ? `Not sent. ${describe(error)}` : "Not sent."),
    h("button", { class: "link", type: "button", onclick: () => room.outbox.retry(entry.id) }, "Send again"),
    h("button", { class: "link", type: "button", onclick: () => room.outbox.remove(entry.id) }, "Discard"),
  ]);
}
