// The bar of a room: its name and status, and in a class the controls that one's permissions allow, and who is called on.

import { describe } from "../net/errors.js";
import { confirm } from "../ui/dialog.js";
import { fill, h } from "../ui/dom.js";
import { elapsed, plural } from "../ui/format.js";
import { icon } from "../ui/icons.js";
import { toast } from "../ui/toast.js";
import { statusPill } from "./status_pill.js";

const NOT_LIVE = "Hands can be raised while the class is live.";

export class ClassBar {
  #room;
  #info;
  #status = h("div", { class: "room-status" });
  #controls = h("div", { class: "room-controls", role: "group", "aria-label": "Class" });
  #banner = h("p", { class: "called", role: "status", hidden: true });
  #peopleCount = h("span", {});
  #clock = h("span", { class: "pill-detail" });
  #busy = new Set();
  #timer;
  #drawn = "";

  constructor(room, info, { onPeople }) {
    this.#room = room;
    this.#info = info;
    const people = h(
      "button",
      { class: "button people-button", type: "button", onclick: onPeople },
      icon("people"),
      this.#peopleCount,
    );
    this.element = h("div", { class: "room-top" }, [
      h("div", { class: "room-head" }, [
        h("div", { class: "room-title" }, h("h1", {}, info.name), this.#status),
        this.#controls,
        people,
      ]),
      this.#banner,
    ]);
    room.on("changed", (part) => part === "timeline" || part === "typing" || this.#update());
    this.#timer = setInterval(() => this.#tick(), 1000);
    this.#update();
  }

  dispose() {
    clearInterval(this.#timer);
  }

  get #state() {
    return this.#room.classState;
  }

  #update() {
    const people = plural(this.#room.roster.count, "person", "people");
    fill(
      this.#peopleCount,
      h("span", { "aria-hidden": "true" }, String(this.#room.roster.count)),
      h("span", { class: "visually-hidden" }, `Show people: ${people} here`),
      this.#handsBadge(),
    );
    if (this.#info.kind === "class") this.#updateClass();
  }

  #updateClass() {
    const status = this.#state?.status ?? this.#info.status;
    this.#tick();
    fill(this.#status, statusPill(status, status === "live" && this.#clock));
    this.#updateControls(status);
    this.#updateBanner();
  }

  // Buttons are made anew only when something about them changes: the focus stays where it is.
  #updateControls(status) {
    const buttons = this.#buttons(status);
    const signature = JSON.stringify([buttons, [...this.#busy]]);
    if (signature === this.#drawn) return;
    this.#drawn = signature;
    const focused = document.activeElement?.dataset?.command;
    fill(
      this.#controls,
      buttons.map((button) => this.#button(button)),
    );
    if (focused) this.#controls.querySelector(`[data-command="${focused}"]`)?.focus();
  }

  #buttons(status) {
    const { me } = this.#room;
    const raised = this.#state?.hands.some((hand) => hand.user_id === me.id) ?? false;
    const buttons = [];
    if (this.#room.can("raise_hand") && !this.#room.can("call_on")) {
      buttons.push({
        command: raised ? "lower_hand" : "raise_hand",
        slot: "hand",
        text: raised ? "Lower hand" : "Raise hand",
        icon: "hand",
        style: raised ? "button raised" : "button primary",
        pressed: raised,
        disabled: status !== "live",
      });
    }
    if (this.#room.can("start_class") && status !== "live") {
      buttons.push({
        command: "start_class",
        slot: "class",
        text: status === "ended" ? "Start again" : "Start class",
        icon: "play",
        style: "button primary",
      });
    }
    if (this.#room.can("end_class") && status === "live") {
      buttons.push({
        command: "end_class",
        slot: "class",
        text: "End class",
        icon: "stop",
        style: "button",
        ask: true,
      });
    }
    return buttons;
  }

  #button({ command, slot, text, icon: name, style, pressed, disabled, ask }) {
    const run = () => {
      if (disabled) toast(NOT_LIVE);
      else if (!this.#busy.has(slot)) ask ? this.#askToEnd() : this.#run(command, slot);
    };
    return h(
      "button",
      {
        class: style,
        type: "button",
        "data-command": slot,
        "aria-pressed": pressed === undefined ? null : String(pressed),
        "aria-disabled": disabled || this.#busy.has(slot) ? "true" : null, // not `disabled`, which loses the focus
        onclick: run,
      },
      icon(name),
      text,
    );
  }

  #askToEnd() {
    const run = () => this.#run("end_class", "class");
    confirm({
      title: "End the class?",
      text: "Raised hands are cleared. The chat stays open, and you can start the class again.",
      action: "End class",
      run,
    });
  }

  async #run(command, slot) {
    this.#busy.add(slot);
    this.#update();
    try {
      await this.#room.command(command);
    } catch (error) {
      toast(describe(error), "error");
    } finally {
      this.#busy.delete(slot);
      this.#update();
    }
  }

  #updateBanner() {
    const called = this.#state?.called;
    const mine = called?.user_id === this.#room.me.id;
    this.#banner.hidden = !called;
    this.#banner.dataset.mine = mine;
    if (!called) return fill(this.#banner);
    const text = mine ? "You are called on. It is your turn to speak." : `${called.name} is called on.`;
    if (this.#banner.textContent !== text) fill(this.#banner, icon("hand"), text);
  }

  #handsBadge() {
    const count = this.#state?.hands.length ?? 0;
    return (
      count > 0 &&
      h("span", { class: "badge" }, icon("hand"), String(count), h("span", { class: "visually-hidden" }, " raised"))
    );
  }

  #tick() {
    if (this.#state?.status === "live") fill(this.#clock, elapsed(this.#state.started_at));
  }
}
