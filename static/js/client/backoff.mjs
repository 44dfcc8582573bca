// @ts-check
/** The first wait lasts up to this, each one after it up to twice as long, until the longest. */
export const FIRST_MS = 250;
export const LONGEST_MS = 15_000;
/** A server that asks for more than this is asked again anyway. */
const LONGEST_ASKED_MS = 300_000;

/**
 * How long to wait before the next attempt: exponential, with full jitter, so that the viewers of a server that was
 * restarted, or that has cut many of them, do not all reconnect at once. What a server asks for comes first, and as
 * much again at random after it.
 */
export class Backoff {
  #random;
  /** How many attempts have failed since the last that brought something. */
  attempts = 0;

  /** @param {() => number} random from 0 to 1 */
  constructor(random) {
    this.#random = random;
  }

  /**
   * @param {number} [atLeast] what the server asked for, in milliseconds
   * @returns {number} milliseconds
   */
  next(atLeast = 0) {
    const top = Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(this.attempts, 20));
    this.attempts += 1;
    return atLeast + this.#random() * Math.min(LONGEST_MS, Math.max(top, atLeast));
  }

  reset() {
    this.attempts = 0;
  }
}

/**
 * `Retry-After` (RFC 9110 §10.2.3) in milliseconds; 0 if there is none that can be read.
 * @param {string | null} header
 * @param {number} now milliseconds since 1970
 */
export function retryAfter(header, now) {
  if (header === null) return 0;
  const wait = /^\s*\d+\s*$/.test(header) ? Number(header) * 1000 : Date.parse(header) - now;
  return Number.isFinite(wait) ? Math.min(Math.max(wait, 0), LONGEST_ASKED_MS) : 0;
}
