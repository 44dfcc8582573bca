// What the page that compares transports makes of what comes.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";
import { columns } from "../../static/js/page/compare-plot.mjs";
import { byEvents } from "../../static/js/page/compare-runs.mjs";
import { EDGES, Tally, stamp } from "../../static/js/page/compare-tally.mjs";
import { commandForHere } from "../../static/js/page/chrome-command.mjs";
import { chooseWays, probe, whyNoHttp3 } from "../../static/js/page/compare-ways.mjs";

const arrival = (at, number = null, lag = null) => ({ at, bytes: 10, number, lag });

describe("the tally of one transport", () => {
  test("intervals, lag and bytes", () => {
    const tally = new Tally(0);
    for (const [at, lag] of [[100, 5], [100.5, 3], [103, 20], [803, 4]]) tally.add(arrival(at, null, lag));
    assert.deepEqual([tally.chunks, tally.bytes, tally.firstAt, tally.longest], [4, 40, 100, 700]);
    assert.deepEqual(tally.lag, { newest: 4, longest: 20 });
    assert.deepEqual(tally.histogram, [1, 0, 1, 0, 0, 0, 0, 0, 0, 1]);
    assert.deepEqual([tally.below(0.3), tally.below(0.5), tally.below(0.99)], [1, 5, Infinity]);
    assert.equal(new Tally().below(0.5), null);
  });

  test("what is missing, also in the beginning and at the end, and what came late is not", () => {
    const tally = new Tally(0);
    for (const number of [1, 2, 5]) tally.add(arrival(0, number));
    assert.equal(tally.missing, 3);
    tally.add(arrival(0, 4));
    assert.equal(tally.missing, 2);
    tally.sentUpTo(8);
    assert.equal(tally.missing, 4);
    tally.restarted();
    tally.add(arrival(0, 0));
    assert.equal(tally.missing, 4);
  });

  test("without numbers nothing is claimed", () => {
    const tally = new Tally();
    assert.equal(tally.missing, 0);
    tally.add(arrival(0));
    assert.equal(tally.missing, null);
    const sparse = new Tally();
    sparse.sparse = true;
    sparse.add(arrival(0, 7));
    assert.equal(sparse.missing, null);
  });

  test("its memory is bounded", () => {
    const tally = new Tally(0);
    for (let i = 0; i < 100_000; i += 1) tally.add(arrival(i, i, 1));
    assert.ok(tally.points.length <= 40_000);
    assert.equal(tally.histogram.reduce((sum, count) => sum + count), 99_999);
    assert.equal(tally.histogram.length, EDGES.length + 1);
  });
});

test("a chunk of the demo has its number and the time at which it was due", () => {
  assert.deepEqual(stamp("data chunk #7 at 1764224521.250000 ....\n"), { number: 7, due: 1764224521250 });
  assert.deepEqual(stamp("data chunk #7\n"), { number: 7, due: null });
  assert.deepEqual(stamp("a line"), { number: null, due: null });
});

test("the plot has the longest lag of each column, and nothing from before", () => {
  const points = [{ at: 5, lag: 1 }, { at: 10, lag: 4 }, { at: 11, lag: 2 }, { at: 25, lag: null }, { at: 99, lag: 1 }];
  assert.deepEqual(columns(points, { from: 10, perColumn: 10, columns: 3, top: 8 }), [0.5, 0, -1]);
});

describe("where requests go", () => {
  const own = { origin: "http://localhost:8080", protocol: "http/1.1" };
  const other = (protocol) => ({ origin: "https://localhost:4433", protocol });

  test("two versions of HTTP at once need two origins", () => {
    assert.deepEqual(chooseWays({ own, other: other("h3") }), { h3: other("h3"), tcp: own, best: other("h3") });
    assert.deepEqual(chooseWays({ own, other: other("h2") }), { h3: null, tcp: own, best: own });
    assert.deepEqual(chooseWays({ own, other: other(null) }), { h3: null, tcp: own, best: own });
    assert.deepEqual(chooseWays({ own, other: null }), { h3: null, tcp: own, best: own });
    const tls = other("h3");
    assert.deepEqual(chooseWays({ own: tls, other: null }), { h3: tls, tcp: null, best: tls });
  });

  test("a protocol that the browser keeps to itself is none", () => {
    const unknown = { ...own, protocol: "unknown" };
    assert.deepEqual(chooseWays({ own: unknown, other: null }), { h3: null, tcp: null, best: unknown });
    assert.match(whyNoHttp3({ own: unknown, other: null }), /reports no protocol/);
  });

  test("the reason names what the browser reports", () => {
    assert.match(whyNoHttp3({ own, other: other("h2") }), /reports h2 for https:\/\/localhost:4433/);
    assert.match(whyNoHttp3({ own, other: other(null) }), /no answer from https:\/\/localhost:4433/);
  });

  test("a page with a token asks its own origin only", async () => {
    const env = { href: "http://localhost:8080/compare.html", token: { value: "secret" }, fetch: () => assert.fail("asked") };
    const info = { webtransport: { url: "https://localhost:4433/stream", certificateHashes: [] }, feeds: [] };
    assert.deepEqual(await probe(env, info, "http/1.1"), { own, other: null });
  });

  test("the command opens this page", () => {
    assert.equal(
      commandForHere("chrome --x=y https://localhost:4433/", "http://localhost:8080/compare.html?rate=1&size=2"),
      "chrome --x=y http://localhost:8080/compare.html",
    );
  });
});

describe("an EventSource", () => {
  class FakeEventSource extends EventTarget {
    /** @type {FakeEventSource} */ static last;
    closed = false;
    constructor() {
      super();
      FakeEventSource.last = this;
    }
    close() {
      this.closed = true;
    }
    tell(type, data, lastEventId = "") {
      const event = Object.assign(new Event(type), { data, lastEventId });
      if (type === "message") this.onmessage(event);
      else this.dispatchEvent(event);
    }
  }
  const reported = { name: "http://localhost/stream", startTime: 50, nextHopProtocol: "h2" };
  const run = ({ signal = new AbortController().signal, entries = [reported] } = {}) => {
    const tally = new Tally(0);
    const env = { href: "http://localhost/", performance: { now: () => 50, timeOrigin: 1_000_000, getEntriesByType: () => entries } };
    const protocols = [];
    const over = byEvents({
      env, signal, tally, url: "http://localhost/stream", stamped: true, EventSource: FakeEventSource,
      onOpen: () => {}, onProtocol: (protocol) => protocols.push(protocol),
    });
    return { tally, over, source: FakeEventSource.last, protocols };
  };

  test("numbers by its ids, lag by the chunks' own times, and an end that stops it", async () => {
    const { tally, over, source, protocols } = run({ entries: [] });
    source.tell("message", "data chunk #0 at 1000.040000 ..", "40-0");
    source.tell("gap", JSON.stringify({ from: 1, missing: 2, restarted: false }));
    source.tell("message", "data chunk #3 at 1000.045000 ..", "40-3");
    source.tell("end", "{}");
    await over;
    assert.ok(source.closed);
    assert.deepEqual([tally.chunks, tally.missing], [2, 2]);
    assert.ok(Math.abs((tally.lag?.newest ?? 0) - 5) < 0.01);
    assert.deepEqual(protocols, [], "no protocol is claimed that was not reported");
  });

  test("a feed that failed, and one that is refused", async () => {
    const failed = run();
    failed.source.tell("end", JSON.stringify({ error: "the command exited" }));
    await assert.rejects(failed.over, /the command exited/);
    assert.deepEqual(failed.protocols, ["h2"]);
    const refused = run();
    refused.source.tell("refused", JSON.stringify({ title: "no", detail: "the server is full" }));
    await assert.rejects(refused.over, /the server is full/);
    const cut = run();
    cut.source.onerror();
    await assert.rejects(cut.over, /cut off/);
  });

  test("stopped", async () => {
    const stop = new AbortController();
    const { over, source } = run({ signal: stop.signal });
    stop.abort();
    await over;
    assert.ok(source.closed);
  });
});

test("the markup has what the modules look for, and nothing that the policy refuses", () => {
  const html = readFileSync(new URL("../../static/compare.html", import.meta.url), "utf8");
  const modules = ["compare", "compare-lane"].map((name) => readFileSync(new URL(`../../static/js/page/${name}.mjs`, import.meta.url), "utf8")).join("");
  for (const [, id] of modules.matchAll(/byId\("([^"]+)"/g)) assert.ok(html.includes(` id="${id}"`), id);
  for (const [, field] of modules.matchAll(/(?:#at|set)\("([a-z-]+)"[,)]/g)) {
    if (!/^(idle|connecting|running|done|stopped|failed|unavailable)$/.test(field)) assert.ok(html.includes(`data-field="${field}"`), field);
  }
  assert.doesNotMatch(html, /<style|\sstyle=|\son[a-z]+=|javascript:|data:|<script(?![^>]*\ssrc=)/i);
});
