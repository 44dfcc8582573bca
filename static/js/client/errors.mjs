// @ts-check
import { plural } from "./format.mjs";

/**
 * Every error that a reader can meet, in words: what happened, and what to do about it.
 */

/**
 * A text without the tokens that its addresses have: what is shown is copied, sent on and kept in logs.
 * @param {string} text
 */
export function withoutToken(text) {
  return text.replaceAll(/([?&]token=)[^&#\s"'’”)>]*/gi, "$1…");
}

/**
 * What a publication has written, as the server reports it.
 * @typedef {{ bytes: number, epoch: string | undefined }} Published
 */

/** An error with advice. `message` says what happened, `steps` what to do. */
export class ClientError extends Error {
  /**
   * @param {string} message
   * @param {string[]} steps
   * @param {unknown} [cause] what the browser said
   */
  constructor(message, steps, cause) {
    super(message, { cause });
    this.name = "ClientError";
    this.steps = steps;
    /** Trying again would bring the same. */
    this.permanent = false;
    /** Whether it helps to try again by hand, where nothing does so by itself. */
    this.again = /** @type {"" | "now" | "later"} */ ("");
    /** A new token is needed: there was none, or it is no longer valid. */
    this.needsToken = false;
    /** The token is valid and does not allow this: a renewal would bring the same. */
    this.otherToken = false;
    /** The transport is not at fault, so there is no use in changing it. */
    this.blameless = false;
    /** The server itself answered, whatever way the question took. */
    this.answered = false;
    /** The server answered that it takes nothing more for now. */
    this.busy = false;
    /** How long the server asks to be left alone, in milliseconds. */
    this.retryAfterMs = 0;
    /** The status of the server's answer; 0 for none. */
    this.status = 0;
    /**
     * What a publication that the server refused has written: null if it had not begun; undefined: not known.
     * @type {Published | null | undefined}
     */
    this.published = undefined;
  }

  /** The browser's own words, or "" if there are none. */
  get said() {
    const { cause } = this;
    if (cause === undefined || cause === null) return "";
    if (!(cause instanceof Error)) return withoutToken(String(cause));
    return cause.message === "" ? cause.name : withoutToken(`${cause.name}: ${cause.message}`);
  }
}

/**
 * @param {ClientError} error
 * @returns {ClientError} the same, of a kind that trying again does not mend
 */
function forGood(error) {
  error.permanent = true;
  return error;
}

/**
 * @param {ClientError} error
 * @param {ClientError["again"]} again
 */
function byHand(error, again) {
  error.again = again;
  return error;
}

const LOOK_AT_LOG = "Look at the server's log (on the terminal).";
const START_SERVER = "Check that the server is still running; if not, restart it.";

/**
 * The request got no answer at all.
 * @param {string} what for example "/info"
 * @param {unknown} cause
 */
export function unreachable(what, cause) {
  return new ClientError(`The server did not answer the request for ${what}.`, [
    START_SERVER,
    "If it was restarted on another port, open the address that it prints.",
  ], cause);
}

/**
 * The server answered, but not with a stream.
 * @param {string} what
 * @param {number} status
 * @param {{ title?: string, detail?: string }} problem the problem document, as far as there is one
 * @param {string} origin the page's origin; "" outside of a page
 * @param {{ retryAfterMs?: number, scope?: boolean }} [more] how long the server asks to be left alone, and whether it
 *   refuses what the token does not allow
 */
export function refused(what, status, problem, origin, { retryAfterMs = 0, scope = false } = {}) {
  const error = refusedInWords(what, status, problem, origin, scope);
  error.answered = true;
  error.status = status;
  error.busy = status === 429 || status === 503;
  error.otherToken = scope;
  error.retryAfterMs = retryAfterMs;
  error.needsToken = status === 401;
  // What the server has judged stays judged; only "not now" and its own failures are asked again.
  error.permanent = status < 500 ? ![408, 425, 429].includes(status) : status === 501 || status === 505;
  return error;
}

/**
 * @param {string} what
 * @param {number} status
 * @param {{ title?: string, detail?: string }} problem
 * @param {string} origin
 * @param {boolean} scope
 */
function refusedInWords(what, status, problem, origin, scope) {
  const reason = problem.detail || problem.title || "";
  const message = `The server refused the request for ${what} with status ${status}` +
    (reason === "" ? "." : `: ${reason.replace(/\.?$/, ".")}`);
  if (status === 401) {
    return new ClientError(message, ["Ask whoever runs this server for a token that is valid now."]);
  }
  if (scope) {
    return new ClientError(message, ["Ask whoever runs this server for a token that allows it."]);
  }
  if (status === 403) {
    return new ClientError(message, [
      "Use the address that the server prints.",
      ...allowed("Or allow this origin", origin),
    ]);
  }
  if (status === 404) {
    return new ClientError(message, ["Check the feed's name in the address; /info lists the feeds that exist."]);
  }
  if (status === 429) {
    return byHand(new ClientError(message, [
      "Close other tabs and programs that read from this server: it limits how much one client has open at once.",
    ]), "later");
  }
  if (status === 503) {
    return byHand(new ClientError(message, ["The server is full, short of memory or shutting down."]), "later");
  }
  return byHand(new ClientError(message, [LOOK_AT_LOG]), "now");
}

/**
 * How a server is told to let pages of an origin in.
 * @param {string} when
 * @param {string} origin "" outside of a page
 */
function allowed(when, origin) {
  return origin === "" ? [] : [`${when}: h3cast serve --allow-origin ${origin}`];
}

const OLDER = "The client may be older than the server: reload the page, or update the package.";

/**
 * `/info` came, but is not what this client understands.
 * @param {string} detail
 * @param {unknown} [cause]
 */
export function badInfo(detail, cause) {
  return forGood(new ClientError(`The server's /info is not what this client expects: ${detail}.`, [
    OLDER,
    "If something else listens on this port, open the address that h3cast prints.",
  ], cause));
}

/**
 * The body failed before its end.
 * @param {number} bytes how many had come
 * @param {unknown} cause
 * @param {string} [reason] what the other side gave as its reason
 */
export function cutShort(bytes, cause, reason = "") {
  const message = `The stream was interrupted after ${plural(bytes, "byte")}, so the received data is incomplete` +
    (reason === "" ? "." : ` (${reason}).`);
  return byHand(new ClientError(message, [START_SERVER], cause), "now");
}

/**
 * Nothing can be sent to a command any more.
 * @param {unknown} cause
 */
export function inputOver(cause) {
  return new ClientError("The command takes no more input: it has ended, or the input was ended before.", [], cause);
}

/** There is nothing that could be sent to. */
export function noCommand() {
  return new ClientError("Not sent: there is no connection to a feed that takes input.", [
    "Send while the feed is streaming. To have one that takes input: h3cast serve 'exec:COMMAND' --per-viewer --input",
  ]);
}

const ASLEEP = "That happens in a suspended tab, in a debugger, or while the computer sleeps.";

/**
 * The server ended the stream because nothing of it was read (`--send-timeout`, or sooner while memory is short).
 * @param {unknown} cause
 */
export function tookNothing(cause) {
  return notTheWay(byHand(new ClientError("The server ended the stream because nothing had been read from it for too long.", [
    ASLEEP,
  ], cause), "now"));
}

/**
 * The stream broke off while the reader itself stood still.
 * @param {number} seconds for how long
 * @param {unknown} cause
 */
export function stoodStill(seconds, cause) {
  return notTheWay(byHand(new ClientError(`Nothing ran here for ${seconds} s, and the connection was lost in the meantime.`, [
    ASLEEP,
  ], cause), "now"));
}

/**
 * The stream is dead, or is none of frames.
 * @param {string} message
 * @param {unknown} cause
 * @param {boolean} permanent
 */
export function broken(message, cause, permanent) {
  const error = new ClientError(message, [
    permanent ? OLDER : START_SERVER,
  ], cause);
  error.permanent = permanent;
  return error;
}

/**
 * The feed itself ended before it was whole.
 * @param {string} reason the server's
 */
export function feedFailed(reason) {
  const words = reason === "" ? "" : `: ${reason.replace(/\.?$/, "")}`;
  return forGood(new ClientError(`The feed failed at its source${words}.`, [
    "To read what the server still has of it, start from the oldest chunk (“oldest kept”, or ?from=start).",
    "To get the rest, fix its source (a command, a file) and restart the server.",
  ]));
}

/**
 * The server shows this feed to those who have a token.
 * @param {string} name
 */
export function tokenNeeded(name) {
  return withToken(forGood(new ClientError(`A token is needed to read the feed “${name}”.`, [
    "Ask whoever runs this server for a token.",
  ])));
}

/** The server shows no feed without a token. */
export function noneShown() {
  return withToken(new ClientError("This server shows its feeds only to clients with a token.", [
    "Ask whoever runs this server for a token.",
  ]));
}

/** The token under which the feed was read has expired, or was revoked. */
export function tokenExpired() {
  return withToken(new ClientError("The token is no longer valid: it has expired or was revoked.", ["Ask whoever runs this server for a new one."]));
}

/** @param {ClientError} error */
function withToken(error) {
  error.needsToken = true;
  return notTheWay(error);
}

/** @param {ClientError} error */
function notTheWay(error) {
  error.blameless = true;
  return error;
}

/** The server has nothing to show, and the address names nothing. */
export function noFeeds() {
  return forGood(new ClientError("This server has no feeds yet.", [
    "If you know the name of a feed that will appear later, add ?feed=NAME to the page's address.",
  ]));
}

/**
 * WebTransport cannot be used here.
 * @param {boolean} secure whether the page is a secure context
 */
export function noWebTransport(secure) {
  if (!secure) {
    return forGood(new ClientError("WebTransport is not available here, because the page was not loaded from a secure address.", [
      "Open it at https://localhost:4433/ or http://localhost:8080/ (browsers trust localhost).",
      "Or choose fetch, which works everywhere.",
    ]));
  }
  return forGood(new ClientError("WebTransport is not available here.", [
    "Use a current Chrome, Edge or Firefox.",
    "Or choose fetch, which works everywhere.",
  ]));
}

/** The server says that it offers no WebTransport. */
export function notOffered() {
  return forGood(new ClientError("This server offers no WebTransport.", ["Choose fetch instead."]));
}

/**
 * The session was not opened. Browsers do not say which of the causes it was, on purpose.
 * @param {string} url
 * @param {string} origin the page's origin; "" outside of a page
 * @param {boolean} byHash whether the certificate was to be recognised by its hash
 * @param {unknown} cause
 */
export function sessionFailed(url, origin, byHash, cause) {
  const { origin: server, pathname, port } = new URL(url);
  return byHand(new ClientError(`The WebTransport session with ${server}${pathname} could not be opened. Browsers do not say why.`, [
    START_SERVER,
    `Check that nothing blocks UDP port ${port || 443}: a firewall, a VPN or a container without that port.`,
    byHash
      ? "The certificate may have just been renewed. Browsers accept one by its hash only for 14 days, so the computer's clock must be right too."
      : "Check that the server's certificate is valid for this name and that this computer's clock is right.",
    ...allowed("If the server's log says 403, allow this origin", origin),
  ], cause), "now");
}

/**
 * The session opened, and then no stream came.
 * @param {string} reason
 * @param {unknown} [cause]
 */
export function noStream(reason, cause) {
  const message = `The session ended before the server opened a stream${reason === "" ? "." : ` (${reason}).`}`;
  return byHand(new ClientError(message, [LOOK_AT_LOG], cause), "now");
}

/**
 * Anything as an error with advice.
 * @param {unknown} cause
 * @returns {ClientError}
 */
export function asClientError(cause) {
  if (cause instanceof ClientError) return cause;
  return forGood(new ClientError("Something unexpected went wrong.", [
    "Try again. If it happens again, please report it with its cause.",
  ], cause));
}
