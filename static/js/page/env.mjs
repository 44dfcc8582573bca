// @ts-check
import { Token } from "./token.mjs";

/** @typedef {import("../client/types.mjs").Env} Env */

/**
 * The real browser. Everything below the entry modules takes its interfaces from here.
 * @returns {Env}
 */
export function browserEnv() {
  const token = new Token({
    fetch: globalThis.fetch.bind(globalThis),
    storage: storage(),
    href: globalThis.location.href,
  });
  return {
    fetch: token.fetch,
    token,
    performance: globalThis.performance,
    PerformanceObserver: globalThis.PerformanceObserver,
    WebTransport: typeof WebTransport === "undefined" ? undefined : WebTransport,
    isSecureContext: globalThis.isSecureContext,
    href: globalThis.location.href,
    setTimer: (callback, delay) => window.setTimeout(callback, delay),
    clearTimer: (handle) => window.clearTimeout(handle),
    random: Math.random,
    onOnline(callback) {
      addEventListener("online", callback);
      return () => removeEventListener("online", callback);
    },
    breathe,
  };
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
  return new Promise((resolve) => {
    if (document.hidden) {
      // A hidden page gets no frames, and its timers are held back to one a second or a minute.
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => {
        port1.close();
        resolve();
      };
      port2.postMessage(null);
      return;
    }
    const timer = window.setTimeout(resolve, BREATH_MS);
    requestAnimationFrame(() => {
      window.clearTimeout(timer);
      // Behind the frame, not in it.
      window.setTimeout(resolve);
    });
  });
}
