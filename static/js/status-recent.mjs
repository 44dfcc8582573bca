// @ts-check
/** How much counters grew lately, as far as this page has looked. */

const MINUTE_MS = 60_000;

export class Recent {
  /** @type {{ at: number, counts: Map<string, number> }[]} the oldest first */
  #samples = [];

  /**
   * @param {number} at the server's clock, in milliseconds
   * @param {Map<string, number>} counts
   */
  add(at, counts) {
    const last = this.#samples.at(-1);
    // Another process counts from the beginning.
    const restarted = last !== undefined && [...last.counts].some(([name, count]) => (counts.get(name) ?? 0) < count);
    if (restarted || (last !== undefined && at < last.at)) this.#samples = [];
    this.#samples.push({ at, counts });
    // One that is older stays: it is where the minute begins.
    while ((this.#samples[1]?.at ?? Infinity) <= at - MINUTE_MS) this.#samples.shift();
  }

  /** @param {string} name */
  of(name) {
    const count = (/** @type {{ counts: Map<string, number> } | undefined} */ sample) => sample?.counts.get(name) ?? 0;
    return count(this.#samples.at(-1)) - count(this.#samples[0]);
  }
}
