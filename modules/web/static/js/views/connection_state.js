// The state of the connection: a dot with words, the seconds until the next attempt, and a button to try at once.

import { announce } from "../ui/announce.js";
import { fill, h } from "../ui/dom.js";
import { toast } from "../ui/toast.js";

const WORDS = { connecting: "Connecting …", live: "Connected", reconnecting: "Reconnecting …", offline: "Offline" };
const ANNOUNCED = {
  live: "You are connected again.",
  reconnecting: "The connection is lost. Reconnecting.",
  offline: "You are offline. The connection comes back by itself.",
};

export function connectionState(connection) {
  const words = h("span", { class: "connection-words" });
  const now = h("button", { class: "link", type: "button", onclick: () => connection.reconnectNow() }, "Try now");
  const element = h("div", { class: "connection" }, h("span", { class: "dot", "aria-hidden": "true" }), words, now);
  let spoken = "connecting";
  let explained = null;

  function update() {
    const { name, retryAt, reason } = connection.state;
    element.dataset.state = name;
    now.hidden = !retryAt;
    fill(words, wordsOf(name, retryAt));
    if (name !== spoken && ANNOUNCED[name] && !(spoken === "connecting" && name === "live")) announce(ANNOUNCED[name]);
    spoken = name;
    if (reason && reason !== explained) toast(reason, "error");
    explained = reason ?? (name === "live" ? null : explained);
  }

  const forget = connection.on("state", update);
  const timer = setInterval(() => connection.state.retryAt && update(), 1000);
  update();
  return {
    element,
    dispose() {
      forget();
      clearInterval(timer);
    },
  };
}

function wordsOf(name, retryAt) {
  if (!retryAt) return WORDS[name] ?? "";
  const seconds = Math.max(1, Math.ceil((retryAt - Date.now()) / 1000));
  return name === "offline" ? "Offline" : `Reconnecting in ${seconds} s`;
}
