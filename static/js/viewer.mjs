// @ts-check
import { AutoError, WEBTRANSPORT, openAuto } from "./auto.mjs";
import { asPageError, notOffered } from "./errors.mjs";
import { openFetch } from "./fetch-source.mjs";
import { feedUrl, loadInfo, sessionUrl } from "./info.mjs";
import { readStream } from "./reader.mjs";
import { UNKNOWN } from "./timing.mjs";
import { openWebTransport } from "./webtransport-source.mjs";

/** @typedef {import("./types.mjs").Env} Env */
/** @typedef {import("./types.mjs").Source} Source */
/** @typedef {import("./types.mjs").Verdict} Verdict */
/** @typedef {import("./types.mjs").TransportChoice} TransportChoice */

/**
 * Over what the bytes come. While a fetch runs the browser has not reported on it yet: then
 * `protocol` is what it reported for `/info` a moment ago, and `final` is false.
 * @typedef {{ transport: import("./types.mjs").Transport, protocol: string, final: boolean }} Path
 */

/**
 * What a viewer tells whoever shows it.
 * @typedef {object} ViewerEvents
 * @property {(info: import("./info.mjs").Info) => void} onInfo
 * @property {() => void} onConnecting
 * @property {(path: Path, verdicts: Verdict[]) => void} onOpen
 * @property {(chunk: import("./types.mjs").ChunkRead) => void} onChunk
 * @property {(path: Path) => void} onPath the browser's report, when it comes
 * @property {(summary: import("./types.mjs").Summary) => void} onDone
 * @property {(summary: import("./types.mjs").Summary | undefined) => void} onStopped
 * @property {(error: import("./errors.mjs").PageError, verdicts: Verdict[]) => void} onError
 */

/** How long the end of a whole stream waits for the browser's report on it. */
const REPORT_WAIT_MS = 1000;
/** The same after a stop or a failure, for which a browser may have no report. */
const REPORT_WAIT_CUT_MS = 100;

/** One reader of a feed: opens it, reads it, tells what happens. At most one reading at a time. */
export class Viewer {
  #env;
  #events;
  /** @type {AbortController | undefined} */
  #running;

  /**
   * @param {Env} env
   * @param {ViewerEvents} events
   */
  constructor(env, events) {
    this.#env = env;
    this.#events = events;
  }

  get running() {
    return this.#running !== undefined;
  }

  /** Ends the reading, if there is one; `onStopped` follows. */
  stop() {
    this.#running?.abort();
  }

  /**
   * Reads a feed once, from opening to end. Resolves after the last event; never rejects.
   * @param {TransportChoice} choice
   * @param {string} [feed]
   */
  async start(choice, feed = "default") {
    if (this.#running !== undefined) return;
    const { signal } = (this.#running = new AbortController());
    const events = this.#events;
    /** @type {Source | undefined} */
    let source;
    /** @type {() => void} */
    let last;
    try {
      events.onConnecting();
      const { info, protocol } = await loadInfo(this.#env, signal);
      events.onInfo(info);
      const opened = await this.#open(choice, feed, info, protocol, signal);
      source = opened.source;
      last = await this.#read(opened.source, opened.verdicts, protocol, signal);
    } catch (cause) {
      const error = asPageError(cause);
      last = signal.aborted
        ? () => events.onStopped(undefined)
        : () => events.onError(error, cause instanceof AutoError ? cause.verdicts : []);
    } finally {
      source?.close();
      this.#running = undefined;
    }
    // Told last, when a new start is possible again.
    last();
  }

  /**
   * @param {TransportChoice} choice
   * @param {string} feed
   * @param {import("./info.mjs").Info} info
   * @param {string} protocol
   * @param {AbortSignal} signal
   * @returns {Promise<{ source: Source, verdicts: Verdict[] }>}
   */
  async #open(choice, feed, info, protocol, signal) {
    const env = this.#env;
    const { webtransport } = info;
    const viaFetch = () => openFetch({ url: feedUrl(info, feed, env.href), signal, env });
    const viaWebTransport = async () => {
      if (webtransport === null) throw notOffered();
      const url = sessionUrl({ ...info, webtransport }, feed, env.href);
      return openWebTransport({ url, certificateHashes: webtransport.certificateHashes, signal, env });
    };
    if (choice === "fetch") return { source: await viaFetch(), verdicts: [byHand("fetch")] };
    if (choice === "webtransport") return { source: await viaWebTransport(), verdicts: [byHand(WEBTRANSPORT)] };
    return openAuto({
      protocol,
      secure: env.isSecureContext,
      supported: env.WebTransport !== undefined,
      offered: webtransport !== null,
      byHash: webtransport !== null && webtransport.certificateHashes.length > 0,
      openFetch: viaFetch,
      openWebTransport: viaWebTransport,
      signal,
    });
  }

  /**
   * @param {Source} source
   * @param {Verdict[]} verdicts
   * @param {string} probed
   * @param {AbortSignal} signal
   * @returns {Promise<() => void>} the last event
   */
  async #read(source, verdicts, probed, signal) {
    const events = this.#events;
    const { transport, startedAt } = source;
    const final = transport === "webtransport";
    events.onOpen({ transport, protocol: final ? await source.protocol() : probed, final }, verdicts);
    const summary = await readStream(source.stream, {
      startedAt, signal, now: () => this.#env.performance.now(), onChunk: events.onChunk,
    });
    const whole = summary.outcome === "ended";
    if (!final) {
      const protocol = await source.protocol(whole ? REPORT_WAIT_MS : REPORT_WAIT_CUT_MS);
      // A reading that was cut may never be reported on: then what /info said stays, as not final.
      if (whole || protocol !== UNKNOWN) events.onPath({ transport, protocol, final: true });
    }
    if (whole) return () => events.onDone(summary);
    if (summary.outcome === "stopped") return () => events.onStopped(summary);
    const error = source.failure(summary.cause, summary.bytes);
    return () => events.onError(error, []);
  }
}

/**
 * @param {string} way
 * @returns {Verdict}
 */
function byHand(way) {
  return { way, verdict: "taken", reason: "It was chosen by hand, so no other way was tried." };
}
