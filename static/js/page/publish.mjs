// @ts-check
import { Backoff } from "../client/backoff.mjs";
import { ClientError, asClientError, broken, unreachable } from "../client/errors.mjs";
import { plural } from "../client/format.mjs";
import { deadline, publishedIn, refusal } from "../client/info.mjs";
import { Renewals } from "./renewals.mjs";

/** @typedef {import("../client/types.mjs").Env} Env */
/** @typedef {import("../client/errors.mjs").Published} Published */

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

/** The end of a piece is looked for in that many of its last bytes: longer lines are cut by the server too. */
const LONGEST_LINE = 65_536;
/** Smaller pieces than this many bytes are not tried. */
const SMALLEST = 256;

/**
 * One body on its way into a feed, over as many requests as it takes. They have one key, by which the server knows what
 * it has already, and their place in the body: nothing is published twice, whatever is tried again.
 */
export class Publication {
  #env;
  #url;
  #body;
  #key = newKey();
  /** How much the feed has; the server has said so. */
  #taken = 0;
  /** The run of the feed's numbers in which it has it. @type {string | undefined} */
  #epoch;
  /** How many bytes one request may have. */
  #longest = Infinity;
  /** More may have been published than is known. */
  #doubt = false;
  #renewals;

  /**
   * @param {Env} env whose token is for publishing
   * @param {string} url the feed's
   * @param {Blob} body
   */
  constructor(env, url, body) {
    this.#env = env;
    this.#url = url;
    this.#body = body;
    this.#renewals = new Renewals(env);
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
    const forgive = () => {
      backoff.reset();
      this.#renewals.reset();
    };
    // What a refusal means for a body that is still being sent differs from browser to browser: asked first, it is clear.
    let known = this.#body.size <= 65_536 && this.#taken === 0;
    for (;;) {
      const before = this.#taken;
      try {
        if (!known) {
          await this.#ask(signal);
          onTaken(this.#taken);
          known = true;
        } else {
          await this.#piece(signal);
          onTaken(this.#taken);
        }
        if (this.#taken >= this.#body.size && this.#body.size > 0) return;
        if (this.#taken > before) forgive();
      } catch (cause) {
        known = false;
        const error = asClientError(cause);
        if (signal.aborted) return this.#over(error);
        if (this.#taken > before) forgive();
        const renewed = (error.needsToken || error.otherToken) && (await this.#renewals.renew(error, signal));
        if (renewed) continue;
        if (error.permanent || backoff.attempts >= ATTEMPTS) return this.#over(error);
        await pause(env, backoff.next(error.retryAfterMs), signal);
      }
    }
  }

  /**
   * No more is tried, unless the feed has all of it after all.
   * @param {ClientError} error
   */
  async #over(error) {
    const taken = await this.#left();
    if (taken !== this.#body.size) throw new PublishError(error, taken);
  }

  /** @returns {Promise<number | undefined>} how much the feed has, after all */
  async #left() {
    try {
      await this.#ask(new AbortController().signal);
    } catch {
      if (this.#doubt) return undefined;
    }
    return this.#taken;
  }

  /**
   * Asks how much the feed has.
   * @param {AbortSignal} signal
   */
  async #ask(signal) {
    this.#acknowledge(await this.#send(new Blob(), 0, signal));
    this.#doubt = false;
  }

  /**
   * Sends what the feed does not have yet, or as much of it as the server takes at once.
   * @param {AbortSignal} signal
   */
  async #piece(signal) {
    const before = this.#taken;
    const piece = await this.#cut(before);
    const doubt = this.#doubt;
    this.#doubt = true;
    try {
      this.#acknowledge(await this.#send(piece, before, signal));
      this.#doubt = false;
    } catch (cause) {
      if (!(cause instanceof ClientError)) throw cause;
      const { published } = cause;
      // A refusal states what was published, if anything was.
      if (published) this.#acknowledge(published);
      if (published !== undefined) this.#doubt = published === null && doubt;
      const tooLong = cause.status === 413;
      if (!tooLong || piece.size <= SMALLEST) {
        if (!cause.answered && !signal.aborted) await bytesOf(piece.slice(0, 1));
        // A server that takes less at once closes the connection, and not every browser shows its answer then.
        if (!cause.answered && !signal.aborted && piece.size > LONGEST_LINE) this.#longest = Math.ceil(piece.size / 2);
        throw cause;
      }
      await this.#ask(signal);
      const taken = this.#taken - before;
      this.#longest = taken > 0 ? taken : Math.ceil(piece.size / 2);
      return;
    }
    if (this.#taken <= before) throw badAnswer(`after ${plural(before, "byte")}, none were published`);
  }

  /**
   * The next piece: lines are not torn.
   * @param {number} from
   */
  async #cut(from) {
    const piece = this.#body.slice(from, from + this.#longest);
    if (from + piece.size >= this.#body.size || new URL(this.#url).searchParams.get("chunk") !== "lines") return piece;
    const tail = piece.slice(-LONGEST_LINE);
    const newline = (await bytesOf(tail)).lastIndexOf(10);
    return newline < 0 ? piece : piece.slice(0, piece.size - tail.size + newline + 1);
  }

  /**
   * The server has said what it has.
   * @param {Published} published
   */
  #acknowledge({ bytes, epoch }) {
    if (bytes > this.#body.size) throw badAnswer(`it has ${plural(bytes, "byte")} of ${this.#body.size}`);
    const old = this.#epoch;
    if (bytes >= this.#taken) {
      this.#taken = bytes;
    } else if (old !== undefined && old === epoch) {
      // The same feed, where less is known of the key: what it had stays published, and the key recognises what follows.
      return;
    } else {
      // The server takes this key for one whose publication has only begun. Under a new one, what is before the
      // place of a body counts as published.
      this.#key = newKey();
    }
    this.#epoch = epoch ?? old;
  }

  /**
   * @param {Blob} piece
   * @param {number} offset where it begins
   * @param {AbortSignal} signal
   * @returns {Promise<Published>} what the feed has
   */
  async #send(piece, offset, signal) {
    const env = this.#env;
    const what = new URL(this.#url).pathname;
    /** @type {Record<string, string>} */
    const headers = { "idempotency-key": this.#key };
    if (offset > 0) headers["upload-offset"] = String(offset);
    // A body takes as long as it takes.
    const limit = piece.size === 0 ? deadline(env, signal) : { signal, clear() {} };
    try {
      const response = await env.fetch(this.#url, { method: "POST", body: piece, headers, cache: "no-store", signal: limit.signal });
      if (!response.ok) throw await refusal(what, response, env);
      return publishedIn(await response.json());
    } catch (cause) {
      throw cause instanceof ClientError ? again(cause) : unreachable(what, cause);
    } finally {
      limit.clear();
    }
  }
}

/**
 * The bytes of a piece. Browsers read no file that has changed since it was chosen; a request with it just fails.
 * @param {Blob} piece
 * @throws {ClientError}
 */
async function bytesOf(piece) {
  try {
    return new Uint8Array(await piece.arrayBuffer());
  } catch (cause) {
    const error = new ClientError("The file cannot be read: it has changed since it was chosen, or is gone. Publish a copy of it.", [], cause);
    error.permanent = true;
    throw error;
  }
}

/** @param {string} what makes no sense in an answer */
function badAnswer(what) {
  return broken(`The server's answer makes no sense: ${what}.`, undefined, true);
}

/**
 * Another request with the key that still runs is one of ours whose connection was lost: it is over in a moment.
 * @param {ClientError} error
 */
function again(error) {
  if (error.status === 409) error.permanent = false;
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
