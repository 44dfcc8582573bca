// @ts-check
/** The pause before the second renewal; each one after it is twice as long, until the longest. */
export const FIRST_PAUSE_MS = 2000;
export const LONGEST_PAUSE_MS = 30_000;

/**
 * Renewals of a token one after the other, with pauses: a server that refuses every new one, by its clock or by
 * whom the token is for, is not asked at the pace of the network.
 */
export class Renewals {
  #env;
  /** How many there were since a token was of use. */
  #count = 0;

  /** @param {Pick<import("../client/types.mjs").Env, "token" | "setTimer" | "clearTimer">} env */
  constructor(env) {
    this.#env = env;
  }

  /**
   * Gets another token, the first time at once.
   * @param {import("../client/errors.mjs").ClientError} error what asks for it
   * @param {AbortSignal} signal
   * @returns {Promise<boolean>} whether there is one now
   */
  async renew(error, signal) {
    const { token } = this.#env;
    if (token === undefined) return false;
    // A visitor who types one is slow enough.
    if (this.#count > 0 && token.renewal !== null && !error.otherToken) {
      await this.#pause(Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(this.#count - 1, 20)), signal);
    }
    this.#count += 1;
    return !signal.aborted && (await token.after(error, signal));
  }

  /** A token was of use: the next renewal comes at once. */
  reset() {
    this.#count = 0;
  }

  /**
   * @param {number} ms
   * @param {AbortSignal} signal ends it
   * @returns {Promise<void>}
   */
  #pause(ms, signal) {
    return new Promise((resolve) => {
      const done = () => {
        this.#env.clearTimer(timer);
        signal.removeEventListener("abort", done);
        resolve();
      };
      const timer = this.#env.setTimer(done, ms);
      signal.addEventListener("abort", done);
      if (signal.aborted) done();
    });
  }
}
