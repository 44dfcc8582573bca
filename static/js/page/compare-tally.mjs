// @ts-check
/** What one transport brought, in numbers of a bounded size. */

/** Upper ends of the histogram's columns, in milliseconds; the last column has what is above all of them. */
export const EDGES = [1, 2, 5, 10, 20, 50, 100, 200, 500];
/** How many of the latest arrivals are kept for the plot. */
const MAX_POINTS = 20_000;

/** @typedef {{ at: number, lag: number | null }} Point `at` on the page's clock; both in milliseconds */

/**
 * One chunk that has arrived.
 * @typedef {object} Arrival
 * @property {number} at `performance.now()`
 * @property {number} bytes
 * @property {number | null} number its number in the feed, if the transport tells
 * @property {number | null} lag milliseconds since it was due or published, if that is known
 */

export class Tally {
  chunks = 0;
  bytes = 0;
  /** When the request left, and when the first chunk was there. */
  startedAt = 0;
  /** @type {number | null} */
  firstAt = null;
  /** How many intervals each column has. */
  histogram = new Array(EDGES.length + 1).fill(0);
  longest = 0;
  /** @type {{ newest: number, longest: number } | null} */
  lag = null;
  /** @type {Point[]} */
  points = [];
  /** The feed's numbers are not consecutive, so that they do not show what is missing. */
  sparse = false;
  #last = 0;
  #numbered = 0;
  #base;
  #next = 0;
  /** Missing in runs of numbers before this one. */
  #before = 0;

  /** @param {number | null} [base] the number of the first chunk, if that is known beforehand */
  constructor(base = null) {
    this.#base = base;
    this.#next = base ?? 0;
  }

  /** @param {Arrival} arrival */
  add({ at, bytes, number, lag }) {
    if (this.firstAt === null) {
      this.firstAt = at;
    } else {
      const interval = at - this.#last;
      const column = EDGES.findIndex((edge) => interval < edge);
      this.histogram[column < 0 ? EDGES.length : column] += 1;
      this.longest = Math.max(this.longest, interval);
    }
    this.#last = at;
    this.chunks += 1;
    this.bytes += bytes;
    if (lag !== null) this.lag = { newest: lag, longest: Math.max(lag, this.lag?.longest ?? lag) };
    if (number !== null) {
      this.#base ??= number;
      this.#numbered += 1;
      this.#next = Math.max(this.#next, number + 1);
    }
    this.points.push({ at, lag });
    if (this.points.length > 2 * MAX_POINTS) this.points.splice(0, MAX_POINTS);
  }

  /** The feed was started again: its numbers too. */
  restarted() {
    this.#before = this.missing ?? 0;
    this.#base = null;
    this.#numbered = 0;
    this.#next = 0;
  }

  /**
   * All of the chunks up to this number have been sent.
   * @param {number} next
   */
  sentUpTo(next) {
    if (this.#base !== null) this.#next = Math.max(this.#next, next);
  }

  /** How many chunks before the newest have not come; null if that cannot be known. */
  get missing() {
    if (this.sparse) return null;
    if (this.#base === null) return this.chunks > 0 ? null : 0;
    return this.#before + Math.max(0, this.#next - this.#base - this.#numbered);
  }

  /**
   * Below which of the histogram's edges this part of all intervals lies; null without any, Infinity above all.
   * @param {number} part from 0 to 1
   */
  below(part) {
    const all = this.histogram.reduce((sum, count) => sum + count, 0);
    if (all === 0) return null;
    let sum = 0;
    const column = this.histogram.findIndex((count) => (sum += count) >= all * part);
    return EDGES[column] ?? Infinity;
  }
}

/**
 * The number and the time in a chunk of the demo feed, whatever brought it.
 * @param {string} text its beginning
 * @returns {{ number: number | null, due: number | null }} `due` in milliseconds since 1970
 */
export function stamp(text) {
  const found = /^data chunk #(\d+)(?: at (\d+\.\d+) )?/.exec(text);
  return {
    number: found === null ? null : Number(found[1]),
    due: found?.[2] === undefined ? null : Number(found[2]) * 1000,
  };
}
