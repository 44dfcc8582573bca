// The status page's modules: what is asked for and when, and the words that numbers are put in.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { BadStatus, parseStatus } from "../../static/js/page/status-data.mjs";
import { dataUrl, note, state, states } from "../../static/js/page/status-feeds.mjs";
import { byteRate, delay, distance, duration, perSecond, percent } from "../../static/js/page/status-format.mjs";
import { PAUSE_MS, StatusPoll } from "../../static/js/page/status-poll.mjs";
import { Recent } from "../../static/js/page/status-recent.mjs";
import { FakeEnv, deferred, json, settled } from "./fakes.mjs";

const STATIC = new URL("../../static/", import.meta.url);
const read = (name) => readFileSync(new URL(name, STATIC), "utf8");

/** What the server gives. */
function statusDocument(changes = {}) {
  return {
    version: "0.1.0",
    time: "2026-11-26T22:00:00Z",
    uptime_seconds: 90.5,
    unready: [],
    viewers: 3,
    rate: { chunks: 12.4, bytes: 1200.5 },
    sent: { chunks: 100, bytes: 9000 },
    lag: { seconds: 0.004, chunks: 1, viewers: 0 },
    skipped: 0,
    publications: 1,
    connections: { open: 5, half_open: 0, requests: 3, sessions: 2 },
    transports: [{ protocol: "http3", open: 5, viewers: 1 }, { protocol: "webtransport", open: 2, viewers: null }],
    refused: [{ reason: "unauthorized", text: "no valid token was sent", count: 7 }],
    certificate: {
      names: ["localhost"], kind: "made", issuer: "CN=h3cast on localhost",
      not_before: "2026-11-25T22:00:00Z", not_after: "2026-12-08T22:00:00Z",
    },
    memory: { used: 42_000_000, limit: 1_000_000_000, pressure: "low", viewers_cut: 0 },
    feeds: {
      total: 1, open: 1, ended: 0, failed: 0, stalled: 0, matching: 1,
      list: [{ name: "log", kind: "live", state: "open", error: null, viewers: 3, rate: { chunks: 1, bytes: 9 }, skipped: 0, lag: null }],
    },
    ...changes,
  };
}

/** @param {(request: unknown) => unknown} answer */
function polled(answer, changes = {}) {
  const env = new FakeEnv({ href: "http://localhost:8080/status", routes: { "/status/data": answer }, ...changes });
  const seen = { status: [], trouble: [] };
  const poll = new StatusPoll(env, () => dataUrl(env.href, { text: "", sort: "viewers" }), {
    status: (status) => seen.status.push(status),
    trouble: (trouble) => seen.trouble.push(trouble),
  });
  return { env, poll, seen };
}

/** The one question that is due, and when. */
function due(env) {
  const timers = [...env.timers.values()];
  assert.equal(timers.length, 1);
  return timers[0];
}

test("the page has what its modules look for, and nothing that its policy refuses", () => {
  const html = read("status.html");
  const ids = [...html.matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id);
  assert.equal(new Set(ids).size, ids.length);
  const modules = ["status", "status-view"].map((name) => read(`js/page/${name}.mjs`)).join("");
  const wanted = [...modules.matchAll(/(?:byId|setText|fillRows|fillFacts)\("([^"]+)"/g)].map(([, id]) => id);
  assert.ok(wanted.length > 20);
  for (const id of wanted) assert.ok(ids.includes(id), id);
  for (const [, , id] of html.matchAll(/\s(for|aria-labelledby)="([^"]+)"/g)) assert.ok(ids.includes(id), id);
  assert.doesNotMatch(html, /<style|\sstyle=|\son[a-z]+=|javascript:|data:|<script(?![^>]*\ssrc=)/i);
  // Its files come with it, whatever page the server has otherwise; elsewhere it links to what the server reports.
  for (const [, target] of html.matchAll(/(?:src|href)="([^"#]+)"/g)) {
    if ([".", "metrics", "feeds", "status/data"].includes(target)) continue;
    assert.match(target, /^status\//);
    assert.ok(existsSync(new URL(target.slice("status/".length), STATIC)), target);
  }
  for (const [table] of html.matchAll(/<table[^]*?<\/table>/g)) {
    assert.match(table, /<caption/);
    assert.match(table, /<th scope="col"/);
  }
});

test("numbers and times in words", () => {
  const durations = [[0, "0 seconds"], [1, "1 second"], [61, "1 minute 1 second"], [3600, "1 hour"], [273_900, "3 days 4 hours"]];
  for (const [seconds, text] of durations) assert.equal(duration(seconds), text);
  assert.equal(distance(2 * 86_400_000, 0), "in 2 days");
  assert.equal(distance(0, 60_000), "1 minute ago");
  assert.deepEqual([0, 12.6, 1234.5, 2_000_000].map(byteRate), ["0 B/s", "13 B/s", "1.2 kB/s", "2.0 MB/s"]);
  assert.deepEqual([0, 0.04, 0.25, 9.94, 12_345.6].map(perSecond), ["0/s", "< 0.1/s", "0.3/s", "9.9/s", "12,346/s"]);
  assert.deepEqual([0, 0.0042, 0.9, 3.14, 61].map(delay), ["0 ms", "4 ms", "900 ms", "3.1 s", "1 minute 1 second"]);
  assert.deepEqual([percent(0, 10), percent(1, 1000), percent(1, 3), percent(1, 0)], ["0 %", "< 1 %", "33 %", "–"]);
});

test("what is said of feeds", () => {
  const { feeds } = parseStatus(statusDocument());
  const of = (changes) => ({ ...feeds, ...changes });
  assert.equal(states(feeds), "1 open");
  assert.equal(states(of({ total: 0 })), "none yet");
  assert.equal(states(of({ total: 1004, states: { open: 1000, ended: 1, failed: 2, stalled: 1 } })), "1,000 open, 2 failed, 1 stalled, 1 ended");
  const all = { text: "", sort: "viewers" };
  assert.equal(note(feeds, all), "");
  assert.match(note(of({ total: 1000, matching: 1000 }), all), /^The first 1 of 1,000, by viewers\./);
  assert.match(note(of({ total: 1000, matching: 40 }), { text: "chat", sort: "rate" }), /^The first 1 of 40 with “chat” in the name, by rate\./);
  assert.equal(note(of({ total: 9, matching: 0, list: [] }), { text: "x", sort: "rate" }), "No feed has “x” in its name.");
  assert.equal(state({ state: "failed", error: "exit status: 3" }), "failed: exit status: 3");
  // Whatever the cause is: NATS, a stream that is missing, a full disk.
  assert.equal(state({ state: "stalled", error: "" }), "stalled: the server cannot receive or store new chunks");
  const url = (choice) => dataUrl("http://localhost:8080/live/status?x=1#y", choice);
  assert.equal(url(all), "http://localhost:8080/live/status/data?limit=20");
  assert.equal(url({ text: "a&b", sort: "name" }), "http://localhost:8080/live/status/data?limit=20&sort=name&match=a%26b");
});

test("an answer is checked member by member", () => {
  const status = parseStatus(statusDocument({ more: "of a later version" }));
  assert.deepEqual([status.uptime, status.connections?.sessions, status.certificate?.notAfter], [90.5, 2, Date.UTC(2026, 11, 8, 22)]);
  const bare = parseStatus(statusDocument({ connections: null, transports: null, sent: null, lag: null, refused: null, certificate: null, memory: null }));
  const { connections, transports, sent, lag, refused, certificate, memory } = bare;
  assert.deepEqual(new Set([connections, transports, sent, lag, refused, certificate, memory]), new Set([null]));
  for (const changes of [{ viewers: "3" }, { feeds: [] }, { time: "now" }, { unready: null }, { memory: { used: 1 } }]) {
    assert.throws(() => parseStatus(statusDocument(changes)), BadStatus, JSON.stringify(changes));
  }
});

test("what counters have grown in the last minute", () => {
  const recent = new Recent();
  const add = (seconds, a) => recent.add(seconds * 1000, new Map(a === undefined ? [] : [["a", a]]));
  add(0);
  assert.equal(recent.of("a"), 0);
  add(10, 5);
  assert.equal(recent.of("a"), 5);
  add(40, 7);
  add(69, 8);
  assert.equal(recent.of("a"), 8);
  add(70, 8);
  assert.equal(recent.of("a"), 3, "what was before the minute does not count");
  add(120, 8);
  add(131, 9);
  assert.equal(recent.of("a"), 1);
  // The page was paused or hidden: what came meanwhile is not of the last minute.
  add(132 + 3600, 5000);
  assert.deepEqual([recent.of("a"), recent.rate("a")], [0, null]);
  add(134 + 3600, 5003);
  assert.deepEqual([recent.of("a"), recent.rate("a")], [3, 1.5]);
  // The server was started again.
  add(136 + 3600, 2);
  assert.deepEqual([recent.of("a"), recent.rate("a")], [0, null]);
  add(140 + 3600, 22);
  assert.equal(recent.rate("a"), 5);
});

test("it asks every two seconds, one question at a time, and not while nobody looks", async () => {
  const answers = [deferred(), deferred()];
  let asked = 0;
  const { env, poll, seen } = polled(() => answers[asked++].promise);
  poll.want(true);
  await settled();
  assert.equal(asked, 1);
  assert.equal(due(env).ms, 10_000, "an answer is awaited, and no other question is due");
  answers[0].resolve(json(statusDocument()));
  await settled();
  assert.equal(seen.status.length, 1);
  assert.equal(due(env).ms, PAUSE_MS);
  due(env).callback();
  await settled();
  assert.equal(asked, 2);
  // Hidden while a question is open: its answer is not shown, and no other is asked.
  poll.want(false);
  answers[1].resolve(json(statusDocument()));
  await settled();
  assert.deepEqual([seen.status.length, seen.trouble.length, asked], [1, 0, 2]);
  assert.equal(env.timers.size, 0);
});

test("seen again, or with another choice, it asks at once", async () => {
  const { env, poll, seen } = polled(() => json(statusDocument()));
  poll.want(true);
  await settled();
  poll.want(false);
  assert.equal(env.timers.size, 0);
  poll.want(true);
  await settled();
  poll.now();
  await settled();
  assert.equal(seen.status.length, 3);
  assert.equal(due(env).ms, PAUSE_MS);
});

test("a server that does not answer is asked more and more rarely, until it does", async () => {
  let down = true;
  const { env, poll, seen } = polled(() => {
    if (down) throw new TypeError("Failed to fetch");
    return json(statusDocument());
  });
  poll.want(true);
  const waits = [];
  for (let i = 0; i < 10; i += 1) {
    await settled();
    waits.push(due(env).ms);
    env.timers.clear();
    poll.now();
  }
  assert.ok(waits.every((wait) => wait > PAUSE_MS) && waits.at(-1) >= 7500, String(waits));
  assert.deepEqual(new Set(seen.trouble.map(({ kind }) => kind)), new Set(["unreachable"]));
  down = false;
  await settled();
  env.timers.clear();
  poll.now();
  await settled();
  assert.equal(seen.status.length, 1);
  assert.equal(due(env).ms, PAUSE_MS, "and then as before");
});

test("each kind of refusal is told from the others", async () => {
  const problem = (status, detail, headers = {}) =>
    new Response(JSON.stringify({ status, detail }), { status, headers: { "content-type": "application/problem+json", ...headers } });
  for (const [answer, kind, otherToken, wait] of [
    [problem(401, "a token is needed", { "www-authenticate": "Bearer" }), "token", false],
    [problem(403, "this token may not", { "www-authenticate": 'Bearer error="insufficient_scope"' }), "token", true],
    [problem(403, "this machine only"), "refused", false, 15_000],
    [problem(404, "there is nothing"), "refused", false, 15_000],
    [problem(503, "try again later", { "retry-after": "5" }), "busy", false, 7500],
    // As long as a refusal's, but with the jitter that keeps pages from coming back all at once.
    [problem(503, "try again later", { "retry-after": "15" }), "busy", false, 15_001],
    [new Response("<p>", { status: 200 }), "strange", false, 2000],
    [json({ version: 1 }), "strange", false, 2000],
  ]) {
    const { env, poll, seen } = polled(() => answer.clone());
    poll.want(true);
    await settled();
    await settled();
    assert.deepEqual(seen.trouble.map((one) => [one.kind, one.otherToken]), [[kind, otherToken]], kind);
    // A token comes by hand; nothing is asked before.
    if (wait === undefined) assert.equal(env.timers.size, 0, kind);
    else assert.ok(due(env).ms >= wait, `${kind}: ${due(env).ms}`);
    if (kind !== "strange") assert.equal(seen.trouble[0].text, (await answer.json()).detail);
  }
});
