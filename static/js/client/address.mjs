// @ts-check
import { withoutToken } from "./errors.mjs";

/**
 * The address of a feed, taken apart.
 * @typedef {object} FeedAddress
 * @property {string} server what the server's other addresses are relative to; it ends with a slash
 * @property {string} feed the feed's name
 * @property {string | undefined} from where the address says to begin
 * @property {string | undefined} token the token in it
 * @property {Record<string, string>} query what else it asks for, such as a demo's settings
 */

/** What makes no sense over several connections, or not as frames. */
const NOT_HERE = ["limit", "lastEventId", "delivery"];

/**
 * @param {string | URL} url `…/stream` or `…/stream/NAME`; relative ones only in a page
 * @returns {FeedAddress}
 * @throws {TypeError} if it is not the address of a feed, or asks for what cannot be followed
 */
export function feedAddress(url) {
  const base = typeof location === "undefined" ? undefined : location.href;
  if (!URL.canParse(url, base)) throw new TypeError(`not an address: ${withoutToken(String(url))}`);
  const { protocol, origin, pathname, searchParams } = new URL(url, base);
  const [, prefix, name] = /^(.*?\/)stream(?:\/([^/]+))?$/.exec(pathname) ?? [];
  if (prefix === undefined || !/^https?:$/.test(protocol)) {
    throw new TypeError(`not the address of a feed: ${withoutToken(String(url))} (expected https://HOST/stream or https://HOST/stream/NAME)`);
  }
  const bad = NOT_HERE.find((part) => searchParams.has(part));
  if (bad !== undefined) throw new TypeError(`a feed cannot be followed with “${bad}” in its address`);
  const { from, token, format, ...query } = Object.fromEntries(searchParams);
  return { server: origin + prefix, feed: name === undefined ? "default" : decodeURIComponent(name), from, token, query };
}
