// @ts-check
/** @typedef {import("./types.mjs").Env} Env */

/**
 * The interfaces of whatever runs this: a page, a worker, or a runtime such as Node, which may lack some.
 *
 * @param {string} href what the server's addresses are relative to
 * @param {import("./token.mjs").Token} token
 * @returns {Env}
 */
export function environment(href, token) {
  return {
    fetch: token.fetch,
    token,
    performance: globalThis.performance,
    PerformanceObserver: globalThis.PerformanceObserver,
    WebTransport: typeof WebTransport === "undefined" ? undefined : WebTransport,
    // Only browsers know pages that are none.
    isSecureContext: globalThis.isSecureContext ?? true,
    href,
    origin: typeof location === "undefined" ? "" : location.origin,
    // A number in browsers, an object in Node: only `clearTimer` looks at it.
    setTimer: (callback, delay) => /** @type {number} */ (setTimeout(callback, delay)),
    clearTimer: (handle) => clearTimeout(handle),
    random: Math.random,
    onOnline(callback) {
      globalThis.addEventListener?.("online", callback);
      return () => globalThis.removeEventListener?.("online", callback);
    },
    breathe: turn,
  };
}

/**
 * Gives everything else a turn, without the delay that timers have, above all in a hidden page.
 * @returns {Promise<void>}
 */
export function turn() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
