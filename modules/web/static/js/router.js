// Router: the address after the # decides the view, so that a reload or a shared link returns to the same place.

export class Router {
  #routes; // [pattern, view] with names in the pattern: "/courses/:courseId"
  #outlet;
  #guard;
  #current = null;

  /** `guard(path, public)` returns another path to go to, or null. `outlet(page)` shows {title, element, layout?}. */
  constructor({ routes, guard, outlet }) {
    this.#routes = routes.map(([pattern, view]) => ({ match: matcher(pattern), view }));
    this.#guard = guard;
    this.#outlet = outlet;
    window.addEventListener("hashchange", () => this.show());
  }

  get path() {
    return window.location.hash.slice(1) || "/";
  }

  go(path) {
    if (path === this.path) this.show();
    else window.location.hash = path;
  }

  show() {
    const elsewhere = this.#guard(this.path);
    if (elsewhere) {
      window.location.replace(`#${elsewhere}`);
      return;
    }
    this.#current?.dispose?.();
    const found = this.#find(this.path.split("?")[0]);
    this.#current = found.view(found.params);
    this.#outlet(this.#current);
  }

  #find(path) {
    for (const { match, view } of this.#routes) {
      const params = match(path);
      if (params) return { view, params };
    }
    throw new Error("The last route has to match everything.");
  }
}

function matcher(pattern) {
  if (pattern === "*") return () => ({});
  const names = pattern.split("/");
  return (path) => {
    const parts = path.split("/");
    if (parts.length !== names.length) return null;
    const params = {};
    for (const [index, name] of names.entries()) {
      if (name.startsWith(":")) params[name.slice(1)] = decodeURIComponent(parts[index]);
      else if (name !== parts[index]) return null;
    }
    return params;
  };
}
