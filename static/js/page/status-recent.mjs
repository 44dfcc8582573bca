// @ts-check
/** How much counters have grown recently, since the page was opened. */

export const MINUTE_MS = 60_000;

export class Recent {
  #window;
  /** @type {{ at: number, counts: Map<string, number> }[]} the oldest first */
  #samples = [];

  /** @param {number} [window] how far back it looks, in milliseconds */
  constructor(window = MINUTE_MS) {
    this.#window = window;
  }

  /**
   * @param {number} at the server's clock, in milliseconds
   * @param {Map<string, number>} counts
   */
  add(at, counts) {
    const last = this.#samples.at(-1);
    // Another process counts from the beginning.
    const restarted = last !== undefined && [...last.counts].some(([name, count]) => (counts.get(name) ?? 0) < count);
    // Nor is it known when that came which came while nothing was asked for longer than it looks back.
    const lapsed = last !== undefined && (at < last.at || at - last.at > this.#window);
    if (restarted || lapsed) this.#samples = [];
    this.#samples.push({ at, counts });
    // One older sample is kept: it is where the window begins.
    while ((this.#samples[1]?.at ?? Infinity) <= at - this.#window) this.#samples.shift();
  }

  /**
   * The average rate in that window, per second.
   * @param {string} name
   * @returns {number | null} null: nothing is known yet
   */
  rate(name) {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    if (first === undefined || last === undefined || last.at <= first.at) return null;
    return this.of(name) / ((last.at - first.at) / 1000);
  }

  /** @param {string} name */
  of(name) {
    const count = (/** @type {{ counts: Map<string, number> } | undefined} */ sample) => sample?.counts.get(name) ?? 0;
    return count(this.#samples.at(-1)) - count(this.#samples[0]);
  }
}
