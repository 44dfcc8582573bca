// What a log is filtered by, how bad a line is, and what is shown of what is kept.
import assert from "node:assert/strict";
import { test } from "node:test";
import { hasPattern, parseFilter } from "../../static/js/page/filter.mjs";
import { levelOf } from "../../static/js/page/level.mjs";
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

test("what is filtered is saved to the byte", async () => {
  const store = new Store(10_000, 20);
  for (const [seq, text] of ["a\n", "b\n", "\x1b[1mab\x1b[0m\n"].entries()) store.add({ seq, micros: 0, at: 0, gap: null, bytes: bytes(text) });
  const sieve = new Sieve(store);
  sieve.ask("b");
  assert.equal(await sieve.blob().text(), "b\n\x1b[1mab\x1b[0m\n");
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
