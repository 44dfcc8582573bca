// What the page shows, as far as it can be told without a page.
import assert from "node:assert/strict";
import { test } from "node:test";
import { HIDDEN_FLUSH_MS, batch } from "../../static/js/page/batch.mjs";
import { ClientError, asClientError, refused, sessionFailed, unreachable } from "../../static/js/client/errors.mjs";
import { ms, pathName, plural, size } from "../../static/js/client/format.mjs";
import { Keep } from "../../static/js/page/keep.mjs";
import { MAX_SAMPLES, Samples, bars, describe, scaleTop } from "../../static/js/page/plot.mjs";

/** A clock whose frames and timers fire when the test says so. */
function handClock() {
  const frames = new Map();
  const timers = new Map();
  let handle = 0;
  return {
    frames, timers,
    requestFrame: (callback) => (frames.set((handle += 1), callback), handle),
    cancelFrame: (id) => frames.delete(id),
    setTimer: (callback, ms) => (timers.set((handle += 1), { callback, ms }), handle),
    clearTimer: (id) => timers.delete(id),
  };
}

test("a burst is drawn once, at the next frame", () => {
  const clock = handClock();
  let drawn = 0;
  const { schedule } = batch(() => (drawn += 1), clock);
  schedule();
  schedule();
  assert.equal(drawn, 0);
  assert.equal(clock.frames.size, 1);
  [...clock.frames.values()][0]();
  assert.equal(drawn, 1);
  assert.equal(clock.timers.size, 0);
});

test("a hidden page, which gets no frames, draws by timer", () => {
  const clock = handClock();
  let drawn = 0;
  const { schedule } = batch(() => (drawn += 1), clock);
  schedule();
  const [{ callback, ms: delay }] = clock.timers.values();
  assert.equal(delay, HIDDEN_FLUSH_MS);
  callback();
  assert.equal(drawn, 1);
  assert.equal(clock.frames.size, 0);
  schedule();
  assert.equal(clock.frames.size, 1);
});

test("flush draws what is due, at once, and nothing if nothing is", () => {
  const clock = handClock();
  let drawn = 0;
  const { schedule, flush } = batch(() => (drawn += 1), clock);
  flush();
  assert.equal(drawn, 0);
  schedule();
  flush();
  assert.deepEqual([drawn, clock.frames.size, clock.timers.size], [1, 0, 0]);
});

test("the log keeps so many rows and counts those it let go", () => {
  const keep = new Keep(3, 1000);
  const out = [1, 1, 1, 1, 1].map((characters) => keep.add(characters));
  assert.deepEqual(out, [0, 0, 0, 1, 1]);
  assert.deepEqual([keep.rows, keep.dropped], [3, 2]);
  keep.clear();
  assert.deepEqual([keep.rows, keep.dropped], [0, 0]);
});

test("the log keeps so much text, and always the newest row", () => {
  const keep = new Keep(100, 10);
  assert.equal(keep.add(6), 0);
  assert.equal(keep.add(4), 0);
  assert.equal(keep.add(5), 1);
  assert.equal(keep.add(50), 2);
  assert.equal(keep.rows, 1);
});

test("the log's bookkeeping does not grow with an endless stream", () => {
  const keep = new Keep(10, 1e6);
  let out = 0;
  for (let i = 0; i < 10_000; i += 1) out += keep.add(1);
  assert.deepEqual([keep.rows, keep.dropped, out], [10, 9990, 9990]);
});

test("the plot keeps the latest times and tells them in words", () => {
  const samples = new Samples();
  assert.equal(samples.stats(), null);
  assert.equal(describe(samples), "");
  for (const value of [100, 98, 104, 101]) samples.add(value);
  assert.deepEqual(samples.stats(), { min: 98, median: 100.5, max: 104 });
  assert.equal(describe(samples), "median 101 ms, from 98.0 ms to 104 ms");
  for (let i = 0; i < MAX_SAMPLES; i += 1) samples.add(5);
  assert.deepEqual([samples.values.length, samples.stats().max], [MAX_SAMPLES, 5]);
});

test("the plot's scale leaves air above the longest time", () => {
  for (const [max, top] of [[0, 1], [0.3, 1], [1, 1.5], [90, 100], [100, 150], [101, 150], [140, 200], [700, 1000]]) {
    assert.equal(scaleTop(max), top, `of ${max}`);
  }
});

test("bars stand on the ground, inside the plot, and never vanish", () => {
  const places = bars([0, 50, 100], 100, 300, 80);
  assert.deepEqual(places.map(({ y, height }) => y + height), [80, 80, 80]);
  assert.deepEqual(places.map(({ height }) => height), [1, 40, 80]);
  const many = bars(Array(120).fill(10), 10, 300, 80);
  assert.ok(many.at(-1).x + many.at(-1).width <= 300);
  assert.ok(many.every(({ width }) => width > 0));
  assert.ok(bars([1], 1, 0, 0).every(({ width }) => width >= 0));
});

test("numbers are short and have their unit", () => {
  assert.deepEqual([0, 9.96, 99.94, 100.4, 9999, 12345, 610_000, 9e6].map(ms), ["0.0 ms", "10.0 ms", "99.9 ms", "100 ms", "9999 ms", "12.3 s", "10.2 min", "2.5 h"]);
  assert.deepEqual([0, 999, 1000, 2_500_000, 7e9].map(size), ["0 B", "999 B", "1.0 kB", "2.5 MB", "7.00 GB"]);
  assert.deepEqual([plural(1, "read"), plural(1234, "read")], ["1 read", "1,234 reads"]);
  assert.deepEqual([pathName("fetch", "h3"), pathName("webtransport", "h3")], ["h3", "h3 (WebTransport)"]);
});

test("every error says what to do", () => {
  const origin = "http://localhost:8080";
  const errors = [
    unreachable("/info", new Error("x")), sessionFailed("https://localhost/", origin, false, undefined),
    ...[400, 403, 404, 429, 500, 503].map((status) => refused("/stream", status, {}, origin)),
    asClientError(new RangeError("odd")), asClientError("odd"),
  ];
  for (const error of errors) {
    assert.ok(error instanceof ClientError);
    assert.match(error.message, /\.$/);
    assert.ok(error.steps.length > 0 && error.steps.every((step) => step.length > 10), error.message);
  }
  assert.equal(asClientError(new RangeError("odd")).said, "RangeError: odd");
  assert.match(sessionFailed("https://localhost/", origin, true, undefined).steps.join(" "), /UDP port 443:/);
});

test("no token is in an error's words", () => {
  const url = "https://localhost:4433/stream/log?format=frames&token=secret&from=now";
  const error = sessionFailed(url, "https://page", true, new SyntaxError(`The URL '${url}' is invalid.`));
  assert.match(error.message, /session with https:\/\/localhost:4433\/stream\/log could not/);
  assert.doesNotMatch([error.message, ...error.steps, error.said].join(" "), /secret/);
  assert.match(error.said, /token=…&from=now' is invalid/);
});
