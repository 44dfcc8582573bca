// @ts-check
import { inWords } from "../client/auto.mjs";
import { lost, notSent, tooMany } from "./chat-errors.mjs";
import { Lines, parseLine } from "./chat-lines.mjs";
import { chatUrl, linkByFetch, linkByWebTransport } from "./chat-link.mjs";
import { asClientError, noWebTransport, notOffered } from "../client/errors.mjs";
import { loadInfo } from "../client/info.mjs";
import { readStream } from "../client/reader.mjs";
import { UNKNOWN } from "../client/timing.mjs";

/** @typedef {import("../client/types.mjs").Env} Env */
/** @typedef {import("../client/types.mjs").Transport} Transport */
/** @typedef {import("../client/errors.mjs").ClientError} ClientError */
/** @typedef {import("./chat-link.mjs").Link} Link */

/** How many messages may wait to be sent. */
export const MAX_UNSENT = 16;

/**
 * @typedef {{ transport: Transport, protocol: string }} Way what carries the chat
 *
 * What a chat tells whoever shows it.
 * @typedef {object} ChatEvents
 * @property {() => void} onConnecting
 * @property {(way: Way, why: string) => void} onOpen `why` it was taken, or the better one was not
 * @property {(way: Way) => void} onWay the browser's report on a request
 * @property {(line: import("./chat-lines.mjs").Line) => void} onLine
 * @property {() => void} onLeft
 * @property {(error: ClientError) => void} onLost never opened, or over before the visitor left
 */

/** A way's name as a visitor reads it. @param {Way} way */
export function wayName({ transport, protocol }) {
  if (transport === "webtransport") return "WebTransport over HTTP/3, one bidirectional stream";
  return `POST + fetch stream over ${protocol === UNKNOWN ? "a protocol that the browser does not name" : protocol}`;
}

/** One visitor of the chat: joins, says, hears, leaves. */
export class Chat {
  #env;
  #events;
  /** @type {AbortController | undefined} */
  #running;
  /** @type {Link | undefined} */
  #link;
  #unsent = 0;
  /** @type {Promise<void>} */
  #sent = Promise.resolve();

  /**
   * @param {Env} env
   * @param {ChatEvents} events
   */
  constructor(env, events) {
    this.#env = env;
    this.#events = events;
  }

  /** Ends the visit, if there is one; `onLeft` follows. */
  leave() {
    this.#running?.abort();
  }

  /**
   * Visits the chat once, from joining to leaving. Resolves after the last event; never rejects.
   * @param {string} name
   * @param {"auto" | "fetch"} choice
   */
  async join(name, choice) {
    if (this.#running !== undefined) return;
    const { signal } = (this.#running = new AbortController());
    const events = this.#events;
    /** @type {() => void} */
    let last;
    try {
      events.onConnecting();
      const { link, protocol, why } = await this.#open(name, choice, signal);
      this.#link = link;
      this.#unsent = 0;
      this.#sent = Promise.resolve();
      events.onOpen({ transport: link.transport, protocol }, why);
      last = await this.#hear(link, signal);
    } catch (cause) {
      const error = asClientError(cause);
      last = () => (signal.aborted ? events.onLeft() : events.onLost(error));
    } finally {
      this.#link?.close();
      this.#link = undefined;
      this.#running = undefined;
    }
    // Told last, when a new visit is possible again.
    last();
  }

  /**
   * Says something, after everything said before.
   * @param {string} text
   * @throws {ClientError} when it was not sent
   */
  async send(text) {
    const link = this.#link;
    if (link === undefined) throw notSent(lost());
    if (this.#unsent >= MAX_UNSENT) throw notSent(tooMany(this.#unsent));
    this.#unsent += 1;
    const sent = this.#sent.then(() => link.send(text));
    this.#sent = sent.catch(() => {});
    try {
      await sent;
    } catch (cause) {
      throw notSent(cause);
    } finally {
      if (link === this.#link) this.#unsent -= 1;
    }
  }

  /**
   * @param {string} name
   * @param {"auto" | "fetch"} choice
   * @param {AbortSignal} signal
   * @returns {Promise<{ link: Link, protocol: string, why: string }>}
   */
  async #open(name, choice, signal) {
    const env = this.#env;
    const { info: { webtransport }, protocol } = await loadInfo(env, signal);
    let why = "The page's address asks for it: ?transport=fetch.";
    if (choice === "auto") {
      try {
        if (env.WebTransport === undefined) throw noWebTransport(env.isSecureContext);
        if (webtransport === null) throw notOffered();
        const { url, certificateHashes } = webtransport;
        const link = await linkByWebTransport({ url: chatUrl(url, name), certificateHashes, signal, env });
        const byHash = certificateHashes.length > 0;
        why = byHash ? "The browser recognised the server's certificate by its hash." : "The browser trusts the server's certificate.";
        return { link, protocol: "h3", why };
      } catch (cause) {
        signal.throwIfAborted();
        why = inWords(cause);
      }
    }
    const onProtocol = (/** @type {string} */ reported) => {
      if (this.#link === link) this.#events.onWay({ transport: "fetch", protocol: reported });
    };
    const link = await linkByFetch({ name, signal, env, onProtocol });
    return { link, protocol, why };
  }

  /**
   * @param {Link} link
   * @param {AbortSignal} signal
   * @returns {Promise<() => void>} the last event
   */
  async #hear(link, signal) {
    const events = this.#events;
    const lines = new Lines();
    const summary = await readStream(link.stream, {
      startedAt: 0, signal, now: () => this.#env.performance.now(),
      onChunk: ({ text }) => {
        for (const line of lines.push(text)) {
          const parsed = parseLine(line);
          if (parsed !== null) events.onLine(parsed);
        }
      },
    });
    if (summary.outcome === "stopped") return events.onLeft;
    const error = summary.outcome === "ended" ? lost() : await link.failure(summary.cause);
    return () => events.onLost(error);
  }
}
