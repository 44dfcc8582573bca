// @ts-check
import { PageError, asPageError, noWebTransport, notOffered } from "./errors.mjs";
import { isHttp3 } from "./timing.mjs";

/** @typedef {import("./types.mjs").Source} Source */
/** @typedef {import("./types.mjs").Verdict} Verdict */

/**
 * @typedef {object} Ways
 * @property {string} protocol what the browser reported for the request of `/info` just made
 * @property {boolean} secure whether the page is a secure context
 * @property {boolean} supported whether the browser has WebTransport
 * @property {boolean} offered whether the server has it
 * @property {boolean} byHash whether the server's certificate is to be recognised by its hash
 * @property {() => Promise<Source>} openFetch
 * @property {() => Promise<Source>} openWebTransport
 * @property {AbortSignal} signal
 */

export const FETCH_H3 = "fetch over HTTP/3";
export const WEBTRANSPORT = "WebTransport";
export const FETCH_TCP = "fetch over HTTP/2 or 1.1";

/**
 * Opens the first way that works, HTTP/3 first: fetch if the browser speaks HTTP/3 with this
 * server, else WebTransport, else fetch over what there is.
 *
 * @param {Ways} ways
 * @returns {Promise<{ source: Source, verdicts: Verdict[] }>}
 * @throws {AutoError} when every way failed
 */
export async function openAuto(ways) {
  /** @type {Verdict[]} */
  const verdicts = [];
  const { protocol } = ways;
  const http3 = isHttp3(protocol);
  /** @type {unknown} */
  let last;

  /**
   * @param {string} way
   * @param {() => Promise<Source>} open
   * @returns {Promise<Source | undefined>}
   */
  const attempt = async (way, open) => {
    try {
      ways.signal.throwIfAborted();
      return await open();
    } catch (cause) {
      ways.signal.throwIfAborted();
      last = cause;
      verdicts.push({ way, verdict: "not taken", reason: inWords(cause) });
      return undefined;
    }
  };
  /**
   * @param {Source} source
   * @param {string} way
   * @param {string} reason
   * @param {string[]} rest the ways that come after it
   */
  const take = (source, way, reason, rest) => {
    verdicts.push({ way, verdict: "taken", reason });
    for (const other of rest) verdicts.push({ way: other, verdict: "not needed", reason: "An HTTP/3 way is open." });
    return { source, verdicts };
  };

  if (http3) {
    const source = await attempt(FETCH_H3, ways.openFetch);
    if (source) {
      const reason = `The browser already speaks HTTP/3 with this server: it reports ${protocol} for /info.`;
      return take(source, FETCH_H3, reason, [WEBTRANSPORT, FETCH_TCP]);
    }
  } else {
    verdicts.push({ way: FETCH_H3, verdict: "not taken", reason: noHttp3(protocol) });
  }

  if (!ways.supported) {
    verdicts.push({ way: WEBTRANSPORT, verdict: "not taken", reason: noWebTransport(ways.secure).message });
  } else if (!ways.offered) {
    verdicts.push({ way: WEBTRANSPORT, verdict: "not taken", reason: notOffered().message });
  } else {
    const source = await attempt(WEBTRANSPORT, ways.openWebTransport);
    if (source) {
      const reason = ways.byHash
        ? "It is always HTTP/3, and the browser recognised the server's certificate by its hash."
        : "It is always HTTP/3, and the browser trusts the server's certificate.";
      return take(source, WEBTRANSPORT, reason, [FETCH_TCP]);
    }
  }

  if (http3) {
    verdicts.push({ way: FETCH_TCP, verdict: "not taken", reason: "A fetch was already tried, and failed." });
  } else {
    const source = await attempt(FETCH_TCP, ways.openFetch);
    if (source) return take(source, FETCH_TCP, "It works everywhere: the same bytes, chunk by chunk, without HTTP/3.", []);
  }
  throw new AutoError(verdicts, last);
}

/** Every way failed: the last error, with what was tried before. */
export class AutoError extends PageError {
  /**
   * @param {Verdict[]} verdicts
   * @param {unknown} last
   */
  constructor(verdicts, last) {
    const error = asPageError(last);
    super(error.message, error.steps, error.cause);
    this.verdicts = verdicts;
  }
}

/** @param {string} protocol */
function noHttp3(protocol) {
  if (protocol === "unknown") return "The browser does not say over which protocol /info came, so HTTP/3 is not certain.";
  return `The browser reports ${protocol} for /info, not h3.`;
}

/**
 * Why a way was not taken.
 * @param {unknown} cause
 */
export function inWords(cause) {
  const error = asPageError(cause);
  return error.said === "" ? error.message : `${error.message} The browser's words: ${error.said.replace(/\.?$/, ".")}`;
}
