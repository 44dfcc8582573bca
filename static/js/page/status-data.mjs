// @ts-check
/**
 * What `GET /status/data` says, checked member by member. Members that this page does not know are ignored; those that
 * a server does not have are null.
 *
 * @typedef {{ chunks: number, bytes: number }} Rate in a second
 * @typedef {{ seconds: number, chunks: number, viewers: number }} Lag of the viewer that is furthest behind, and how
 *   many are behind by more than a second
 * @typedef {{ protocol: Protocol, open: number | null, viewers: number | null }} Transport what is open of it: sessions of
 *   WebTransport, else connections
 * @typedef {"http3" | "webtransport" | "http2" | "http1"} Protocol
 * @typedef {"open" | "ended" | "failed" | "stalled"} FeedState
 *
 * @typedef {object} FeedRow
 * @property {string} name
 * @property {string} kind
 * @property {FeedState} state
 * @property {string} error why it failed, or ""
 * @property {number} viewers
 * @property {Rate} rate
 * @property {number} skipped chunks that viewers missed
 * @property {Lag | null} lag
 *
 * @typedef {object} Feeds
 * @property {number} total
 * @property {Record<FeedState, number>} states how many are so
 * @property {number} matching how many have the name that was asked for
 * @property {FeedRow[]} list the first of those
 *
 * @typedef {{ reason: string, text: string, count: number }} Refused
 *
 * @typedef {object} Certificate
 * @property {string[]} names
 * @property {"made" | "self-signed" | "issued"} kind
 * @property {string} issuer
 * @property {number} notBefore milliseconds since 1970
 * @property {number} notAfter
 *
 * @typedef {object} Memory
 * @property {number} used bytes
 * @property {number} limit
 * @property {"low" | "high" | "critical"} pressure
 * @property {number} viewersCut
 *
 * @typedef {object} Status
 * @property {string} version
 * @property {number} time the server's clock, in milliseconds since 1970
 * @property {number} uptime seconds
 * @property {string[]} unready why new clients are not welcome
 * @property {number} viewers
 * @property {Rate} rate
 * @property {Rate | null} sent chunks and bytes so far, to all viewers
 * @property {Lag | null} lag
 * @property {number} skipped
 * @property {number} publications
 * @property {{ open: number, halfOpen: number, requests: number, sessions: number } | null} connections
 * @property {Transport[] | null} transports
 * @property {Refused[] | null} refused
 * @property {Certificate | null} certificate
 * @property {Memory | null} memory
 * @property {Feeds} feeds
 */

/** The answer is not one that this page knows. */
export class BadStatus extends Error {}

/**
 * @param {unknown} value
 * @returns {Status}
 */
export function parseStatus(value) {
  const it = object(value, "it");
  const connections = maybe(it.connections, "connections");
  const certificate = maybe(it.certificate, "certificate");
  const memory = maybe(it.memory, "memory");
  const sent = maybe(it.sent, "sent");
  return {
    version: string(it.version, "version"),
    time: time(it.time, "time"),
    uptime: number(it.uptime_seconds, "uptime_seconds"),
    unready: list(it.unready, "unready").map((why) => string(why, "unready")),
    viewers: number(it.viewers, "viewers"),
    rate: rate(it.rate),
    sent: sent && rate(sent),
    lag: lag(it.lag),
    skipped: number(it.skipped, "skipped"),
    publications: number(it.publications, "publications"),
    connections: connections && {
      open: number(connections.open, "open"),
      halfOpen: number(connections.half_open, "half_open"),
      requests: number(connections.requests, "requests"),
      sessions: number(connections.sessions, "sessions"),
    },
    transports: it.transports === null ? null : list(it.transports, "transports").map((item) => {
      const transport = object(item, "transports");
      return {
        protocol: among(transport.protocol, ["http3", "webtransport", "http2", "http1"], "protocol"),
        open: transport.open === null ? null : number(transport.open, "open"),
        viewers: transport.viewers === null ? null : number(transport.viewers, "viewers"),
      };
    }),
    refused: it.refused === null ? null : list(it.refused, "refused").map((item) => {
      const refused = object(item, "refused");
      return {
        reason: string(refused.reason, "reason"),
        text: string(refused.text, "text"),
        count: number(refused.count, "count"),
      };
    }),
    certificate: certificate && {
      names: list(certificate.names, "names").map((name) => string(name, "names")),
      kind: among(certificate.kind, ["made", "self-signed", "issued"], "kind"),
      issuer: string(certificate.issuer, "issuer"),
      notBefore: time(certificate.not_before, "not_before"),
      notAfter: time(certificate.not_after, "not_after"),
    },
    memory: memory && {
      used: number(memory.used, "used"),
      limit: number(memory.limit, "limit"),
      pressure: among(memory.pressure, ["low", "high", "critical"], "pressure"),
      viewersCut: number(memory.viewers_cut, "viewers_cut"),
    },
    feeds: feeds(it.feeds),
  };
}

/** @param {unknown} value @returns {Feeds} */
function feeds(value) {
  const it = object(value, "feeds");
  return {
    total: number(it.total, "total"),
    states: {
      open: number(it.open, "open"),
      ended: number(it.ended, "ended"),
      failed: number(it.failed, "failed"),
      stalled: number(it.stalled, "stalled"),
    },
    matching: number(it.matching, "matching"),
    list: list(it.list, "list").map((item) => {
      const feed = object(item, "list");
      return {
        name: string(feed.name, "name"),
        kind: string(feed.kind, "kind"),
        state: among(feed.state, ["open", "ended", "failed", "stalled"], "state"),
        error: typeof feed.error === "string" ? feed.error : "",
        viewers: number(feed.viewers, "viewers"),
        rate: rate(feed.rate),
        skipped: number(feed.skipped, "skipped"),
        lag: lag(feed.lag),
      };
    }),
  };
}

/** @param {unknown} value @returns {Rate} */
function rate(value) {
  const it = object(value, "rate");
  return { chunks: number(it.chunks, "chunks"), bytes: number(it.bytes, "bytes") };
}

/** @param {unknown} value @returns {Lag | null} */
function lag(value) {
  const it = maybe(value, "lag");
  return it && {
    seconds: number(it.seconds, "seconds"),
    chunks: number(it.chunks, "chunks"),
    viewers: number(it.viewers, "viewers"),
  };
}

/** @param {unknown} value @param {string} where @returns {Record<string, unknown>} */
function object(value, where) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new BadStatus(`${where} is not an object`);
  return /** @type {Record<string, unknown>} */ (value);
}

/** @param {unknown} value @param {string} where */
function maybe(value, where) {
  return value === null || value === undefined ? null : object(value, where);
}

/** @param {unknown} value @param {string} where @returns {unknown[]} */
function list(value, where) {
  if (!Array.isArray(value)) throw new BadStatus(`${where} is not a list`);
  return value;
}

/** @param {unknown} value @param {string} where */
function string(value, where) {
  if (typeof value !== "string") throw new BadStatus(`${where} is not a string`);
  return value;
}

/** @param {unknown} value @param {string} where */
function number(value, where) {
  if (typeof value !== "number") throw new BadStatus(`${where} is not a number`);
  return value;
}

/** @param {unknown} value @param {string} where */
function time(value, where) {
  const at = Date.parse(string(value, where));
  if (Number.isNaN(at)) throw new BadStatus(`${where} is not a time`);
  return at;
}

/**
 * @template {string} T
 * @param {unknown} value
 * @param {T[]} known
 * @param {string} where
 * @returns {T}
 */
function among(value, known, where) {
  const found = known.find((one) => one === value);
  if (found === undefined) throw new BadStatus(`${where} is none of ${known.join(", ")}`);
  return found;
}
