// @ts-check
/** @typedef {import("./types.mjs").Env} Env */

/**
 * The real browser. Everything below the entry modules takes its interfaces from here.
 * @returns {Env}
 */
export function browserEnv() {
  return {
    fetch: globalThis.fetch.bind(globalThis),
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
