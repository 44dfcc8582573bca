// What the page keeps, how much of it, and how it is found again.
import assert from "node:assert/strict";
import { test } from "node:test";
import { describe } from "../../static/js/page/feed-picker.mjs";
import { FeedsPoll, POLL_MS, parseFeeds } from "../../static/js/client/feeds.mjs";
import { Search } from "../../static/js/page/search.mjs";
import { MAX_BYTES, MAX_ENTRIES, Store } from "../../static/js/page/store.mjs";
import { FakeEnv, bytes, json, settled } from "./fakes.mjs";

const chunk = (seq, text) => ({ seq, micros: 1000 + seq, at: seq, gap: seq === 0 ? null : 1, bytes: typeof text === "string" ? bytes(text) : text });
function stored(texts, ...limits) {
  const store = new Store(...limits);
  texts.forEach((text, seq) => store.add(chunk(seq, text)));
  return store;
}
const texts = (store) => Array.from({ length: store.end - store.first }, (_, i) => store.text(store.first + i));
const all = async (store) => new Uint8Array(await store.blob().arrayBuffer());

test("what is kept is what came, to the byte", async () => {
  const store = stored(["one\n", "", "żółć\n", Uint8Array.of(0, 255, 27, 10)]);
  assert.deepEqual([...await all(store)], [...bytes("one\nżółć\n"), 0, 255, 27, 10]);
  const entry = store.entry(2);
  assert.deepEqual(
    { ...entry, gap: entry.gap }, { index: 2, mark: undefined, seq: 2, micros: 1002, at: 2, gap: 1, size: 9, style: 0, text: "żółć\n", feed: undefined });
  assert.equal(store.entry(0).gap, null);
  assert.equal(store.entry(4), undefined);
});

test("the oldest go when there is no room, and are counted", async () => {
  const store = stored(Array.from({ length: 100 }, (_, i) => `line ${String(i).padStart(2, "0")}\n`), 80, 1000);
  assert.ok(store.bytes <= 80 && store.bytes > 60);
  assert.equal(texts(store).at(-1), "line 99\n");
  assert.equal(store.dropped.chunks, store.first);
  assert.equal(store.dropped.bytes + store.bytes, 800);
  assert.equal(Buffer.from(await all(store)).toString(), texts(store).join(""));
  assert.equal(store.entry(store.first - 1), undefined);
});

test("so many at most, however small; marks count too", () => {
  const store = stored(Array(10).fill("x"), 1000, 4);
  store.mark({ kind: "gap", text: "3 are missing" });
  assert.deepEqual([store.end - store.first, store.dropped.chunks], [4, 7]);
  assert.equal(store.entry(store.end - 1).mark.text, "3 are missing");
  for (let i = 0; i < 4; i += 1) store.add(chunk(i, "y"));
  assert.deepEqual(texts(store), ["y", "y", "y", "y"]);
  assert.equal(store.dropped.chunks, 10, "a mark is no chunk");
});

test("random sizes in a small ring: never more than it holds, never anything but what came", async () => {
  let seed = 7;
  const random = (below) => (seed = (seed * 48271) % 2147483647) % below;
  const store = new Store(500, 40);
  const came = [];
  for (let seq = 0; seq < 3000; seq += 1) {
    const text = String.fromCharCode(97 + (seq % 26)).repeat(random(120));
    came.push(text);
    store.add(chunk(seq, text));
    assert.ok(store.bytes <= 500 && store.end - store.first <= 40);
    assert.deepEqual(texts(store), came.slice(came.length - (store.end - store.first)));
  }
  assert.equal(Buffer.from(await all(store)).toString(), texts(store).join(""));
});

test("a character that is cut in two is shown whole, and the bytes stay in order", async () => {
  const crab = bytes("🦀");
  const store = stored([crab.slice(0, 1), crab.slice(1, 3), crab.slice(3), "a\x1b[3", "1mred", bytes("€").slice(0, 2)]);
  assert.deepEqual(texts(store), ["", "", "🦀", "a", "\x1b[31mred", ""]);
  assert.deepEqual(Buffer.from(await all(store)), Buffer.concat([crab, bytes("a\x1b[31mred"), bytes("€").slice(0, 2)]));
  store.flush();
  assert.deepEqual(texts(store).at(-1), "\uFFFD");
  assert.deepEqual(Buffer.from(await all(store)), Buffer.concat([crab, bytes("a\x1b[31mred"), bytes("€").slice(0, 2)]));
});

test("a style goes on to the next chunk, and not over a gap", () => {
  const store = stored(["\x1b[31mred", "still red"]);
  assert.ok(store.entry(1).style !== 0);
  store.mark({ kind: "gap", text: "" });
  store.add(chunk(3, "plain"));
  assert.equal(store.entry(3).style, 0);
});

test("the bounds are those that are stated", () => {
  assert.deepEqual([MAX_BYTES, MAX_ENTRIES], [16_000_000, 50_000]);
  const store = stored(["x".repeat(70_000)]);
  for (let seq = 1; seq < 500; seq += 1) store.add(chunk(seq, "x".repeat(70_000)));
  assert.ok(store.bytes <= MAX_BYTES && store.bytes > MAX_BYTES - 200_000);
});

test("search: whatever the case, without escapes, a little at a time", () => {
  const store = stored(Array.from({ length: 1000 }, (_, i) => (i % 10 === 3 ? `an \x1b[31mERR\x1b[0mor ${i}\n` : `line ${i}\n`)));
  const search = new Search(store);
  search.ask("Error");
  let time = 0;
  search.work(1, () => (time += 1));
  assert.ok(search.due && search.count > 0 && search.count < 100, "not all at once");
  while (search.due) search.work(1, () => (time += 1));
  assert.equal(search.count, 100);
  assert.equal(search.place, 0);
});

test("search: up and down and around, from where one looks", () => {
  const store = stored(["a", "x", "a", "x", "a", "x"]);
  const search = new Search(store);
  search.ask("a");
  search.work(1, () => 0);
  assert.equal(search.go(-1, 6), 4);
  assert.deepEqual([search.place, search.go(-1, 0), search.go(-1, 0), search.go(-1, 0)], [3, 2, 0, 4]);
  assert.deepEqual([search.go(1, 0), search.go(1, 0)], [0, 2]);
  search.ask("a");
  search.work(1, () => 0);
  assert.equal(search.go(1, 1), 2, "nearest first");
  search.ask("nothing");
  search.work(1, () => 0);
  assert.deepEqual([search.go(1, 0), search.count], [undefined, 0]);
});

test("search goes on with what comes, and forgets what goes", () => {
  const store = stored(["a1", "b", "a2"], 1000, 3);
  const search = new Search(store);
  search.ask("a");
  search.work(1, () => 0);
  search.go(1, -1);
  assert.deepEqual([search.count, search.place], [2, 1]);
  store.add(chunk(3, "a3"));
  assert.ok(search.due);
  search.work(1, () => 0);
  assert.deepEqual([search.count, search.place], [2, 0], "the first is no longer kept");
  store.clear();
  search.ask("");
  assert.equal(search.due, false);
});

const feed = (changes) => ({
  name: "default", kind: "live", state: "open", error: null, viewers: 2, chunks: 7, bytes: 70, kept_bytes: 50, skipped: 0, epoch: "19a1b2c", ...changes,
});

test("/feeds: what is there is read, what is not is no error", () => {
  const [full, bare] = parseFeeds({ feeds: [feed({ rate: { chunks: 12.5, bytes: 4096 } }), { name: "x" }] });
  assert.deepEqual(full, {
    name: "default", kind: "live", state: "open", error: undefined, viewers: 2, everywhere: undefined, servers: undefined, chunks: 7, keptBytes: 50, storedBytes: undefined, epoch: "19a1b2c", writable: false, input: false, rate: { chunks: 12.5, bytes: 4096 },
    stalled: false, trouble: undefined,
  });
  assert.deepEqual([bare.state, bare.rate, bare.epoch, bare.chunks], ["open", undefined, undefined, undefined]);
  assert.deepEqual([bare.stalled, bare.trouble], [false, undefined]);
  assert.throws(() => parseFeeds({ feeds: [{}] }), /feeds\[0\]\.name/);
});

test("what the server says of a feed, in a line", () => {
  const [full, failed, bare] = parseFeeds({ feeds: [
    feed({ rate: { chunks: 12.5, bytes: 4096 } }), feed({ state: "failed", error: "exit code 3", viewers: 0, kept_bytes: 0 }), { name: "x" },
  ] });
  assert.equal(describe(full), "default: live · open · 2 viewers · 7 chunks · 13 chunks/s · 4.1 kB/s · 50 B in the server's memory");
  assert.equal(describe(failed), "default: live · failed (exit code 3) · 0 viewers · 7 chunks");
  assert.equal(describe(bare), "x · open");
  // What is in memory is there, too, or has just left it.
  const [onDisk, soon] = parseFeeds({ feeds: [feed({ stored_bytes: 4096 }), feed({ stored_bytes: 0, epoch: null })] });
  assert.equal(describe(onDisk), "default: live · open · 2 viewers · 7 chunks · 4.1 kB on the server's disk");
  assert.equal(describe(soon), "default: live · open · 2 viewers · 7 chunks");
  assert.equal(soon.epoch, undefined);
  const [shared, alone] = parseFeeds({ feeds: [
    { name: "a", viewers: 2, viewers_everywhere: 12, servers: 3 }, { name: "b", viewers: 2, viewers_everywhere: 2, servers: 1 },
  ] });
  const why = "the stream LOGS does not exist";
  const troubled = parseFeeds({ feeds: [
    feed({ stalled: true, trouble: why, chunks: 0, viewers: 0, kept_bytes: 0 }), feed({ stalled: true, trouble: null, viewers: 0, kept_bytes: 0 }),
    feed({ trouble: why, viewers: 0, kept_bytes: 0 }), feed({ state: "ended", stalled: true, trouble: why, viewers: 0, kept_bytes: 0 }),
  ] });
  // Whether it is empty is not known: what stores it cannot be asked.
  assert.deepEqual(troubled.map(describe), [
    `default: live · stalled (${why}) · 0 viewers`, "default: live · stalled · 0 viewers · 7 chunks",
    `default: live · not ready (${why}) · 0 viewers · 7 chunks`, `default: live · ended, stalled (${why}) · 0 viewers · 7 chunks`,
  ]);
  assert.deepEqual([shared, alone].map(describe), ["a · open · 12 viewers on 3 servers", "b · open · 2 viewers"]);
});

test("/feeds is asked for while the page is seen, and less often where it fails", async () => {
  const env = new FakeEnv();
  let fails = false;
  env.routes["/feeds"] = () => (fails ? Promise.reject(new TypeError("gone")) : json({ feeds: [feed()] }));
  const seen = [];
  const poll = new FeedsPoll(env, (feeds) => seen.push(feeds.length));
  const asked = () => env.requests.filter(({ url }) => url.endsWith("/feeds")).length;
  poll.see(true);
  poll.see(true);
  await settled();
  await settled();
  assert.deepEqual([asked(), seen], [1, [1]]);
  env.tick(POLL_MS);
  await settled();
  assert.equal(asked(), 2);
  fails = true;
  env.tick(POLL_MS);
  await settled();
  env.tick(POLL_MS);
  await settled();
  assert.equal(asked(), 3, "not again so soon");
  env.tick(POLL_MS);
  await settled();
  assert.equal(asked(), 4);
  poll.see(false);
  env.tick(600_000);
  await settled();
  assert.equal(asked(), 4, "nobody sees it");
});

test("what another store had goes on here as it was, also within a character and a colour", () => {
  const from = new Store();
  from.mark({ kind: "gap", text: "gone" }, 1);
  from.add(chunk(0, "\x1b[31mred "), 1);
  from.add(chunk(1, Uint8Array.of(0x7a, 0xc5)), 1);
  // One that had been cut for good.
  from.add(chunk(0, Uint8Array.of(0xe2)), 0);
  from.mark({ kind: "lost", text: "lost" }, 0);
  const to = new Store();
  for (let id = from.first; id < from.end; id += 1) to.restore(from.raw(id), 0);
  to.goOn(0, from.rest(1));
  to.add(chunk(2, Uint8Array.of(0xbc, 0x21)), 0);
  assert.deepEqual(texts(to), ["", "\x1b[31mred ", "z", "", "\ufffd", "", "ż!"]);
  const entries = [1, 2, 6].map((i) => to.entry(to.first + i));
  assert.deepEqual(entries.map(({ seq, size }) => [seq, size]), [[0, 9], [1, 2], [2, 2]]);
  assert.equal(entries[1].style, entries[2].style, "red");
  assert.notEqual(entries[0].style, entries[2].style);
});
