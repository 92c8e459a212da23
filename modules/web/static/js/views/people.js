// People: raised hands in their order, and who is in the room. Beside the chat, or over it where there is no room for both.

import { describe } from "../net/errors.js";
import { avatar } from "../ui/avatar.js";
import { fill, h, KeyedList, perFrame } from "../ui/dom.js";
import { clockTime } from "../ui/format.js";
import { icon } from "../ui/icons.js";
import { roving } from "../ui/roving.js";
import { toast } from "../ui/toast.js";

const MOST_SHOWN = 200; // people

export class People {
  #room;
  #handsCount = h("span", { class: "count" });
  #handsHeading = h("h2", { tabindex: "-1" }, "Raised hands", this.#handsCount);
  #handsEmpty = h("p", { class: "panel-empty" });
  #peopleCount = h("span", { class: "count" });
  #more = h("p", { class: "panel-empty" });
  #hands;
  #people;
  #rove;
  #openedBy = null;
  #onPointer = (event) => this.element.contains(event.target) || this.#hide();

  constructor(room, info) {
    this.#room = room;
    const hands = h("ol", { class: "hands", "aria-label": "Raised hands" });
    const people = h("ul", { class: "people", "aria-label": "In the room" });
    this.#hands = new KeyedList(hands);
    this.#people = new KeyedList(people);
    this.#rove = roving(hands, "button");
    this.element = h("aside", { class: "panel", "aria-label": "People", id: "people" }, [
      h("div", { class: "panel-head" }, [
        h("h2", {}, "People"),
        h(
          "button",
          {
            class: "button quiet icon-only",
            type: "button",
            "aria-label": "Close people",
            onclick: () => this.close(),
          },
          icon("close"),
        ),
      ]),
      info.kind === "class" &&
        h("section", { class: "panel-section hands-section" }, [this.#handsHeading, hands, this.#handsEmpty]),
      h("section", { class: "panel-section" }, h("h2", {}, "In the room", this.#peopleCount), people, this.#more),
    ]);
    this.element.addEventListener("keydown", (event) => event.key === "Escape" && this.close());
    this.element.addEventListener("focusout", (event) => this.#contains(event.relatedTarget) || this.#hide());
    const redraw = perFrame(() => this.#update());
    room.on("changed", (part) => ["class", "people", "room"].includes(part) && redraw());
    this.#update();
  }

  /** Show the panel over the chat (where it is not beside it) and move the focus there. */
  open() {
    this.#openedBy = document.activeElement;
    this.element.dataset.open = "true";
    document.addEventListener("pointerdown", this.#onPointer);
    this.element.querySelector(".panel-head button").focus();
  }

  close() {
    if (!this.#openedBy) return;
    const opener = this.#openedBy;
    this.#hide();
    opener.focus();
  }

  dispose() {
    this.#hide();
  }

  #update() {
    const { classState, roster, me } = this.#room;
    const hands = classState?.hands ?? [];
    this.#updateHands(hands);
    fill(this.#handsCount, hands.length > 0 && String(hands.length));
    fill(
      this.#handsEmpty,
      hands.length === 0 &&
        (classState?.status === "live" ? "Nobody has raised a hand." : "Hands can be raised while the class is live."),
    );
    this.#handsEmpty.hidden = hands.length > 0;

    const users = roster.users.slice(0, MOST_SHOWN);
    const raised = new Set(hands.map((hand) => hand.user_id));
    this.#people.update(users.map((user) => this.#personRow(user, me, raised)));
    fill(this.#peopleCount, String(roster.count));
    const hidden = roster.count - users.length;
    this.#more.hidden = hidden <= 0;
    fill(this.#more, hidden > 0 && `and ${hidden} more`);
  }

  // Where the focus was on a hand that is gone now, it goes to the one in its place.
  #updateHands(hands) {
    const { list } = this.#hands;
    const position = [...list.children].findIndex((item) => item.contains(document.activeElement));
    this.#hands.update(hands.map((hand) => this.#handRow(hand)));
    if (position >= 0 && !list.contains(document.activeElement)) {
      const next = list.children[position] ?? list.lastElementChild ?? this.#handsHeading;
      (next.querySelector("button") ?? next).focus();
    }
    this.#rove();
  }

  // No target: the focused control was redrawn, or the panel itself was clicked.
  #contains(target) {
    return !target || this.element.contains(target);
  }

  #hide() {
    delete this.element.dataset.open;
    this.#openedBy = null;
    document.removeEventListener("pointerdown", this.#onPointer);
  }

  #handRow(hand) {
    const canCall = this.#room.can("call_on");
    return {
      key: hand.user_id,
      signature: `${hand.name}|${hand.raised_at}|${canCall}`,
      build: () =>
        h("li", { class: "hand", "data-user": hand.user_id }, [
          avatar({ id: hand.user_id, name: hand.name, avatar_url: null }, "small"),
          h(
            "span",
            { class: "person-name" },
            hand.name,
            h("span", { class: "detail" }, ` ${clockTime(hand.raised_at)}`),
          ),
          canCall &&
            this.#handButton(
              "call_on",
              hand,
              { class: "button small primary", "aria-label": `Call on ${hand.name}` },
              "Call on",
            ),
          canCall &&
            this.#handButton(
              "lower_hand",
              hand,
              { class: "button small quiet icon-only", "aria-label": `Lower the hand of ${hand.name}` },
              icon("close"),
            ),
        ]),
    };
  }

  #personRow(user, me, raised) {
    const isMe = user.id === me.id;
    const hand = raised.has(user.id);
    const called = this.#room.classState?.called?.user_id === user.id;
    return {
      key: user.id,
      signature: `${user.name}|${user.avatar_url}|${hand}|${called}`,
      build: () =>
        h("li", { class: "person", "data-user": user.id }, [
          avatar(user, "small"),
          h("span", { class: "person-name" }, user.name, isMe && h("span", { class: "detail" }, " (you)")),
          called && h("span", { class: "tag accent" }, "Called"),
          hand &&
            h(
              "span",
              { class: "hand-mark", title: "Hand raised" },
              icon("hand"),
              h("span", { class: "visually-hidden" }, "Hand raised"),
            ),
        ]),
    };
  }

  #handButton(command, hand, attributes, content) {
    const run = async () => {
      if (button.hasAttribute("aria-disabled")) return;
      button.setAttribute("aria-disabled", "true"); // not `disabled`, which loses the focus
      try {
        await this.#room.command(command, { user_id: hand.user_id });
      } catch (error) {
        button.removeAttribute("aria-disabled");
        toast(describe(error), "error");
      }
    };
    const button = h("button", { type: "button", onclick: run, ...attributes }, content);
    return button;
  }
}
