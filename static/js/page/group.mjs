// @ts-check
import { Follower } from "../client/follow.mjs";
import { ClientError } from "../client/errors.mjs";

/** @typedef {import("../client/follow.mjs").FollowEvents} FollowEvents */
/** @typedef {import("../client/follow.mjs").Wanted} Wanted */

/** How many connections to one server a browser opens for HTTP/1.1, less those for everything else. */
const OVER_HTTP1 = 4;

/** One feed that is followed, or several at once. */
export class Group {
  #env;
  /** @type {Follower[]} */
  #followers = [];

  /** @param {import("../client/types.mjs").Env} env */
  constructor(env) {
    this.#env = env;
  }

  get running() {
    return this.#followers.some(({ running }) => running);
  }

  /** What sends input to the command of the feed that is read, if it takes any. */
  get send() {
    return this.#followers[0]?.send;
  }

  /** Ends all readings; `onStopped` of each follows. */
  stop() {
    for (const follower of this.#followers) follower.stop();
  }

  /** Ends the waits before the next attempts. */
  retryNow() {
    for (const follower of this.#followers) follower.retryNow();
  }

  /**
   * What the server says of a feed; see `Follower`.
   * @param {number} place
   * @param {number} chunks
   * @param {string | undefined} epoch
   */
  told(place, chunks, epoch) {
    return this.#followers[place]?.told(chunks, epoch);
  }

  /**
   * Resolves when all are over; never rejects.
   * @param {Wanted[]} wanted
   * @param {FollowEvents[]} shown what shows each
   */
  async start(wanted, shown) {
    const open = new Set();
    const over = new Set();
    this.#followers = shown.map((events, i) => new Follower(this.#env, {
      ...events,
      onOpen: (path, verdicts) => {
        // Each takes a connection of its own there, and without one left the page could not even ask for `/info`.
        if (path.transport === "fetch" && path.protocol === "http/1.1") open.add(i);
        if (open.size > OVER_HTTP1) {
          over.add(i);
          this.#followers[i]?.stop();
        } else {
          events.onOpen(path, verdicts);
        }
        if (open.size < OVER_HTTP1) return;
        for (let other = 0; other < shown.length; other += 1) {
          if (open.has(other)) continue;
          over.add(other);
          this.#followers[other]?.stop();
        }
      },
      onStopped: (totals) => {
        if (over.has(i)) events.onError(tooMany(), []);
        else events.onStopped(totals);
      },
    }));
    await Promise.all(this.#followers.map((follower, i) => follower.start(/** @type {Wanted} */ (wanted[i]))));
  }
}

function tooMany() {
  return new ClientError(`Over HTTP/1.1 this page follows ${OVER_HTTP1} feeds at once: a browser opens only six connections to a server.`, [
    "Open the page over https://, where one connection carries all feeds, or choose fewer.",
  ]);
}
