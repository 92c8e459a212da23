// One HTTP request to the API, without identity: JSON in, JSON out, every failure a RequestError.

import { problemOf, RequestError } from "./errors.js";
import { currentServer, tryNextServer } from "./servers.js";

const TIMEOUT = 15_000; // milliseconds

export async function send(method, path, { body, token, headers = {} } = {}) {
  const response = await answerOf(path, {
    method,
    headers: {
      Accept: "application/json",
      ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      ...(token ? { Authorization: `Bearer ${token}` } : {}),
      ...headers,
    },
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: "no-store",
    credentials: "omit",
    signal: AbortSignal.timeout(TIMEOUT),
  });
  if (!response.ok) throw await problemOf(response);
  return response.status === 204 ? null : response.json().catch(() => null);
}

async function answerOf(path, options) {
  try {
    return await fetch(currentServer() + path, options);
  } catch (error) {
    if (error.name === "TimeoutError") throw new RequestError("timeout", "", { retryable: true });
    // The server is gone: the next one gets the next request. A read may go there at once, it changes nothing.
    if (tryNextServer() && options.method === "GET") return fetch(currentServer() + path, options).catch(refuse);
    return refuse();
  }
}

function refuse() {
  throw new RequestError("network", "", { retryable: true });
}
