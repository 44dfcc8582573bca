// @ts-check
/**
 * Gathers work until the next animation frame, so that a burst of chunks is drawn once.
 *
 * A page that nobody sees gets no frames, so a timer stands beside the frame and whichever comes
 * first does the work.
 */
export const HIDDEN_FLUSH_MS = 250;

/**
 * @typedef {object} Clock
 * @property {(callback: () => void) => number} requestFrame
 * @property {(handle: number) => void} cancelFrame
 * @property {(callback: () => void, ms: number) => number} setTimer
 * @property {(handle: number) => void} clearTimer
 */

/** @returns {Clock} the browser's own */
export function browserClock() {
  return {
    requestFrame: (callback) => requestAnimationFrame(() => callback()),
    cancelFrame: (handle) => cancelAnimationFrame(handle),
    setTimer: (callback, delay) => window.setTimeout(callback, delay),
    clearTimer: (handle) => window.clearTimeout(handle),
  };
}

/**
 * @param {() => void} work
 * @param {Clock} clock
 * @returns {{ schedule: () => void, flush: () => void }} `flush` does it now, if it is due
 */
export function batch(work, clock) {
  /** @type {{ frame: number, timer: number } | undefined} */
  let due;
  const flush = () => {
    if (due === undefined) return;
    clock.cancelFrame(due.frame);
    clock.clearTimer(due.timer);
    due = undefined;
    work();
  };
  return {
    schedule() {
      due ??= { frame: clock.requestFrame(flush), timer: clock.setTimer(flush, HIDDEN_FLUSH_MS) };
    },
    flush,
  };
}
