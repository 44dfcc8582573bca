// @ts-check
import { ClientError, asClientError, noWebTransport, notOffered } from "./errors.mjs";
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
 * @property {(way: string) => string | undefined} [resting] why a way is to be tried last, if it is
 * @property {(way: string, why: string) => void} [onFailed] a way could not be opened, and the server did not refuse
 *   the request itself
 */

export const FETCH_H3 = "fetch over HTTP/3";
export const WEBTRANSPORT = "WebTransport";
export const FETCH_TCP = "fetch over HTTP/2 or 1.1";

/**
 * Opens the first way that works, HTTP/3 first: fetch if the browser speaks HTTP/3 with this
 * server, else WebTransport, else fetch over what there is. Ways that rest come after all others.
 *
 * @param {Ways} ways
 * @returns {Promise<{ source: Source, way: string, verdicts: Verdict[] }>}
 * @throws {AutoError} when every way failed
 */
export async function openAuto(ways) {
  const { signal, resting = () => undefined, onFailed = () => {} } = ways;
  const all = theWays(ways);
  const rests = new Map(all.map(({ way }) => [way, resting(way)]));
  const usable = all.filter(({ hindered }) => hindered === undefined);
  const order = [
    ...usable.filter(({ way }) => rests.get(way) === undefined),
    ...usable.filter(({ way }) => rests.get(way) !== undefined),
  ];
  /** @type {Map<string, string>} */
  const failed = new Map();
  /** @param {string} [taken] */
  const verdicts = (taken) => all.map(({ way, hindered, because }, i) => {
    if (way === taken) return verdict(way, "taken", because);
    const why = failed.get(way) ?? rests.get(way);
    if (why !== undefined) return verdict(way, "not taken", why);
    const past = all.findIndex((other) => other.way === taken);
    if (taken !== undefined && i > past) return verdict(way, "not needed", "A transport over HTTP/3 works.");
    return verdict(way, "not taken", hindered ?? "The server refused the request.");
  });

  const blame = () => failed.forEach((why, way) => onFailed(way, why));
  /** @type {unknown} */
  let last;
  for (const { way, open } of order) {
    try {
      signal.throwIfAborted();
      const source = await open();
      blame();
      return { source, way, verdicts: verdicts(way) };
    } catch (cause) {
      signal.throwIfAborted();
      last = cause;
      failed.set(way, inWords(cause));
      const error = asClientError(cause);
      // What the server itself refuses, for good or for now, it refuses on every way: none is to blame.
      if (error.answered && (error.permanent || error.busy)) throw new AutoError(verdicts(), last);
    }
  }
  blame();
  throw new AutoError(verdicts(), last);
}

/**
 * Every way there is, the best first.
 * @param {Ways} ways
 * @returns {{ way: string, open: () => Promise<Source>, hindered: string | undefined, because: string }[]}
 *   `hindered` says why it cannot be tried, `because` why it is taken when it is
 */
function theWays({ protocol, secure, supported, offered, byHash, openFetch, openWebTransport }) {
  const http3 = isHttp3(protocol);
  const no = !supported ? noWebTransport(secure).message : !offered ? notOffered().message : undefined;
  return [
    {
      way: FETCH_H3,
      open: openFetch,
      hindered: http3 ? undefined : noHttp3(protocol),
      because: `HTTP/3 is already in use with this server: /info was loaded over ${protocol}.`,
    },
    {
      way: WEBTRANSPORT,
      open: openWebTransport,
      hindered: no,
      because: byHash
        ? "It is always HTTP/3, and the server's certificate was recognised by its hash."
        : "It is always HTTP/3, and the server's certificate is trusted.",
    },
    {
      way: FETCH_TCP,
      open: openFetch,
      hindered: http3 ? "fetch uses HTTP/3 with this server." : undefined,
      because: "It works everywhere: the same bytes, chunk by chunk, without HTTP/3.",
    },
  ];
}

/**
 * @param {string} way
 * @param {Verdict["verdict"]} mark
 * @param {string} reason
 * @returns {Verdict}
 */
function verdict(way, mark, reason) {
  return { way, verdict: mark, reason };
}

/** Every way failed: the last error, with what was tried before. */
export class AutoError extends ClientError {
  /**
   * @param {Verdict[]} verdicts
   * @param {unknown} last
   */
  constructor(verdicts, last) {
    const error = asClientError(last);
    super(error.message, error.steps, error.cause);
    this.again = error.again;
    this.permanent = error.permanent;
    this.needsToken = error.needsToken;
    this.otherToken = error.otherToken;
    this.blameless = error.blameless;
    this.answered = error.answered;
    this.status = error.status;
    this.busy = error.busy;
    this.retryAfterMs = error.retryAfterMs;
    this.verdicts = verdicts;
  }
}

/** @param {string} protocol */
function noHttp3(protocol) {
  if (protocol === "unknown") return "The protocol of /info is not reported, so HTTP/3 is not certain.";
  return `/info was loaded over ${protocol}, not h3.`;
}

/**
 * Why a way was not taken.
 * @param {unknown} cause
 */
export function inWords(cause) {
  const error = asClientError(cause);
  return error.said === "" ? error.message : `${error.message} Cause: ${error.said.replace(/\.?$/, ".")}`;
}
