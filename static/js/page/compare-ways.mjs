// @ts-check
import { deadline } from "../client/info.mjs";
import { UNKNOWN, isHttp3, watchProtocol } from "../client/timing.mjs";

/** @typedef {import("../client/types.mjs").Env} Env */
/** @typedef {import("../client/info.mjs").Info} Info */

/**
 * Where requests can go to. A browser chooses the version of HTTP for each origin, so that a page can only have two
 * at once by two origins: its own and the server's TLS port.
 * @typedef {{ origin: string, protocol: string | null }} Way `protocol` as the browser reported it a moment ago; null:
 *   it got no answer from there
 * @typedef {{ h3: Way | null, tcp: Way | null, best: Way }} Ways
 */

/**
 * Asks both origins, and the browser how the answers came.
 * @param {Env} env
 * @param {Info} info
 * @param {string} protocol what the browser reported for `/info` of the page's own origin
 * @returns {Promise<{ own: Way, other: Way | null }>}
 */
export async function probe(env, info, protocol) {
  const own = { origin: new URL(env.href).origin, protocol };
  const there = info.webtransport?.url ?? info.feeds[0]?.url;
  // The token is shown to the page's own origin only.
  if (there === undefined || (env.token?.value ?? "") !== "" || new URL(there).origin === own.origin) return { own, other: null };
  const { origin } = new URL(there);
  const { pathname } = new URL("info", env.href);
  const url = origin + pathname;
  const timing = watchProtocol(url, env);
  const limit = deadline(env);
  try {
    const response = await env.fetch(url, { cache: "no-store", signal: limit.signal });
    await response.text();
    return { own, other: { origin, protocol: await timing.protocol() } };
  } catch {
    return { own, other: { origin, protocol: null } };
  } finally {
    limit.clear();
    timing.stop();
  }
}

/**
 * Which of them to take for what.
 * @param {{ own: Way, other: Way | null }} probed
 * @returns {Ways}
 */
export function chooseWays({ own, other }) {
  const answered = (/** @type {Way | null} */ way) => way !== null && way.protocol !== null && way.protocol !== UNKNOWN;
  const h3 = [other, own].find((way) => answered(way) && isHttp3(way?.protocol ?? "")) ?? null;
  const tcp = [own, other].find((way) => answered(way) && !isHttp3(way?.protocol ?? "")) ?? null;
  return { h3, tcp, best: h3 ?? tcp ?? own };
}

/**
 * Why there is no fetch over HTTP/3 here.
 * @param {{ own: Way, other: Way | null }} probed
 */
export function whyNoHttp3({ own, other }) {
  if (other === null) return `The browser reports ${named(own.protocol)} for ${own.origin}.`;
  if (other.protocol === null) {
    return `The browser got no answer from ${other.origin}. It does not say why; most likely it does not trust the server's own certificate.`;
  }
  return `The browser reports ${named(other.protocol)} for ${other.origin}, and ${named(own.protocol)} for ${own.origin}.`;
}

/** @param {string | null} protocol */
export function named(protocol) {
  return protocol === null || protocol === UNKNOWN ? "no protocol" : protocol;
}
