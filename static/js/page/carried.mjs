// @ts-check

/** @typedef {import("../client/types.mjs").Path} Path */

/** What the browser's identifiers mean. */
const NAMES = /** @type {Record<string, string>} */ ({ h3: "HTTP/3", h2: "HTTP/2", "http/1.1": "HTTP/1.1", "http/1.0": "HTTP/1.0" });

/**
 * What carried the bytes, in a sentence, and how that is known.
 * @param {Path} path
 */
export function carriedBy({ transport, protocol, final }) {
  if (transport === "webtransport") {
    return "A WebTransport session carries these bytes, and a session always runs over HTTP/3. Browsers report no protocol for it.";
  }
  if (protocol === "unknown") return "The browser does not report what carries these bytes.";
  const name = NAMES[protocol] ?? protocol;
  if (!final) return `The browser reported “${protocol}” (${name}) for a request to this server a moment ago. It reports on this one when it ends.`;
  return `${name} carried these bytes: the browser reports “${protocol}” for this request.`;
}
