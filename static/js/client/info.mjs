// @ts-check
import { retryAfter } from "./backoff.mjs";
import { badInfo, refused, unreachable } from "./errors.mjs";
import { plural } from "./format.mjs";
import { watchProtocol } from "./timing.mjs";

/** @typedef {import("./types.mjs").Env} Env */
/** @typedef {{ algorithm: string, value: Uint8Array<ArrayBuffer> }} CertificateHash */
/** @typedef {{ name: string, url: string, kind: string, settings: string[] }} Feed `settings`: what a viewer may set */
/**
 * @typedef {object} Info
 * @property {string} version
 * @property {Feed[]} feeds
 * @property {{ url: string, certificateHashes: CertificateHash[] } | null} webtransport
 * @property {{ token: boolean, renewal: string | null } | null} auth of a server that asks for tokens: whether the
 *   one that was shown is valid, and where a new one can be had
 * @property {boolean} status whether this client may open the server's status page
 * @property {string} chrome the command that starts Chrome with the page over HTTP/3, or ""
 */

/**
 * Asks the server what a client must know, and notes over which protocol the answer came.
 * @param {Env} env
 * @param {AbortSignal} [signal]
 * @returns {Promise<{ info: Info, protocol: string }>}
 */
export async function loadInfo(env, signal) {
  const { href: url, pathname: path } = new URL("info", env.href);
  const timing = watchProtocol(url, env);
  const limit = deadline(env, signal);
  try {
    /** @type {Response} */
    let response;
    try {
      response = await env.fetch(url, { cache: "no-store", signal: limit.signal });
    } catch (cause) {
      throw unreachable(path, cause);
    }
    if (!response.ok) throw await refusal(path, response, env);
    /** @type {unknown} */
    let value;
    try {
      value = await response.json();
    } catch (cause) {
      // Anything else is a connection that was cut.
      throw cause instanceof SyntaxError ? badInfo("it is not JSON", cause) : unreachable(path, cause);
    }
    const info = parseInfo(value);
    if (env.token !== undefined) env.token.renewal = info.auth?.renewal ?? null;
    return { info, protocol: await timing.protocol() };
  } finally {
    limit.clear();
    timing.stop();
  }
}

/** How long an answer may take: a dead connection that is used again says nothing for many minutes. */
export const ANSWER_MS = 15_000;

/**
 * A signal that ends a request which is not answered.
 * @param {Env} env
 * @param {AbortSignal} [signal] ends it too
 */
export function deadline(env, signal) {
  const late = new AbortController();
  const timer = env.setTimer(() => late.abort(new Error(`no answer within ${ANSWER_MS / 1000} seconds`)), ANSWER_MS);
  return {
    signal: signal === undefined ? late.signal : AbortSignal.any([signal, late.signal]),
    clear: () => env.clearTimer(timer),
  };
}

/**
 * Checks the answer of `/info` member by member. Members that this client does not know are ignored.
 * @param {unknown} value
 * @returns {Info}
 */
export function parseInfo(value) {
  const info = object(value, "it");
  return {
    version: string(info.version, "version"),
    feeds: array(info.feeds, "feeds").map((item, i) => {
      const feed = object(item, `feeds[${i}]`);
      return {
        name: string(feed.name, `feeds[${i}].name`),
        url: httpUrl(feed.url, `feeds[${i}].url`),
        kind: typeof feed.kind === "string" ? feed.kind : "",
        settings: Array.isArray(feed.settings) ? feed.settings.filter((name) => typeof name === "string") : [],
      };
    }),
    webtransport: webtransport(info.webtransport),
    auth: auth(info.auth),
    status: typeof info.status === "string",
    chrome: info.chrome === undefined || info.chrome === null ? "" : string(info.chrome, "chrome"),
  };
}

/**
 * The feed that an address names; without one, the default feed, or else the first that there is.
 * @param {Info} info
 * @param {string} wanted the name, or ""
 * @returns {string} "" if the server has no feeds
 */
export function chosenFeed(info, wanted) {
  if (wanted !== "") return wanted;
  return info.feeds.some(({ name }) => name === "default") ? "default" : (info.feeds[0]?.name ?? "");
}

/**
 * The address to fetch a feed from: its path, on the origin of `href`.
 * @param {Pick<Info, "feeds">} info
 * @param {string} name
 * @param {string} href see `Env`
 */
export function feedUrl(info, name, href) {
  const feed = info.feeds.find((candidate) => candidate.name === name);
  if (feed === undefined && name !== "default") {
    return new URL(`stream/${encodeURIComponent(name)}`, href).href;
  }
  const { pathname, search } = new URL(feed?.url ?? "stream", href);
  return new URL(pathname + search, href).href;
}

/**
 * The address to open a session for a feed: the one that `/info` gives, with the feed's path.
 * @param {Info & { webtransport: NonNullable<Info["webtransport"]> }} info
 * @param {string} name
 * @param {string} href
 */
export function sessionUrl(info, name, href) {
  if (name === "default") return info.webtransport.url;
  const { pathname, search } = new URL(feedUrl(info, name, href));
  return new URL(pathname + search, info.webtransport.url).href;
}

/**
 * An address with a query added.
 * @param {string} url
 * @param {Record<string, string>} query
 */
export function withQuery(url, query) {
  const asked = new URL(url);
  for (const [name, value] of Object.entries(query)) asked.searchParams.set(name, value);
  return asked.href;
}

/**
 * A response that is not OK, as an error in words.
 * @param {string} what
 * @param {Response} response
 * @param {Env} env
 */
export async function refusal(what, response, env) {
  /** @type {{ title?: string, detail?: string }} */
  const problem = {};
  /** @type {import("./errors.mjs").ClientError["published"]} */
  let published;
  if (response.headers.get("content-type")?.startsWith("application/problem+json")) {
    try {
      const document = object(await response.json(), "problem");
      if (typeof document.title === "string") problem.title = document.title;
      if (typeof document.detail === "string") problem.detail = document.detail;
      const { in_doubt: inDoubt, published: written } = document;
      if (inDoubt !== true) published = written === undefined ? null : publishedIn(written);
    } catch {
      // The status alone has to do.
    }
  } else {
    await response.body?.cancel().catch(() => {});
  }
  const retryAfterMs = retryAfter(response.headers.get("retry-after"), Date.now());
  const scope = response.status === 403 && /insufficient_scope/.test(response.headers.get("www-authenticate") ?? "");
  return Object.assign(refused(what, response.status, problem, env.origin, { retryAfterMs, scope }), { published });
}

/**
 * What the server says that a publication has written.
 * @param {unknown} value
 * @returns {import("./errors.mjs").Published}
 */
export function publishedIn(value) {
  const { bytes, epoch } = object(value, "the answer");
  if (typeof bytes !== "number") throw badInfo("the answer does not say how many bytes the feed has");
  return { bytes, epoch: typeof epoch === "string" ? epoch : undefined };
}

/**
 * @param {unknown} value
 * @returns {Info["auth"]}
 */
function auth(value) {
  if (value === undefined || value === null) return null;
  const entry = object(value, "auth");
  return { token: entry.token === true, renewal: typeof entry.renewal === "string" ? entry.renewal : null };
}

/**
 * @param {unknown} value
 * @returns {Info["webtransport"]}
 */
function webtransport(value) {
  if (value === undefined || value === null) return null;
  const entry = object(value, "webtransport");
  const url = httpUrl(entry.url, "webtransport.url");
  if (!url.startsWith("https:")) throw badInfo("webtransport.url is not https");
  const list = array(entry.certificateHashes, "webtransport.certificateHashes");
  return { url, certificateHashes: list.map((item, i) => hash(item, `webtransport.certificateHashes[${i}]`)) };
}

/**
 * @param {unknown} value
 * @param {string} where
 * @returns {CertificateHash}
 */
function hash(value, where) {
  const entry = object(value, where);
  const algorithm = string(entry.algorithm, `${where}.algorithm`);
  const encoded = string(entry.value, `${where}.value`);
  let decoded;
  try {
    decoded = atob(encoded);
  } catch (cause) {
    throw badInfo(`${where}.value is not base64`, cause);
  }
  if (algorithm === "sha-256" && decoded.length !== 32) {
    throw badInfo(`${where}.value has ${plural(decoded.length, "byte")}, not the 32 of SHA-256`);
  }
  return { algorithm, value: Uint8Array.from(decoded, (c) => c.charCodeAt(0)) };
}

/**
 * @param {unknown} value
 * @param {string} where
 * @returns {Record<string, unknown>}
 */
export function object(value, where) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw badInfo(`${where} is not an object`);
  return /** @type {Record<string, unknown>} */ (value);
}

/**
 * @param {unknown} value
 * @param {string} where
 * @returns {unknown[]}
 */
export function array(value, where) {
  if (!Array.isArray(value)) throw badInfo(`${where} is not a list`);
  return value;
}

/**
 * @param {unknown} value
 * @param {string} where
 * @returns {string}
 */
export function string(value, where) {
  if (typeof value !== "string") throw badInfo(`${where} is not a string`);
  return value;
}

/**
 * @param {unknown} value
 * @param {string} where
 * @returns {string}
 */
function httpUrl(value, where) {
  const text = string(value, where);
  if (!/^https?:\/\//.test(text) || !URL.canParse(text)) throw badInfo(`${where} is not an http address`);
  return text;
}
