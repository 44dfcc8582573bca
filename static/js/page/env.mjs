// @ts-check
import { environment, turn } from "../client/environment.mjs";
import { Token } from "../client/token.mjs";

/** @typedef {import("../client/types.mjs").Env} Env */

/**
 * The real browser. Everything below the entry modules takes its interfaces from here.
 * @returns {Env}
 */
export function browserEnv() {
  const { href } = globalThis.location;
  const token = new Token({ fetch: globalThis.fetch.bind(globalThis), storage: storage(), href });
  return { ...environment(href, token), breathe };
}

/** The tab's own storage, which a browser may refuse. */
function storage() {
  try {
    return globalThis.sessionStorage;
  } catch {
    return undefined;
  }
}

/** How long a turn may take to come, where frames are rare. */
const BREATH_MS = 100;

/** @returns {Promise<void>} */
function breathe() {
  // A hidden page gets no frames, and its timers are held back to one a second or a minute.
  if (document.hidden) return turn();
  return new Promise((resolve) => {
    const timer = window.setTimeout(resolve, BREATH_MS);
    requestAnimationFrame(() => {
      window.clearTimeout(timer);
      // Behind the frame, not in it.
      window.setTimeout(resolve);
    });
  });
}
