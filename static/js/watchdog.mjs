// @ts-check
/** A silent feed still brings a heartbeat every 15 s; two may be lost before a stream counts as dead. */
export const SILENCE_MS = 40_000;
/** How long a stream may bring nothing while the server has chunks for it. */
export const STALL_MS = 5000;

/** @typedef {Pick<import("./types.mjs").Env, "performance" | "setTimer" | "clearTimer">} Timing */

/**
 * Notices that a stream is dead though nobody says so, which is what blocked packets look like.
 */
export class Watchdog {
  #env;
  #dead;
  #heardAt;
  #timer = 0;
  #stopped = false;
  /** The server was first seen ahead of this stream then. @type {number | undefined} */
  #aheadSince;

  /**
   * @param {Timing} env
   * @param {(why: string) => void} dead called once
   */
  constructor(env, dead) {
    this.#env = env;
    this.#dead = dead;
    this.#heardAt = env.performance.now();
    this.#arm(SILENCE_MS);
  }

  /** Bytes came. */
  heard() {
    this.#heardAt = this.#env.performance.now();
    this.#aheadSince = undefined;
  }

  /**
   * What the server says of the feed on another connection.
   * @param {boolean} ahead whether it has chunks that this stream has not brought
   */
  told(ahead) {
    if (this.#stopped) return;
    const now = this.#env.performance.now();
    if (!ahead) this.#aheadSince = undefined;
    else if (this.#aheadSince === undefined) this.#aheadSince = now;
    else if (now - this.#aheadSince >= STALL_MS) this.#end("the server has more, and this stream does not bring it");
  }

  stop() {
    this.#stopped = true;
    this.#env.clearTimer(this.#timer);
  }

  /** @param {number} delay */
  #arm(delay) {
    this.#timer = this.#env.setTimer(() => {
      const left = this.#heardAt + SILENCE_MS - this.#env.performance.now();
      if (left > 0) this.#arm(left);
      else this.#end(`nothing came for ${SILENCE_MS / 1000} seconds, not even a heartbeat`);
    }, delay);
  }

  /** @param {string} why */
  #end(why) {
    if (this.#stopped) return;
    this.stop();
    this.#dead(why);
  }
}
