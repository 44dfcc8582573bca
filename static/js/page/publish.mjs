// @ts-check
import { Backoff } from "../client/backoff.mjs";
import { ClientError, asClientError, unreachable } from "../client/errors.mjs";
import { deadline, object, refusal } from "../client/info.mjs";

/** @typedef {import("../client/types.mjs").Env} Env */

/** How often in a row an attempt may bring nothing further. */
const ATTEMPTS = 6;

/** A publication that broke off. */
export class PublishError extends Error {
  /**
   * @param {ClientError} error why
   * @param {number | undefined} taken how many bytes the feed has; undefined: that is not known
   */
  constructor(error, taken) {
    super(error.message, { cause: error });
    this.error = error;
    this.taken = taken;
  }
}

/**
 * One body on its way into a feed, over as many requests as it takes. All have the same key, by which the server knows
 * what it has already: nothing is published twice, whatever is tried again.
 */
export class Publication {
  #env;
  #url;
  #body;
  #key = newKey();
  /** The server has said so. */
  #taken = 0;

  /**
   * @param {Env} env whose token is for publishing
   * @param {string} url the feed's
   * @param {Blob} body
   */
  constructor(env, url, body) {
    this.#env = env;
    this.#url = url;
    this.#body = body;
  }

  get size() {
    return this.#body.size;
  }

  /**
   * Publishes what the feed does not have yet. After a failure it may be called again.
   * @param {AbortSignal} signal
   * @param {(taken: number) => void} onTaken how many bytes the feed has, when that is learned
   * @returns {Promise<void>} when the feed has all of it
   * @throws {PublishError}
   */
  async run(signal, onTaken) {
    const env = this.#env;
    const backoff = new Backoff(env.random);
    // What a refusal means for a body that is still being sent differs from browser to browser: asked first, it is clear.
    let known = this.#body.size <= 65_536 && this.#taken === 0;
    for (;;) {
      try {
        if (!known) {
          const before = this.#taken;
          this.#taken = await this.#send(new Blob(), 0, signal);
          onTaken(this.#taken);
          if (this.#taken > before) backoff.reset();
        }
        if (this.#taken >= this.#body.size && this.#body.size > 0) return;
        known = false;
        this.#taken = await this.#send(this.#body.slice(this.#taken), this.#taken, signal);
        onTaken(this.#taken);
        return;
      } catch (cause) {
        known = false;
        const error = asClientError(cause);
        if (signal.aborted) throw new PublishError(error, await this.#left());
        const renewed = (error.needsToken || error.otherToken) && (await env.token?.after(error, signal));
        if (renewed) continue;
        if (error.permanent || backoff.attempts >= ATTEMPTS) throw new PublishError(error, await this.#left());
        await pause(env, backoff.next(error.retryAfterMs), signal);
      }
    }
  }

  /** @returns {Promise<number | undefined>} how much the feed has, after all */
  async #left() {
    try {
      return (this.#taken = await this.#send(new Blob(), 0, new AbortController().signal));
    } catch (cause) {
      // What is refused has not got anywhere.
      return cause instanceof ClientError && cause.answered && this.#taken === 0 ? 0 : undefined;
    }
  }

  /**
   * @param {Blob} rest
   * @param {number} offset where it begins
   * @param {AbortSignal} signal
   * @returns {Promise<number>} how many bytes the feed has
   */
  async #send(rest, offset, signal) {
    const env = this.#env;
    const what = new URL(this.#url).pathname;
    /** @type {Record<string, string>} */
    const headers = { "idempotency-key": this.#key };
    if (offset > 0) headers["upload-offset"] = String(offset);
    // A body takes as long as it takes.
    const limit = rest.size === 0 ? deadline(env, signal) : { signal, clear() {} };
    try {
      const response = await env.fetch(this.#url, { method: "POST", body: rest, headers, cache: "no-store", signal: limit.signal });
      if (!response.ok) throw await refusal(what, response, env);
      const { bytes } = object(await response.json(), "the answer");
      if (typeof bytes !== "number") throw new TypeError("the answer does not say how many bytes the feed has");
      return bytes;
    } catch (cause) {
      throw cause instanceof ClientError ? again(cause) : unreachable(what, cause);
    } finally {
      limit.clear();
    }
  }
}

/**
 * Another request with the key that still runs is one of ours whose connection was lost: it is over in a moment.
 * @param {ClientError} error
 */
function again(error) {
  if (/ status 409\b/.test(error.message)) error.permanent = false;
  return error;
}

/** `crypto.randomUUID` is for secure contexts alone. */
function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * @param {Env} env
 * @param {number} ms
 * @param {AbortSignal} signal ends it
 * @returns {Promise<void>}
 */
function pause(env, ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      env.clearTimer(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = env.setTimer(done, ms);
    signal.addEventListener("abort", done);
    if (signal.aborted) done();
  });
}
