// The composition of the client: what exists once, which address shows which view, and what happens at signing in and out.

import { Api } from "./net/api.js";
import { RequestError } from "./net/errors.js";
import { Session } from "./net/session.js";
import { Connection } from "./net/socket.js";
import { Router } from "./router.js";
import { fill, h } from "./ui/dom.js";
import { failed } from "./ui/states.js";
import { courseView } from "./views/course.js";
import { coursesView } from "./views/courses.js";
import { confirmEmailView, resetPasswordView, verifyEmailView } from "./views/letters.js";
import { roomView } from "./views/room.js";
import { Shell } from "./views/shell.js";
import { signInView } from "./views/sign_in.js";

const HOME = "/courses";
const SIGN_IN = "/sign-in";
const FOR_ANYBODY = /^\/(verify-email|reset-password|confirm-email)\//; // links of letters
const RETRY_START = 3000; // milliseconds

const session = new Session();
const api = new Api(session);
const connection = new Connection(session);
let returnTo = HOME;
let reason = null; // why somebody has to sign in again

const context = {
  api,
  connection,
  session,
  go: (path) => router.go(path),
  setCrumbs(title, crumbs, tools) {
    shell.setTitle(title);
    shell.setCrumbs(crumbs, tools);
  },
};

const router = new Router({
  routes: [
    [SIGN_IN, () => signInView({ session, reason })],
    ["/verify-email/:token", verifyEmailView],
    ["/reset-password/:token", resetPasswordView],
    ["/confirm-email/:token", confirmEmailView],
    [HOME, () => coursesView(context)],
    ["/courses/:courseId", (params) => courseView(context, params)],
    ["/courses/:courseId/rooms/:roomId", (params) => roomView(context, params)],
    ["*", notFoundView],
  ],
  guard,
  outlet: (page) => shell.show(page),
});
const shell = new Shell({ session, root: document.getElementById("app") });

function guard(path) {
  if (FOR_ANYBODY.test(path)) return null;
  if (!session.signedIn && path !== SIGN_IN) {
    if (path !== "/") returnTo = path;
    return SIGN_IN;
  }
  if (session.signedIn && (path === SIGN_IN || path === "/")) return HOME;
  return null;
}

function notFoundView() {
  return { title: "Not found", element: failed(new RequestError("not_found", "This page does not exist.")) };
}

session.on("signed-in", () => {
  reason = null;
  router.go(returnTo);
  returnTo = HOME;
});

session.on("signed-out", (why) => {
  returnTo = why ? router.path : HOME;
  reason = why;
  router.go(SIGN_IN);
});

/** Take up the last login, however long the server takes to answer, and show where the address points. */
async function start() {
  try {
    await session.restore();
    router.show();
  } catch {
    const main = document.getElementById("main");
    main.className = "splash";
    fill(main, h("p", { role: "alert" }, "The school cannot be reached. Trying again …"));
    setTimeout(start, RETRY_START);
  }
}

start();
