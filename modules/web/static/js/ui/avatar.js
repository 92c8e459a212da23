// Avatars: the picture, or initials on a colour that is always the same for the same person.

import { h } from "./dom.js";

const TONES = 10; // the colours of controls.css

export function avatar(user, size = "medium") {
  const attributes = { class: `avatar avatar-${size}`, "aria-hidden": "true" };
  if (user?.avatar_url) return h("img", { ...attributes, src: user.avatar_url, alt: "", loading: "lazy" });
  return h("span", { ...attributes, "data-tone": toneOf(user?.id ?? "") }, initialsOf(user?.name ?? "?"));
}

function initialsOf(name) {
  const words = name.trim().split(/\s+/);
  const chosen = words.length > 1 ? [words[0], words.at(-1)] : words;
  return chosen
    .map((word) => [...word][0] ?? "")
    .join("")
    .toUpperCase();
}

function toneOf(id) {
  let sum = 0;
  for (const character of id) sum = (sum * 31 + character.codePointAt(0)) >>> 0;
  return sum % TONES;
}
