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
  };
}
