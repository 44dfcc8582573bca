// @ts-check
/** Asks for the numbers again and again while the page is visible. */
import { Backoff, retryAfter } from "../client/backoff.mjs";
import { BadStatus, parseStatus } from "./status-data.mjs";

/** @typedef {Pick<import("../client/types.mjs").Env, "fetch" | "href" | "setTimer" | "clearTimer" | "random">} PollEnv */
/** @typedef {import("./status-data.mjs").Status} Status */
/** @typedef {{ trouble: Trouble, wait: number, steady?: boolean }} Failure how long to wait at least, or exactly if `steady` */
/**
 * Why there are no numbers.
 * @typedef {object} Trouble
 * @property {"unreachable" | "busy" | "refused" | "token" | "strange"} kind
 * @property {string} text in words
 * @property {boolean} otherToken the token is valid, and does not allow it
 */

/** From one answer to the next question. */
export const PAUSE_MS = 2000;
/** How long an answer may take. */
const ANSWER_MS = 10_000;
/** A refusal lasts until the server's settings change. */
const REFUSED_MS = 15_000;

export class StatusPoll {
  #env;
  #url;
  #on;
  #backoff;
  #wanted = false;
  #timer = 0;
  /** @type {AbortController | undefined} of the question that is open */
  #open;

  /**
   * @param {PollEnv} env
   * @param {() => string} url where to ask now
   * @param {{ status: (status: Status) => void, trouble: (trouble: Trouble) => void }} on
   */
  constructor(env, url, on) {
    this.#env = env;
    this.#url = url;
    this.#on = on;
    this.#backoff = new Backoff(env.random);
  }

  /** @param {boolean} wanted whether the page is visible and not paused */
  want(wanted) {
    if (wanted === this.#wanted) return;
    this.#wanted = wanted;
    if (wanted) this.now();
    else this.#stop();
  }

  /** Asks at once, as when something else is wanted than before. */
  now() {
    this.#stop();
    if (this.#wanted) void this.#ask();
  }

  #stop() {
    this.#env.clearTimer(this.#timer);
    this.#open?.abort();
    this.#open = undefined;
  }

  async #ask() {
    const open = new AbortController();
    this.#open = open;
    const late = this.#env.setTimer(() => open.abort(new Error("no answer")), ANSWER_MS);
    /** @type {{ status: Status } | Failure} */
    let answer;
    try {
      answer = await this.#answer(open.signal);
    } catch (cause) {
      answer = troubled(cause);
    } finally {
      this.#env.clearTimer(late);
    }
    // Another question is open, or none is wanted any more.
    if (this.#open !== open) return;
    this.#open = undefined;
    let wait = PAUSE_MS;
    if ("status" in answer) {
      this.#backoff.reset();
      this.#on.status(answer.status);
    } else {
      wait = answer.steady ? answer.wait : this.#backoff.next(Math.max(answer.wait, PAUSE_MS));
      this.#on.trouble(answer.trouble);
      // A token that is asked for comes by hand.
      if (answer.trouble.kind === "token") return;
    }
    if (this.#wanted && this.#open === undefined) this.#timer = this.#env.setTimer(() => void this.#ask(), wait);
  }

  /**
   * @param {AbortSignal} signal
   * @returns {Promise<{ status: Status } | Failure>}
   */
  async #answer(signal) {
    const response = await this.#env.fetch(this.#url(), { cache: "no-store", signal });
    if (response.ok) return { status: parseStatus(await response.json()) };
    const detail = await reason(response);
    const challenge = response.headers.get("www-authenticate") ?? "";
    const otherToken = response.status === 403 && challenge.includes("insufficient_scope");
    if (response.status === 401 || otherToken) return { trouble: { kind: "token", text: detail, otherToken }, wait: 0 };
    if (response.status === 429 || response.status >= 500) {
      const wait = retryAfter(response.headers.get("retry-after"), Date.now());
      return { trouble: { kind: "busy", text: detail, otherToken: false }, wait };
    }
    return { trouble: { kind: "refused", text: detail, otherToken: false }, wait: REFUSED_MS, steady: true };
  }
}

/**
 * Why the server refused, in its words.
 * @param {Response} response
 */
async function reason(response) {
  const status = `status ${response.status}`;
  try {
    const { detail } = await response.json();
    return typeof detail === "string" && detail !== "" ? detail : status;
  } catch {
    return status;
  }
}

/**
 * @param {unknown} cause
 * @returns {Failure}
 */
function troubled(cause) {
  const strange = cause instanceof BadStatus || cause instanceof SyntaxError;
  const text = strange ? "This page does not understand the answer: reload the page." : "The server does not answer.";
  return { trouble: { kind: strange ? "strange" : "unreachable", text, otherToken: false }, wait: 0 };
}
