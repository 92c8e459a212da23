// Sign in, or create an account.

import { send } from "../net/http.js";
import { fill, h } from "../ui/dom.js";
import { field, form } from "../ui/form.js";

const MIN_PASSWORD = 8; // characters; the server has the last word

export function signInView({ session, reason, create = false }) {
  const card = h("div", { class: "card sign-in-card" });
  const show = (creating) =>
    fill(card, creating ? createAccount(session, () => show(false)) : signIn(session, card, reason, () => show(true)));
  show(create);
  return {
    title: create ? "Create an account" : "Sign in",
    layout: "plain",
    element: h("div", { class: "sign-in" }, [
      h("div", { class: "sign-in-brand" }, [
        h("img", { src: "/static/icons/favicon.svg", alt: "", width: 56, height: 56 }),
        h("h1", {}, "Lectern"),
        h("p", {}, "Live classes with everyone in one room."),
      ]),
      card,
    ]),
  };
}

function signIn(session, card, reason, create) {
  const back = () => fill(card, signIn(session, card, reason, create));
  const submit = async ({ email, password }) => {
    try {
      await session.signIn(email.trim(), password);
    } catch (error) {
      if (error.code !== "totp_required") throw error;
      fill(card, secondFactor((code) => session.signIn(email.trim(), password, code.trim()), back));
    }
  };
  return [
    h("h2", {}, "Sign in"),
    reason && h("p", { class: "note-line", role: "status" }, reason),
    form({
      fields: [
        field("E-mail", { name: "email", type: "email", autocomplete: "username", required: true }),
        field("Password", { name: "password", type: "password", autocomplete: "current-password", required: true }),
      ],
      action: "Sign in",
      submit,
    }),
    switchLine("New here?", "Create an account", create),
    switchLine("Forgot your password?", "Get a letter", () => fill(card, forgotPassword(card, back))),
  ];
}

function secondFactor(submit, back) {
  return [
    h("h2", {}, "One more step"),
    form({
      fields: [
        field(
          "Code",
          { name: "code", autocomplete: "one-time-code", required: true, maxlength: 32 },
          "From your authenticator app, or one of your recovery codes.",
        ),
      ],
      action: "Sign in",
      submit: ({ code }) => submit(code),
    }),
    switchLine("Somebody else?", "Go back", back),
  ];
}

function forgotPassword(card, back) {
  const done = h("p", { role: "status" }, "If there is an account with this address, a letter is on its way.");
  return [
    h("h2", {}, "Forgot your password?"),
    form({
      fields: [field("E-mail", { name: "email", type: "email", autocomplete: "username", required: true })],
      action: "Get a letter",
      submit: async ({ email }) => {
        await send("POST", "/api/auth/password/forgot", { body: { email: email.trim() } });
        fill(card, [h("h2", {}, "Look into your mail"), done, switchLine("You have it?", "Sign in", back)]);
      },
    }),
    switchLine("You remember it?", "Sign in", back),
  ];
}

function createAccount(session, back) {
  return [
    h("h2", {}, "Create an account"),
    form({
      fields: [
        field(
          "Name",
          { name: "name", autocomplete: "name", required: true, maxlength: 100 },
          "As the others in class will see it.",
        ),
        field("E-mail", { name: "email", type: "email", autocomplete: "username", required: true }),
        field(
          "Password",
          { name: "password", type: "password", autocomplete: "new-password", required: true, minlength: MIN_PASSWORD },
          `At least ${MIN_PASSWORD} characters.`,
        ),
      ],
      action: "Create account",
      submit: ({ name, email, password }) => session.register(name.trim(), email.trim(), password),
    }),
    switchLine("You have an account?", "Sign in", back),
  ];
}

function switchLine(question, action, run) {
  return h(
    "p",
    { class: "switch-line" },
    `${question} `,
    h("button", { class: "link", type: "button", onclick: run }, action),
  );
}
