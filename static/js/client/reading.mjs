// @ts-check
import { AutoError, inWords } from "./auto.mjs";
import { Backoff } from "./backoff.mjs";
import { asClientError, broken, feedFailed, stoodStill, tokenExpired } from "./errors.mjs";
import { readFrames } from "./frame-reader.mjs";
import { loadInfo } from "./info.mjs";
import { openFeed } from "./open-feed.mjs";
import { Place } from "./place.mjs";
import { Rests } from "./rests.mjs";
import { UNKNOWN } from "./timing.mjs";
import { Watchdog } from "./watchdog.mjs";

/** @typedef {import("./types.mjs").Env} Env */
/** @typedef {import("./types.mjs").Source} Source */
/** @typedef {import("./types.mjs").Verdict} Verdict */
/** @typedef {import("./errors.mjs").ClientError} ClientError */
/** @typedef {import("./place.mjs").Missed} Missed */
/** @typedef {import("./follow.mjs").FollowEvents} FollowEvents */
/** @typedef {import("./follow.mjs").Wanted} Wanted */

/** How long the end of a feed waits for the stream's end and for the browser's report on it. */
const REPORT_WAIT_MS = 1000;

/** One reading, from Start to its end. */
export class Reading {
  abort = new AbortController();
  #env;
  #events;
  #wanted;
  #place;
  #backoff;
  #rests;
  #startedAt;
  #totals = { chunks: 0, bytes: 0, firstAt: /** @type {number | null} */ (null) };
  /** @type {number | null} */
  #previous = null;
  /** The token has ended while this was read. */
  #expired = false;
  /** How often a token was renewed since a chunk came. */
  #renewals = 0;
  /** The connection was lost, and what that cost is not known yet. */
  #returning = false;
  /** @type {Watchdog | undefined} */
  #watchdog;
  /** Every viewer sees the same chunks, and the feed may be silent for long. */
  #live = false;
  /** Ends the wait that there is. */
  hurry = () => {};
  /** Sends input to the feed's command, while it is read. @type {import("./types.mjs").SendInput | undefined} */
  send;

  /**
   * @param {Env} env
   * @param {FollowEvents} events
   * @param {Wanted} wanted
   */
  constructor(env, events, wanted) {
    const now = () => env.performance.now();
    this.#env = env;
    this.#events = events;
    this.#wanted = wanted;
    this.#place = new Place(wanted.from);
    this.#backoff = new Backoff(env.random);
    this.#rests = new Rests(now);
    this.#startedAt = now();
  }

  get epoch() {
    return this.#place.epoch;
  }

  /**
   * @param {number} chunks
   * @param {string | undefined} epoch
   */
  told(chunks, epoch) {
    const { next, epoch: ours } = this.#place;
    if (this.#watchdog === undefined || next === undefined || epoch === undefined) return undefined;
    // Another epoch: the feed was started again, and what this stream was of is gone.
    this.#watchdog.told(epoch !== ours || chunks > next);
    return epoch === ours ? Math.max(0, chunks - next) : undefined;
  }

  /** @returns {Promise<() => void>} the last event */
  async run() {
    const events = this.#events;
    const { signal } = this.abort;
    for (;;) {
      /** @type {ClientError} */
      let error;
      try {
        events.onConnecting(this.#backoff.attempts);
        const end = await this.#once();
        if (end.failed) return () => events.onError(feedFailed(end.reason), []);
        return () => events.onEnded(this.#sum());
      } catch (cause) {
        if (signal.aborted) return () => events.onStopped(this.#sum());
        error = asClientError(cause);
        const verdicts = cause instanceof AutoError ? cause.verdicts : [];
        const { token } = this.#env;
        if ((error.needsToken || error.otherToken) && token !== undefined) {
          this.#returning ||= this.#place.next !== undefined;
          events.onLost(error, 0, this.#backoff.attempts + 1, verdicts);
          // A server that refuses every new token is not asked without a pause.
          if (this.#renewals > 0) await this.#wait(this.#backoff.next(0), 0);
          this.#renewals += 1;
          if (!signal.aborted && (await token.after(error, signal))) continue;
          if (signal.aborted) return () => events.onStopped(this.#sum());
        }
        if (error.permanent) return () => events.onError(error, verdicts);
        this.#returning ||= this.#place.next !== undefined;
        const wait = this.#backoff.next(error.retryAfterMs);
        events.onLost(error, wait, this.#backoff.attempts, verdicts);
        await this.#wait(wait, error.retryAfterMs);
      }
      if (signal.aborted) return () => events.onStopped(this.#sum());
    }
  }

  /** One connection, to the feed's end; whatever else ends it is thrown. */
  async #once() {
    const env = this.#env;
    const { signal } = this.abort;
    /** @type {{ info: import("./info.mjs").Info, protocol: string }} */
    let known;
    try {
      known = await loadInfo(env, signal);
    } catch (cause) {
      // Where the server itself does not answer, no way is to blame.
      if (!signal.aborted) this.#rests.forgive();
      throw cause;
    }
    const { info, protocol } = known;
    this.#live = info.feeds.some(({ name, kind }) => name === this.#wanted.feed && kind === "live");
    this.#events.onInfo(info);
    const { source, way, verdicts } = await openFeed({
      env, info, protocol, signal, ...this.#wanted, from: this.#place.from, rests: this.#rests,
    });
    try {
      this.send = source.send;
      return await this.#read(source, protocol, verdicts);
    } catch (cause) {
      if (!signal.aborted && !asClientError(cause).blameless) this.#rests.fail(way, inWords(cause));
      throw cause;
    } finally {
      this.send = undefined;
      source.close();
    }
  }

  /**
   * @param {Source} source
   * @param {string} probed
   * @param {Verdict[]} verdicts
   */
  async #read(source, probed, verdicts) {
    const env = this.#env;
    const { transport } = source;
    const final = transport === "webtransport";
    this.#events.onOpen({ transport, protocol: final ? await source.protocol() : probed, final }, verdicts);
    const gone = new AbortController();
    const watchdog = (this.#watchdog = new Watchdog(env, (why) => gone.abort(new Error(why))));
    let bytes = 0;
    let late = 0;
    const done = await readFrames(source.stream, {
      now: () => env.performance.now(),
      breathe: () => env.breathe(),
      signal: AbortSignal.any([this.abort.signal, gone.signal]),
      onBytes: (count) => {
        bytes += count;
        watchdog.heard();
      },
      onFrame: (frame) => {
        if (frame.type === "end") late = env.setTimer(() => gone.abort(), REPORT_WAIT_MS);
        this.#take(frame);
      },
    });
    env.clearTimer(late);
    const still = watchdog.stop();
    this.#watchdog = undefined;
    const expired = this.#expired;
    this.#expired = false;
    this.abort.signal.throwIfAborted();
    if (!final && done.how === "ended") {
      this.#events.onPath({ transport, protocol: await source.protocol(REPORT_WAIT_MS), final: true });
    } else if (!final) {
      // A reading that was cut may never be reported on: then what /info said stays, as not final.
      const protocol = await source.protocol(0);
      if (protocol !== UNKNOWN) this.#events.onPath({ transport, protocol, final: true });
    }
    if (done.how === "ended") return done.end;
    if (expired) throw tokenExpired();
    if (done.how === "bad") throw broken("The stream is not what this client expects.", done.cause, true);
    const failure = await source.failure(done.cause, bytes);
    this.abort.signal.throwIfAborted();
    if (failure.blameless) throw failure;
    if (still > 0) throw stoodStill(Math.round(still / 1000), gone.signal.aborted ? undefined : done.cause);
    if (gone.signal.aborted) throw broken(`The stream is dead: ${gone.signal.reason.message}.`, undefined, false);
    throw failure;
  }

  /** @param {import("./frames.mjs").Frame} frame */
  #take(frame) {
    const place = this.#place;
    switch (frame.type) {
      case "begin":
        place.begin(frame.epoch, frame.next);
        // From the start, the next chunk is the oldest: how many there have been is not known then.
        if (this.#live && this.#wanted.from === "now" && frame.next !== undefined) this.#events.onBegin(frame.next);
        return;
      case "sparse":
        place.sparse();
        return;
      case "stalled":
        this.#events.onStalled(frame.stalled, frame.cause);
        return;
      case "expired":
        this.#expired = true;
        return;
      case "gap": {
        const missed = place.gap(frame);
        if (missed !== undefined) this.#miss(missed);
        return;
      }
      case "chunk": {
        const { fresh, missed } = place.chunk(frame.seq);
        if (missed !== undefined) this.#miss(missed);
        // Whoever is told of a gap may have stopped it.
        if (fresh && !this.abort.signal.aborted) this.#chunk(frame);
        return;
      }
      case "end": {
        const missed = place.end();
        if (missed !== undefined) this.#miss(missed);
        this.#resume(undefined);
        return;
      }
      default:
        // With the first word of a silent feed it is certain that nothing was missed.
        if (!place.restarted) this.#resume(undefined);
    }
  }

  /** @param {import("./frames.mjs").ChunkFrame} frame */
  #chunk({ seq, micros, bytes }) {
    this.#resume(undefined);
    this.#backoff.reset();
    this.#renewals = 0;
    const at = this.#env.performance.now() - this.#startedAt;
    const totals = this.#totals;
    totals.firstAt ??= at;
    totals.chunks += 1;
    totals.bytes += bytes.length;
    const gap = this.#previous === null ? null : at - this.#previous;
    this.#previous = at;
    this.#events.onChunk({ seq, micros, at, gap, bytes });
  }

  /** @param {Missed} missed */
  #miss(missed) {
    if (this.#returning) this.#resume(missed);
    else this.#events.onMissed(missed);
  }

  /** @param {Missed | undefined} missed */
  #resume(missed) {
    if (!this.#returning) return;
    this.#returning = false;
    this.#events.onResumed(missed);
  }

  #sum() {
    return { ...this.#totals, duration: this.#env.performance.now() - this.#startedAt };
  }

  /**
   * @param {number} wait
   * @param {number} atLeast what nothing shortens but the visitor
   * @returns {Promise<void>}
   */
  #wait(wait, atLeast) {
    const env = this.#env;
    const { signal } = this.abort;
    return new Promise((resolve) => {
      const done = () => {
        env.clearTimer(timer);
        offline();
        signal.removeEventListener("abort", done);
        this.hurry = () => {};
        resolve();
      };
      const timer = env.setTimer(done, wait);
      const offline = env.onOnline(() => {
        if (atLeast === 0) done();
      });
      this.hurry = done;
      signal.addEventListener("abort", done);
      if (signal.aborted) done();
    });
  }
}
