// @ts-check

/**
 * A promise that can be given up.
 * @template T
 * @param {Promise<T>} promise
 * @param {AbortSignal} signal rejects with its reason
 * @param {number} [timeoutMs]
 * @returns {Promise<T>}
 */
export function orAbort(promise, signal, timeoutMs) {
  return new Promise((resolve, reject) => {
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const onAbort = () => settle(() => reject(signal.reason));
    /** @param {() => void} act */
    const settle = (act) => {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      act();
    };
    if (timeoutMs !== undefined) {
      timer = setTimeout(() => {
        settle(() => reject(new Error(`no answer within ${timeoutMs / 1000} seconds`)));
      }, timeoutMs);
    }
    signal.addEventListener("abort", onAbort);
    if (signal.aborted) onAbort();
    promise.then((value) => settle(() => resolve(value)), (cause) => settle(() => reject(cause)));
  });
}
