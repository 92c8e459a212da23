// Refusals and failures, one class for both doors, and their wording for people.

/** A request or command that did not succeed. `code` is the contract's; "network", "timeout" and "disconnected" are ours. */
export class RequestError extends Error {
  constructor(
    code,
    message,
    { status = 0, retryable = false, retryAfterMs = null, errors = [], requestId = null } = {},
  ) {
    super(message);
    Object.assign(this, { code, status, retryable, retryAfterMs, errors, requestId });
  }
}

/** Read the problem+json of an HTTP answer. */
export async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  const seconds = Number(response.headers.get("Retry-After") ?? NaN);
  return new RequestError(body.code ?? `http_${response.status}`, body.detail ?? body.title ?? response.statusText, {
    status: response.status,
    retryable: response.status === 429 || response.status >= 502,
    retryAfterMs: Number.isFinite(seconds) ? seconds * 1000 : null,
    errors: body.errors ?? [],
    requestId: body.request_id ?? null,
  });
}

/** Read the `error` of a negative ack. */
export function refusalOf(error) {
  return new RequestError(error?.code ?? "internal", error?.message ?? "", {
    retryable: Boolean(error?.retryable),
    retryAfterMs: error?.retry_after_ms ?? null,
    errors: error?.errors ?? [],
  });
}

// Only where the client knows better than the server's own sentence.
const WORDS = {
  network: "The school cannot be reached. Check your connection and try again.",
  timeout: "The school did not answer in time. Try again.",
  disconnected: "You are not connected at the moment. Try again when the connection is back.",
  rate_limited: "That was too much in a short time.",
  slow_mode: "Slow mode is on in this room.",
};

/** Say in plain words what went wrong and, when known, how long to wait. */
export function describe(error) {
  if (!(error instanceof RequestError)) {
    console.error(error);
    return "Something went wrong in this page. Load it again.";
  }
  const fields = error.errors.map((field) => `${fieldName(field.loc)}${field.message}`).join(" ");
  const said = WORDS[error.code] ?? (fields || error.message || "That did not work.");
  if (!error.retryAfterMs) return said;
  return `${said} Try again in ${waitOf(error.retryAfterMs)}.`;
}

function waitOf(milliseconds) {
  const seconds = Math.ceil(milliseconds / 1000);
  if (seconds < 90) return seconds === 1 ? "a second" : `${seconds} seconds`;
  return `${Math.ceil(seconds / 60)} minutes`;
}

function fieldName(loc) {
  const name = (loc ?? []).filter((part) => typeof part === "string" && part !== "body").pop();
  return name ? `${name[0].toUpperCase()}${name.slice(1).replaceAll("_", " ")}: ` : "";
}
