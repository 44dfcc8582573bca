// @ts-check
import { ClientError, cutShort, unreachable } from "./errors.mjs";
import { deadline, refusal } from "./info.mjs";
import { watchProtocol } from "./timing.mjs";

/** @typedef {import("./types.mjs").Env} Env */
/** @typedef {import("./types.mjs").Source} Source */

/**
 * Asks the server whether it would give that feed, and throws its refusal in words: what WebTransport cannot learn,
 * because browsers do not give a page the status of a session's request. HEAD starts nothing; the words are a GET's.
 *
 * @param {{ url: string, signal: AbortSignal, env: Env }} options
 */
export async function askFirst({ url, signal, env }) {
  const what = new URL(url, env.href).pathname;
  const limit = deadline(env, signal);
  try {
    const first = await env.fetch(url, { method: "HEAD", cache: "no-store", signal: limit.signal });
    if (first.ok) return;
    const response = await env.fetch(url, { cache: "no-store", signal: limit.signal });
    if (!response.ok) throw await refusal(what, response, env);
    await response.body?.cancel();
  } catch (cause) {
    throw cause instanceof ClientError ? cause : unreachable(what, cause);
  } finally {
    limit.clear();
  }
}

/**
 * Opens a feed as one HTTP response whose body is read while it is being written. Resolves when
 * the response's head is there. Over which HTTP that happens is the browser's choice.
 *
 * @param {{ url: string, signal: AbortSignal, env: Env }} options `signal` ends it at any time
 * @returns {Promise<Source>}
 */
export async function openFetch({ url, signal, env }) {
  const what = new URL(url, env.href).pathname;
  const gone = new AbortController();
  const timing = watchProtocol(url, env);
  const close = () => {
    gone.abort();
    timing.stop();
  };
  const startedAt = env.performance.now();
  const limit = deadline(env, AbortSignal.any([signal, gone.signal]));
  /** @type {Response} */
  let response;
  try {
    response = await env.fetch(url, { cache: "no-store", signal: limit.signal });
  } catch (cause) {
    close();
    throw unreachable(what, cause);
  } finally {
    // For the head alone: the body takes as long as the feed.
    limit.clear();
  }
  if (!response.ok || response.body === null) {
    const error = await refusal(what, response, env);
    close();
    throw error;
  }
  return {
    transport: "fetch",
    startedAt,
    stream: response.body,
    protocol: (waitMs) => timing.protocol(waitMs),
    failure: (cause, bytes) => cutShort(bytes, cause),
    close,
    send: inputOf(url, response, env),
  };
}

/**
 * What sends input to the command whose output a response is, if it takes any.
 * @param {string} url
 * @param {Response} response
 * @param {Env} env
 * @returns {import("./types.mjs").SendInput | undefined}
 */
function inputOf(url, response, env) {
  const id = response.headers.get("h3cast-session");
  if (id === null) return undefined;
  return async (bytes, { fetch }) => {
    const to = new URL(url, env.href);
    to.search = bytes === null ? "?end" : "";
    try {
      const answer = await fetch(to.href, { method: "POST", body: bytes, headers: { "h3cast-session": id }, cache: "no-store" });
      if (!answer.ok) throw await refusal(to.pathname, answer, env);
    } catch (cause) {
      throw cause instanceof ClientError ? cause : unreachable(to.pathname, cause);
    }
  };
}
