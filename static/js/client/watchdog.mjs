// @ts-check
/** A silent feed still brings a heartbeat every 15 s; two may be lost before a stream counts as dead. */
export const SILENCE_MS = 40_000;
/** How long a stream may bring nothing while the server has chunks for it. */
export const STALL_MS = 5000;
/** How often the page looks whether it runs itself. */
const TICK_MS = 5000;
/**
 * A page that notices nothing for so long stood still. In a hidden one timers may come a minute late, but heartbeats
 * come in between.
 */
export const STILL_MS = 20_000;
/** How long a stream has to bring something after its page stood still: a heartbeat. */
export const WAKE_MS = 16_000;

/** @typedef {Pick<import("./types.mjs").Env, "performance" | "setTimer" | "clearTimer">} Timing */

/**
 * Notices that a stream is dead without an end, as when packets are blocked; and that the page itself stood still, which
 * is not the stream's fault: what it brought meanwhile has not been read yet.
 */
export class Watchdog {
  #env;
  #dead;
  /** Bytes came then. */
  #heardAt;
  /** The page ran then. */
  #ranAt;
  /** The page last stood still until then, and how long. */
  #still = { until: -Infinity, ms: 0 };
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
    this.#heardAt = this.#ranAt = env.performance.now();
    this.#arm();
  }

  /** Bytes came. */
  heard() {
    this.#heardAt = this.#runs();
    this.#aheadSince = undefined;
  }

  /**
   * What the server says of the feed on another connection.
   * @param {boolean} ahead whether it has chunks that this stream has not brought
   */
  told(ahead) {
    if (this.#stopped) return;
    const now = this.#runs();
    if (!ahead) this.#aheadSince = undefined;
    else if (this.#aheadSince === undefined) this.#aheadSince = now;
    else if (now - this.#aheadSince >= STALL_MS) this.#end("the server has more chunks, but this stream does not deliver them");
  }

  /** @returns {number} for how many milliseconds the page has just stood still; 0: it has not */
  stop() {
    const now = this.#stopped ? this.#ranAt : this.#runs();
    this.#stopped = true;
    this.#env.clearTimer(this.#timer);
    return now - this.#still.until <= WAKE_MS ? this.#still.ms : 0;
  }

  /** The page runs now. */
  #runs() {
    const now = this.#env.performance.now();
    if (now - this.#ranAt >= STILL_MS) {
      this.#still = { until: now, ms: now - this.#ranAt };
      this.#heardAt = now - SILENCE_MS + WAKE_MS;
      this.#aheadSince = undefined;
    }
    this.#ranAt = now;
    return now;
  }

  #arm() {
    const left = this.#heardAt + SILENCE_MS - this.#env.performance.now();
    this.#timer = this.#env.setTimer(() => {
      const now = this.#runs();
      if (now - this.#heardAt < SILENCE_MS) this.#arm();
      else this.#end(`nothing was received for ${SILENCE_MS / 1000} seconds, not even a heartbeat`);
    }, Math.min(TICK_MS, left));
  }

  /** @param {string} why */
  #end(why) {
    if (this.#stopped) return;
    this.stop();
    this.#dead(why);
  }
}
