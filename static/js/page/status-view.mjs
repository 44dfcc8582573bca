// @ts-check
/** Shows the numbers. Unchanged elements are not touched, so that a reader's place and selection stay. */
import { count, plural, size } from "../client/format.mjs";
import { note, state, states } from "./status-feeds.mjs";
import { byteRate, clock, delay, distance, duration, moment, percent, perSecond } from "./status-format.mjs";
import { Recent } from "./status-recent.mjs";

/** @typedef {import("./status-data.mjs").Status} Status */
/** @typedef {import("./status-data.mjs").Certificate} Certificate */
/** @typedef {import("./status-feeds.mjs").Choice} Choice */
/** @typedef {{ text: string, more?: string, kind?: string }} Cell what stands there, below it, and how it looks */

/** How many names of a certificate, and how many reasons, are shown. */
const SHOWN = 5;
/** What clients speak, and what of it is open. */
const TRANSPORTS = {
  http3: "HTTP/3 connections",
  webtransport: "WebTransport sessions",
  http2: "HTTP/2 connections",
  http1: "HTTP/1.1 connections",
};
/** The window over which the sending rate is averaged. */
const SENT_MS = 5000;
/** A certificate should be renewed this many days before its end. */
const SOON_DAYS = 3;

/**
 * An element that the page's markup must have.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no #${id}`);
  return element;
}

export class StatusView {
  #refused = new Recent();
  #sent = new Recent(SENT_MS);

  /**
   * @param {Status} status
   * @param {Choice} choice which feeds were asked for
   */
  show(status, choice) {
    for (const id of ["now", "feeds", "details"]) byId(id).hidden = false;
    setText("version", `h3cast ${status.version}`);
    this.#unready(status.unready);
    this.#tiles(status);
    this.#feeds(status, choice);
    this.#clients(status);
    this.#refusals(status);
    fillFacts("certificate", certificate(status.certificate, status.time));
    fillFacts("server", server(status));
    setText("updated", `Updated ${clock(Date.now())}`);
  }

  /**
   * @param {string} state as style.css has them
   * @param {string} text announced by screen readers, so only at turning points
   */
  state(state, text) {
    const status = byId("status");
    if (status.textContent !== text) status.textContent = text;
    status.dataset.state = state;
    // Old numbers look old.
    document.body.toggleAttribute("data-stale", state === "error");
  }

  /** @param {string} text "" for none */
  error(text) {
    const error = byId("error");
    error.hidden = text === "";
    if (error.textContent !== text) error.textContent = text;
  }

  /** @param {string[]} reasons */
  #unready(reasons) {
    const box = byId("unready");
    box.hidden = reasons.length === 0;
    setText("unready", reasons.length === 0 ? "" : `Not ready for new clients: ${reasons.join("; ")}.`);
  }

  /** @param {Status} status */
  #tiles({ viewers, rate, sent, lag, connections, memory, feeds, time }) {
    setText("viewers", count(viewers));
    setText("viewers-note", `of ${plural(feeds.total, "feed")}`);
    setText("rate", byteRate(rate.bytes));
    setText("rate-note", `${perSecond(rate.chunks).replace("/s", "")} chunks/s`);
    byId("sent-tile").hidden = sent === null;
    byId("lag-tile").hidden = lag === null;
    if (sent !== null) this.#sent.add(time, new Map(Object.entries(sent)));
    const [bytes, chunks] = [this.#sent.rate("bytes"), this.#sent.rate("chunks")];
    setText("sent", bytes === null ? "–" : byteRate(bytes));
    setText("sent-note", chunks === null ? "" : `${perSecond(chunks).replace("/s", "")} chunks/s`);
    setText("lag", lag === null ? "–" : delay(lag.seconds));
    setText("lag-note", lag === null ? "" : lag.viewers === 0 ? "of the slowest viewer" : `${plural(lag.viewers, "viewer")} over 1 s behind`);
    byId("lag").dataset.kind = lag === null || lag.viewers === 0 ? "" : "warn";
    setText("connections", connections === null ? "–" : count(connections.open));
    setText("connections-note", connections === null ? "" : plural(connections.requests, "request"));
    setText("memory", memory === null ? "–" : size(memory.used));
    setText("memory-note", memory === null ? "without a limit" : `${percent(memory.used, memory.limit)} of ${size(memory.limit)}`);
    byId("memory").dataset.kind = memory === null || memory.pressure === "low" ? "" : "bad";
  }

  /** @param {Status} status @param {Choice} choice */
  #feeds({ feeds }, choice) {
    setText("feeds-states", states(feeds));
    setText("feeds-note", note(feeds, choice));
    byId("feeds-table").hidden = feeds.list.length === 0;
    fillRows("feeds-rows", feeds.list.map((feed) => {
      const words = state(feed);
      const kind = feed.state === "failed" ? "bad" : feed.state === "stalled" ? "warn" : "";
      const skipped = feed.skipped === 0 ? "" : `, ${count(feed.skipped)} skipped`;
      const behind = feed.lag !== null && feed.lag.viewers > 0;
      return [
        { text: feed.name, more: words + (behind ? `, ${delay(feed.lag?.seconds ?? 0)} behind` : "") + skipped, kind: `name ${kind}` },
        { text: words, kind: `wide ${kind}` },
        { text: count(feed.viewers), kind: "number" },
        { text: byteRate(feed.rate.bytes), more: feed.rate.chunks === 0 ? "" : `${perSecond(feed.rate.chunks)}`, kind: "number" },
        { text: feed.lag === null || feed.viewers === 0 ? "–" : delay(feed.lag.seconds), kind: `number wide ${behind ? "warn" : ""}`, more: behind ? plural(feed.lag?.chunks ?? 0, "chunk") : "" },
        { text: count(feed.skipped), kind: "number wide" },
      ];
    }));
  }

  /** @param {Status} status */
  #clients({ connections, transports, publications }) {
    byId("transports").hidden = transports === null;
    fillRows("transport-rows", (transports ?? []).map(({ protocol, open, viewers }) => [
      { text: TRANSPORTS[protocol] },
      { text: open === null ? "–" : count(open), kind: "number" },
      { text: viewers === null ? "–" : count(viewers), kind: "number" },
    ]));
    /** @type {[string, Cell][]} */
    const facts = connections === null ? [] : [
      ["Requests open", { text: count(connections.requests) }],
      ["In handshake", { text: count(connections.halfOpen) }],
    ];
    fillFacts("clients", [...facts, ["Publications", { text: count(publications) }]]);
  }

  /** @param {Status} status */
  #refusals({ refused, time }) {
    // A server that does not count them has nothing to show, not even that there were none.
    byId("refused").hidden = refused === null;
    const all = refused ?? [];
    this.#refused.add(time, new Map(all.map((one) => [one.reason, one.count])));
    byId("refused-none").hidden = all.length > 0;
    byId("refused-table").hidden = all.length === 0;
    fillRows("refused-rows", all.slice(0, SHOWN).map(({ reason, text, count: many }) => {
      const recent = this.#refused.of(reason);
      return [
        { text: reason, more: text },
        { text: count(recent), kind: recent > 0 ? "number warn" : "number" },
        { text: count(many), kind: "number" },
      ];
    }));
    byId("refused-note").hidden = all.length <= SHOWN;
    setText("refused-note", all.length <= SHOWN ? "" : `And ${plural(all.length - SHOWN, "other reason")}: see the metrics.`);
  }
}

/**
 * @param {Certificate | null} certificate
 * @param {number} now the server's clock
 * @returns {[string, Cell][]}
 */
function certificate(certificate, now) {
  if (certificate === null) return [["From", { text: "no certificate here: TLS ends at another server" }]];
  const { names, kind, issuer, notAfter } = certificate;
  const more = names.length > SHOWN ? ` and ${count(names.length - SHOWN)} more` : "";
  const from = { made: "this server, self-signed", "self-signed": "self-signed", issued: issuer }[kind];
  const left = notAfter - now;
  const look = left <= 0 ? "bad" : left < SOON_DAYS * 86_400_000 && kind !== "made" ? "warn" : "";
  return [
    ["For", { text: names.length === 0 ? "no name" : names.slice(0, SHOWN).join(", ") + more }],
    ["Issuer", { text: from }],
    [left > 0 ? "Ends" : "Ended", { text: distance(notAfter, now), more: moment(notAfter), kind: look }],
  ];
}

/**
 * @param {Status} status
 * @returns {[string, Cell][]}
 */
function server({ version, uptime, time, memory, skipped }) {
  /** @type {[string, Cell][]} */
  const facts = [
    ["Version", { text: version }],
    ["Up for", { text: duration(uptime), more: `since ${moment(time - uptime * 1000)}` }],
    ["Chunks skipped", { text: count(skipped) }],
  ];
  if (memory !== null) {
    const words = {
      low: "enough",
      high: "short: new viewers are refused",
      critical: "short: the slowest viewers are cut",
    }[memory.pressure];
    facts.push(["Memory", { text: words, kind: memory.pressure === "low" ? "" : "bad" }]);
    if (memory.viewersCut > 0) facts.push(["Viewers cut", { text: count(memory.viewersCut) }]);
  }
  return facts;
}

/** @param {string} id @param {string} text */
function setText(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

/**
 * @param {HTMLElement} element
 * @param {Cell} cell
 */
function fillCell(element, { text, more = "", kind = "" }) {
  if (element.className !== kind) element.className = kind;
  const [main = element.appendChild(document.createElement("span")), sub] = /** @type {HTMLCollectionOf<HTMLElement>} */ (element.children);
  if (main.textContent !== text) main.textContent = text;
  if (more === "") {
    sub?.remove();
    return;
  }
  const below = sub ?? element.appendChild(document.createElement("span"));
  below.className = "more";
  // Words of two lines that are read out in one need a space.
  if (main.nextSibling === below) below.before(" ");
  if (below.textContent !== more) below.textContent = more;
}

/**
 * Rows of a table, whose first cells are their headers.
 * @param {string} id of its body
 * @param {Cell[][]} rows
 */
function fillRows(id, rows) {
  const body = byId(id);
  while (body.children.length > rows.length) body.lastElementChild?.remove();
  rows.forEach((cells, i) => {
    const row = body.children[i] ?? body.appendChild(document.createElement("tr"));
    cells.forEach((cell, j) => {
      let element = /** @type {HTMLElement | undefined} */ (row.children[j]);
      if (element === undefined) {
        element = row.appendChild(document.createElement(j === 0 ? "th" : "td"));
        if (j === 0) element.setAttribute("scope", "row");
      }
      fillCell(element, cell);
    });
  });
}

/**
 * Pairs of a list.
 * @param {string} id
 * @param {[string, Cell][]} facts
 */
function fillFacts(id, facts) {
  const list = byId(id);
  while (list.children.length > facts.length) list.lastElementChild?.remove();
  facts.forEach(([name, cell], i) => {
    let pair = list.children[i];
    if (pair === undefined) {
      pair = list.appendChild(document.createElement("div"));
      pair.append(document.createElement("dt"), document.createElement("dd"));
    }
    const [dt, dd] = /** @type {HTMLCollectionOf<HTMLElement>} */ (pair.children);
    if (dt !== undefined && dt.textContent !== name) dt.textContent = name;
    if (dd !== undefined) fillCell(dd, cell);
  });
}
