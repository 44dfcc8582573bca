// @ts-check
/** @typedef {import("./types.mjs").Env} Env */

/** What `nextHopProtocol` gives when the browser keeps it to itself. */
export const UNKNOWN = "unknown";

/**
 * Watches for the browser's own report about one request. Call it before the request leaves; the
 * report comes when the response has ended, and only then.
 *
 * An observer is used because the list behind `getEntriesByType` stops growing at 250 entries.
 *
 * @param {string} url
 * @param {Env} env
 * @returns {{ protocol: (waitMs?: number) => Promise<string>, stop: () => void }}
 */
export function watchProtocol(url, env) {
  const name = new URL(url, env.href).href;
  // Entry times may be rounded down by a fraction of a millisecond.
  const since = env.performance.now() - 1;
  /** @type {(protocol: string) => void} */
  let settle = () => {};
  /** @type {Promise<string>} */
  const reported = new Promise((resolve) => {
    settle = resolve;
  });

  /** @param {PerformanceEntryList} entries */
  const look = (entries) => {
    for (const entry of entries) {
      if (entry.name !== name || entry.startTime < since) continue;
      const { nextHopProtocol } = /** @type {PerformanceResourceTiming} */ (entry);
      settle(nextHopProtocol || UNKNOWN);
      return;
    }
  };

  /** @type {PerformanceObserver | undefined} */
  let observer;
  if (env.PerformanceObserver !== undefined) {
    observer = new env.PerformanceObserver((list) => look(list.getEntries()));
    observer.observe({ type: "resource" });
  }

  return {
    async protocol(waitMs = 1000) {
      look(env.performance.getEntriesByType("resource"));
      /** @type {ReturnType<typeof setTimeout> | undefined} */
      let timer;
      /** @type {Promise<string>} */
      const tooLate = new Promise((resolve) => {
        if (waitMs === 0) resolve(UNKNOWN);
        else timer = setTimeout(() => resolve(UNKNOWN), waitMs);
      });
      try {
        return await Promise.race([reported, tooLate]);
      } finally {
        clearTimeout(timer);
      }
    },
    stop() {
      observer?.disconnect();
    },
  };
}

/**
 * Whether a reported protocol is HTTP/3 ("h3", or a draft of it such as "h3-29").
 * @param {string} protocol
 */
export function isHttp3(protocol) {
  return protocol === "h3" || protocol.startsWith("h3-");
}
