// Several feeds as one log: their order, how long one waits for another, and their names.
import assert from "node:assert/strict";
import { test } from "node:test";
import { COLOURS, coloured } from "../../static/js/page/colours.mjs";
import { FeedLines, stateOf } from "../../static/js/page/feed-lines.mjs";
import { MAX_WAITING, Merge, START_MS, WAIT_MS } from "../../static/js/page/merge.mjs";
import { Store } from "../../static/js/page/store.mjs";
import { page } from "./dom.mjs";
import { bytes } from "./fakes.mjs";

/** A merge by a clock that the test turns. */
function merging(feeds) {
  const given = [];
  let [now, timer] = [0, undefined];
  const merge = new Merge(feeds, (item, feed) => given.push(`${feed}${item}`), {
    now: () => now,
    setTimer: (callback, ms) => {
      timer = { callback, at: now + ms };
      return 1;
    },
    clearTimer: () => {
      timer = undefined;
    },
  });
  const pass = (ms) => {
    const until = now + ms;
    while (timer !== undefined && timer.at <= until) {
      const { callback, at } = timer;
      now = at;
      timer = undefined;
      callback();
    }
    now = until;
  };
  return { merge, given, pass };
}

/** The same, with feeds that are open and whose histories have come. */
function running(feeds) {
  const all = merging(feeds);
  for (let feed = 0; feed < feeds; feed += 1) all.merge.opened(feed);
  all.pass(START_MS);
  return all;
}

test("chunks come in the order of publication, whichever feed is slower", () => {
  const { merge, given, pass } = running(2);
  merge.add(0, 10, "a", 1);
  merge.add(0, 30, "c", 1);
  assert.deepEqual(given, [], "the other may still have an older one");
  pass(100);
  merge.add(1, 20, "b", 1);
  assert.deepEqual(given, ["0a", "1b"], "and at once when it has none");
  pass(WAIT_MS);
  assert.deepEqual(given, ["0a", "1b", "0c"], "a silent feed holds nothing up for longer");
  assert.equal(merge.waiting, 0);
});

test("a chunk that comes too late stands where it came, in the order of its feed", () => {
  const { merge, given, pass } = running(2);
  merge.add(0, 50, "new", 1);
  pass(WAIT_MS + 25);
  merge.add(1, 10, "late", 1);
  merge.add(1, 5, "later", 1);
  assert.deepEqual(given, ["0new", "1late", "1later"]);
});

test("a feed that has ended or lost its connection is not waited for", () => {
  const { merge, given, pass } = running(3);
  merge.over(1);
  merge.over(2);
  merge.add(0, 10, "a", 1);
  assert.deepEqual(given, ["0a"]);
  merge.opened(2);
  merge.add(0, 20, "b", 1);
  assert.deepEqual(given, ["0a"]);
  pass(WAIT_MS + 25);
  assert.deepEqual(given, ["0a", "0b"]);
});

test("histories are merged, though one feed opens later; a feed that never does holds the others up for so long", () => {
  const { merge, given, pass } = merging(3);
  merge.opened(0);
  for (const [time, item] of [[1, "a"], [3, "c"]]) merge.add(0, time, item, 1);
  pass(1000);
  merge.opened(1);
  for (const [time, item] of [[2, "b"], [4, "d"]]) merge.add(1, time, item, 1);
  assert.deepEqual(given, []);
  merge.over(2);
  pass(WAIT_MS + 25);
  assert.deepEqual(given, ["0a", "1b", "0c", "1d"]);

  const never = merging(2);
  never.merge.opened(0);
  never.merge.add(0, 1, "a", 1);
  never.pass(START_MS - 1);
  assert.deepEqual(never.given, []);
  never.pass(26);
  assert.deepEqual(never.given, ["0a"]);
});

test("no more wait than there is room for, and the end gives all", () => {
  const { merge, given } = running(2);
  for (let i = 0; i < MAX_WAITING + 5; i += 1) merge.add(0, i, "", 1);
  assert.equal(merge.waiting, MAX_WAITING);
  assert.equal(given.length, 5);
  merge.add(1, 7, "", 9_000_000);
  assert.ok(merge.waiting < MAX_WAITING);
  merge.end();
  assert.deepEqual([merge.waiting, given.length], [0, MAX_WAITING + 6]);
});

test("each feed keeps its colour, and no two have the same while there are enough", () => {
  const names = ["web", "db", "api", "worker", "cron", "mail", "cache", "auth"];
  const all = coloured(names);
  assert.deepEqual([...new Set(all.map(({ colour }) => colour))].sort(), Array.from({ length: COLOURS }, (_, i) => i + 1));
  assert.deepEqual(coloured(["web"]), [all[0]]);
  assert.equal(coloured([...names, "more"]).length, 9);
});

test("several states as one", () => {
  assert.equal(stateOf(["streaming", "done"]), "streaming");
  assert.equal(stateOf(["streaming", "reconnecting"]), "reconnecting");
  assert.equal(stateOf(["done", "error"]), "error");
  assert.equal(stateOf(["done", "done"]), "done");
});

test("in a store of several feeds each goes on by itself: characters, colours, and names in the download", async () => {
  const store = new Store(10_000, 20);
  store.clear(coloured(["web", "db"]));
  const add = (source, seq, text) => store.add({ seq, micros: 1, at: 1, gap: null, bytes: typeof text === "string" ? bytes(text) : text }, source);
  const cut = bytes("\x1b[31mż\n");
  add(0, 0, cut.slice(0, 6));
  add(1, 0, "plain\n");
  add(0, 1, cut.slice(6));
  store.mark({ kind: "gap", text: "1 chunk is missing" }, 1);
  const entries = [0, 1, 2, 3].map((i) => store.entry(i));
  assert.deepEqual(entries.map(({ feed, text, style }) => [feed.name, text, style !== 0]), [
    ["web", "\x1b[31m", false], ["db", "plain\n", false], ["web", "ż\n", true], ["db", "", false],
  ]);
  assert.equal(await store.blob().text(), "web | \x1b[31m\ndb | plain\nweb | ż\n");
});

test("what is tried next is told of each feed by its name, and of those that still wait when one is back", () => {
  page();
  const seen = [];
  const panel = { clear() {}, setState() {} };
  const retry = {
    show: (error, waitMs, attempt) => seen.push(`${error.message} ${Math.ceil(waitMs)} ${attempt}`),
    trying: (attempt, feed) => seen.push(`${feed} tried ${attempt}`),
    hide: () => seen.push("hidden"),
  };
  const states = new FeedLines(coloured(["web", "db"]), panel, retry);
  const [web, db] = states.lines.map((line) => states.retryOf(line));
  seen.length = 0;
  web.show(new Error("gone"), 0, 1);
  db.show(new Error("away"), 0, 2);
  db.trying(2);
  db.hide();
  web.trying(1);
  web.hide();
  assert.deepEqual(seen, ["web: gone 0 1", "db: away 0 2", "db tried 2", "web: gone 0 1", "web tried 1", "hidden"]);
});
