// @ts-check
import { FETCH_H3, FETCH_TCP, WEBTRANSPORT, openAuto } from "./auto.mjs";
import { ClientError, asClientError, notOffered, tokenNeeded } from "./errors.mjs";
import { askFirst, openFetch } from "./fetch-source.mjs";
import { feedUrl, sessionUrl, withQuery } from "./info.mjs";
import { isHttp3 } from "./timing.mjs";
import { openWebTransport } from "./webtransport-source.mjs";

/** @typedef {import("./types.mjs").Source} Source */
/** @typedef {import("./types.mjs").Verdict} Verdict */

/**
 * Opens a feed as frames, by the way that was chosen or by the best that works.
 *
 * @param {object} options
 * @param {import("./types.mjs").Env} options.env
 * @param {import("./info.mjs").Info} options.info
 * @param {string} options.protocol what the browser reported for `/info`
 * @param {import("./types.mjs").TransportChoice} options.choice
 * @param {string} options.feed
 * @param {string} options.from `now`, `start`, `-N` or a cursor
 * @param {Record<string, string> | undefined} [options.query] what else the feed is asked for
 * @param {AbortSignal} options.signal
 * @param {import("./rests.mjs").Rests} options.rests
 * @returns {Promise<{ source: Source, way: string, verdicts: Verdict[] }>}
 */
export async function openFeed({ env, info, protocol, choice, feed, from, query: more, signal, rests }) {
  const { webtransport } = info;
  if (!info.feeds.some(({ name }) => name === feed)) {
    if (info.auth !== null && !info.auth.token) throw tokenNeeded(feed);
    // There is none, or this token does not allow it, or clients create it: the server knows.
    await askFirst({ url: feedUrl(info, feed, env.href), signal, env });
  }
  const query = { ...more, format: "frames", from };
  const viaFetch = () => openFetch({ url: withQuery(feedUrl(info, feed, env.href), query), signal, env });
  const viaWebTransport = async () => {
    if (webtransport === null) throw notOffered();
    const url = await shown(env, info, withQuery(sessionUrl({ ...info, webtransport }, feed, env.href), query), signal);
    return openWebTransport({ url, certificateHashes: webtransport.certificateHashes, signal, env });
  };
  if (choice === "fetch") {
    const way = isHttp3(protocol) ? FETCH_H3 : FETCH_TCP;
    return { source: await viaFetch(), way, verdicts: [byHand("fetch")] };
  }
  if (choice === "webtransport") {
    const source = await viaWebTransport().catch((cause) => whyNoSession(cause, feedUrl(info, feed, env.href), signal, env));
    return { source, way: WEBTRANSPORT, verdicts: [byHand(WEBTRANSPORT)] };
  }
  return openAuto({
    protocol,
    secure: env.isSecureContext,
    supported: env.WebTransport !== undefined,
    offered: webtransport !== null,
    byHash: webtransport !== null && webtransport.certificateHashes.length > 0,
    openFetch: viaFetch,
    openWebTransport: viaWebTransport,
    signal,
    resting: (way) => rests.why(way),
    onFailed: (way, why) => rests.fail(way, why),
  });
}

/**
 * The address of a session with the page's token in it. A page whose cookie lets it in gets one for that.
 * @param {import("./types.mjs").Env} env
 * @param {import("./info.mjs").Info} info
 * @param {string} url
 * @param {AbortSignal} signal
 */
export async function shown({ token }, info, url, signal) {
  if (token === undefined) return url;
  if (token.value === "" && info.auth?.token === true) await token.renewAlone(signal);
  return token.inUrl(url);
}

/**
 * Throws why a session could not be opened: the server's refusal, if it refuses the same over fetch as well.
 * @param {unknown} cause
 * @param {string} url the feed's
 * @param {AbortSignal} signal
 * @param {import("./types.mjs").Env} env
 * @returns {Promise<never>}
 */
export async function whyNoSession(cause, url, signal, env) {
  if (signal.aborted || asClientError(cause).permanent) throw cause;
  try {
    await askFirst({ url, signal, env });
  } catch (refusal) {
    if (refusal instanceof ClientError && refusal.answered) throw refusal;
  }
  throw cause;
}

/**
 * @param {string} way
 * @returns {Verdict}
 */
function byHand(way) {
  return { way, verdict: "taken", reason: "It was chosen, so no other transport was tried." };
}
