// The pages that the links of letters open. Opening one changes nothing, because scanners of mail open every link: the
// token is used when somebody presses the button.

import { send } from "../net/http.js";
import { fill, h } from "../ui/dom.js";
import { field, form } from "../ui/form.js";

const MIN_PASSWORD = 8; // characters; the server has the last word

export const verifyEmailView = ({ token }) =>
  page("Confirm your address", "Press the button to confirm that this e-mail address is yours.", {
    action: "Confirm this address",
    submit: () => send("POST", "/api/auth/verify-email", { body: { token } }),
    done: "Your address is confirmed.",
  });

export const confirmEmailView = ({ token }) =>
  page("Use this address", "Press the button to use this e-mail address for your account from now on.", {
    action: "Use this address",
    submit: () => send("POST", "/api/auth/email/confirm", { body: { token } }),
    done: "Your account has this address now.",
  });

export const resetPasswordView = ({ token }) =>
  page("Set a new password", "All devices on which you are signed in will have to sign in again.", {
    fields: [
      field(
        "New password",
        { name: "password", type: "password", autocomplete: "new-password", required: true, minlength: MIN_PASSWORD },
        `At least ${MIN_PASSWORD} characters. Several words that do not belong together are best.`,
      ),
    ],
    action: "Set password",
    submit: ({ password }) => send("POST", "/api/auth/password/reset", { body: { token, password } }),
    done: "Your new password is set.",
  });

function page(title, text, { fields = [], action, submit, done }) {
  const card = h("div", { class: "card sign-in-card" });
  const finish = async (values) => {
    await submit(values);
    fill(card, [h("h2", {}, title), h("p", { role: "status" }, done), h("p", {}, h("a", { href: "#/" }, "Go on"))]);
  };
  fill(card, [h("h2", {}, title), h("p", {}, text), form({ fields, action, submit: finish })]);
  return { title, layout: "plain", element: h("div", { class: "sign-in" }, card) };
}
