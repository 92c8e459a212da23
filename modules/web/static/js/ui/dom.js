// Small hand-written DOM: elements from calls, text always as text nodes, lists that keep the nodes that did not change.

/** An element with attributes; a property `onclick: f` listens, null and false leave an attribute out. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  return fill(element, ...children);
}

/** Replace the content of an element. */
export function fill(element, ...children) {
  element.replaceChildren(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

/** Set or remove an attribute. */
export function toggle(element, name, on) {
  element.toggleAttribute(name, Boolean(on));
  return element;
}

/**
 * Make the children of `list` what `rows` say: {key, signature, build}. A row with the same key and signature keeps its
 * node, so that focus, scrolling and assistive technology are left in peace.
 */
export class KeyedList {
  #nodes = new Map(); // key → {signature, node}

  constructor(list) {
    this.list = list;
  }

  update(rows) {
    const next = new Map();
    let cursor = this.list.firstChild;
    for (const { key, signature, build } of rows) {
      const known = this.#nodes.get(key);
      const node = known?.signature === signature ? known.node : build();
      if (known && known.node !== node) {
        if (cursor === known.node) cursor = node;
        known.node.replaceWith(node);
      }
      next.set(key, { signature, node });
      if (node === cursor) cursor = cursor.nextSibling;
      else this.list.insertBefore(node, cursor);
    }
    for (const [key, { node }] of this.#nodes) if (!next.has(key)) node.remove();
    this.#nodes = next;
  }
}

/** Call `work` once before the next frame, however often it is asked for. In a hidden page, where no frame comes, soon. */
export function perFrame(work) {
  let waiting = false;
  const run = () => {
    waiting = false;
    work();
  };
  return () => {
    if (waiting) return;
    waiting = true;
    if (document.visibilityState === "visible") requestAnimationFrame(run);
    else setTimeout(run, 250);
  };
}
