// What a log is filtered by, how bad a line is, and what is shown of what is kept.
import assert from "node:assert/strict";
import { test } from "node:test";
import { hasPattern, parseFilter } from "../../static/js/page/filter.mjs";
import { levelOf } from "../../static/js/page/level.mjs";
import { Matcher } from "../../static/js/page/matcher.mjs";
import { Sieve } from "../../static/js/page/sieve.mjs";
import { Store } from "../../static/js/page/store.mjs";
import { bytes } from "./fakes.mjs";

const passes = (query, texts) => texts.filter((text) => (parseFilter(query).test ?? (() => true))(text));

test("text, words, quotes, regular expressions, and what is left out", () => {
  const texts = ["GET /a 200", "GET /b 500 timed out", "POST /a 200", "out of time", "level=warn slow"];
  assert.deepEqual(passes("", texts), texts);
  assert.deepEqual(passes("  - ! ", texts), texts);
  assert.deepEqual(passes("get", texts), texts.slice(0, 2), "whatever the case");
  assert.deepEqual(passes("get -500", texts), [texts[0]]);
  assert.deepEqual(passes("!GET !POST", texts), texts.slice(3));
  assert.deepEqual(passes('"timed out"', texts), [texts[1]]);
  assert.deepEqual(passes("/^(GET|POST) .a/", texts), [texts[0], texts[2]]);
  assert.deepEqual(passes("-/^(get|post)/i time", texts), [texts[3]]);
  assert.deepEqual(passes("/a", texts), [texts[0], texts[2]], "a path is a text");
  assert.deepEqual(passes("level:warn", texts), [texts[4]]);
  const { test: none, error } = parseFilter("/(/");
  assert.equal(none, undefined);
  assert.match(error, /\(/);
});

test("levels as the usual loggers have them", () => {
  for (const [level, ...lines] of [
    ["error", "2026-11-27T06:00:00Z ERROR upstream", '{"ts":1,"level":"error","msg":"x"}', "level=error msg=x", "[error] no file", "error: no file", "<11>x", "E0312 10:00:00.1 x", '{"level":50}', "a.c:3: error: x".replace("a.c:3: ", "cc: ")],
    ["warn", "WARN x", "12:00 [WARNING] x", '{"severity":"WARNING"}', "warning: unused", "W0312 10:00:00 x", "<4>x"],
    ["fatal", "FATAL x", "CRITICAL x", "panic: x", '{"level":60}', "<0>x"],
    ["info", "INFO x", "lvl=info x", "NOTICE x", "I0312 10:00:00 x"],
    ["debug", "DEBUG x", '{"level":20}', "<7>x"],
    [undefined, "no error here", "an Error occurred, maybe", "information about it", `${"x ".repeat(200)}ERROR`, "", "{}"],
  ]) for (const line of lines) assert.equal(levelOf(line), level, line);
});

test("a sieve numbers what it shows, with context and marks, and forgets what is no longer kept", () => {
  const store = new Store(10_000, 20);
  const add = (seq, text) => store.add({ seq, micros: 0, at: 0, gap: null, bytes: bytes(text) });
  const sieve = new Sieve(store);
  const shown = () => {
    sieve.work(Infinity, () => 0);
    return Array.from({ length: sieve.end - sieve.first }, (_, i) => sieve.entry(sieve.first + i)).map(({ mark, text, context }) => (mark ? mark.kind : `${context ? "~" : ""}${text}`));
  };
  for (let i = 0; i < 10; i += 1) add(i, i % 5 === 2 ? `hit ${i}` : `line ${i}`);
  assert.equal(sieve.end - sieve.first, 10, "without a filter everything is shown");
  assert.ok(sieve.ask("hit"));
  assert.deepEqual(shown(), ["hit 2", "hit 7"]);
  sieve.context = 1;
  sieve.clear();
  assert.deepEqual(shown(), ["~line 1", "hit 2", "~line 3", "~line 6", "hit 7", "~line 8"]);
  store.mark({ kind: "gap", text: "3 are missing" });
  assert.deepEqual(shown().slice(-2), ["~line 8", "gap"]);
  assert.ok(!sieve.ask("/(/"));
  assert.deepEqual(shown().length, 7, "the one before stays");
  assert.equal(sieve.entry(sieve.at(7)).text, "hit 7");
  const before = sieve.end;
  for (let i = 11; i < 29; i += 1) add(i, "line");
  assert.deepEqual(shown(), ["gap"], "the others are no longer kept");
  assert.equal(sieve.end, before, "and the numbers go on");
});

test("what is filtered is saved to the byte, and a line ends where it is seen to end", async () => {
  const store = new Store(10_000, 20);
  for (const [seq, text] of ["a\n", "b\n", "\x1b[1mab\x1b[0m\n"].entries()) store.add({ seq, micros: 0, at: 0, gap: null, bytes: bytes(text) });
  const sieve = new Sieve(store);
  sieve.ask("/b$/");
  assert.equal(await (await sieve.blob()).text(), "b\n\x1b[1mab\x1b[0m\n");
});

test("a regular expression is known as one, looks at the beginning, and the clock is looked at after each line", () => {
  assert.deepEqual(["/(a+)+$/", "x -/a/i", "/a", '"/a/"', "a"].map(hasPattern), [true, true, false, false, false]);
  assert.equal(parseFilter("/z/").test(`${"a".repeat(4000)}z`), false);
  const store = new Store(10_000, 20);
  for (let seq = 0; seq < 5; seq += 1) store.add({ seq, micros: 0, at: 0, gap: null, bytes: bytes("a\n") });
  const sieve = new Sieve(store);
  sieve.ask("/a/");
  let now = 0;
  sieve.work(6, () => (now += 10));
  assert.equal(sieve.end - sieve.first, 1);
});

test("what has a regular expression is looked at elsewhere, a part at a time, and given up when it is too expensive", async (t) => {
  // However busy the machine is, a part is as large as it may be.
  t.mock.method(performance, "now", () => 0);
  const store = new Store(10_000, 20);
  const add = (seq, text) => store.add({ seq, micros: 0, at: 0, gap: null, bytes: bytes(text) });
  for (let seq = 0; seq < 6; seq += 1) add(seq, `line ${seq}\n`);
  const workers = [];
  const make = () => {
    const worker = { asked: [], ended: false, postMessage: (question) => worker.asked.push(question), terminate: () => (worker.ended = true) };
    workers.push(worker);
    return worker;
  };
  const say = (data) => workers.at(-1).onmessage({ data });
  const sieve = new Sieve(store, new Matcher(make));
  let [more, why] = [0, ""];
  sieve.onMore = () => (more += 1);
  sieve.onStopped = (said) => (why = said);
  assert.ok(sieve.ask("line"));
  sieve.work(Infinity, () => 0);
  assert.deepEqual([sieve.end - sieve.first, workers.length], [6, 0], "words need no worker");

  sieve.ask("/[135]$/ line");
  sieve.work(Infinity, () => 0);
  assert.deepEqual([workers[0].asked, sieve.due, sieve.behind], [[], false, true], "not before it is ready");
  say("ready");
  assert.deepEqual(workers[0].asked, [{ query: "/[135]$/ line", texts: Array.from({ length: 6 }, (_, i) => `line ${i}`) }]);
  let settled = false;
  const all = sieve.settled().then(() => (settled = true));
  say([false, true]);
  await Promise.resolve();
  assert.deepEqual([more, sieve.end - sieve.first, settled], [1, 1, false]);
  assert.deepEqual(workers[0].asked[1].texts, ["line 2", "line 3", "line 4", "line 5"], "the rest is asked at once");
  say([false, true, false, true]);
  await all;
  assert.equal(await (await sieve.blob()).text(), "line 1\nline 3\nline 5\n");

  add(6, "line 6\n");
  sieve.work(Infinity, () => 0);
  sieve.ask("/line/");
  assert.ok(workers[0].ended, "who changes the filter does not wait for the one before");
  sieve.work(Infinity, () => 0);
  say("ready");
  say("failed");
  assert.match(why, /took too long/);
  assert.deepEqual([sieve.filtering, sieve.end - sieve.first, workers[1].ended], [false, 7, true], "everything is shown");
});

test("a worker that does not answer is stopped", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const worker = { postMessage() {}, terminate: t.mock.fn() };
  const matcher = new Matcher(() => worker);
  const stopped = t.mock.fn();
  matcher.ask({ question: { query: "/a/", texts: ["a"] }, answered() {}, stopped });
  t.mock.timers.tick(10_000);
  assert.ok(matcher.busy, "starting it takes as long as it takes");
  worker.onmessage({ data: "ready" });
  t.mock.timers.tick(2000);
  t.mock.timers.tick(200);
  assert.deepEqual([stopped.mock.callCount(), worker.terminate.mock.callCount(), matcher.busy], [1, 1, false]);
});

test("a worker with nothing to do is ended with its log", () => {
  const worker = { postMessage() {}, ended: 0, terminate: () => void (worker.ended += 1) };
  const matcher = new Matcher(() => worker);
  matcher.ask({ question: { query: "/a/", texts: ["a"] }, answered() {}, stopped() {} });
  worker.onmessage({ data: "ready" });
  worker.onmessage({ data: [true] });
  matcher.drop();
  assert.equal(worker.ended, 0, "another filter may want it");
  matcher.end();
  matcher.end();
  assert.equal(worker.ended, 1);
});
