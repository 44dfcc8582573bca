// @ts-check
import { ms } from "./format.mjs";

/** How long a way that failed is left alone while there is another. */
export const REST_MS = 60_000;

/** The ways that failed lately, and why: they are tried last. */
export class Rests {
  #now;
  /** @type {Map<string, { at: number, why: string }>} */
  #failed = new Map();

  /** @param {() => number} now milliseconds */
  constructor(now) {
    this.#now = now;
  }

  /**
   * @param {string} way
   * @param {string} why a sentence
   */
  fail(way, why) {
    this.#failed.set(way, { at: this.#now(), why });
  }

  /** Nothing is held against any way: the server itself was gone. */
  forgive() {
    this.#failed.clear();
  }

  /**
   * @param {string} way
   * @returns {string | undefined} why it is left alone, or undefined
   */
  why(way) {
    const failed = this.#failed.get(way);
    if (failed === undefined) return undefined;
    const ago = this.#now() - failed.at;
    if (ago < REST_MS) return `It failed ${ms(ago)} ago: ${failed.why} It is skipped for one minute.`;
    this.#failed.delete(way);
    return undefined;
  }
}
