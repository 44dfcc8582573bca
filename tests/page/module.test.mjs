// The module for everyone: follow() and openFeed(), with a server that the test plays.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { feedAddress } from "../../static/js/client/address.mjs";
import { ClientError, follow, frames, openFeed } from "../../static/js/client/index.mjs";
import { deferred, fakeWebTransport, handDriven, infoDocument, json } from "./fakes.mjs";
import { END, begin, calm, chunk, failed, gap } from "./following.mjs";

const FEED = "http://localhost:8080/stream/log";
const INFO = infoDocument({ feeds: [{ name: "log", url: "https://localhost:4433/stream/log", kind: "live" }], webtransport: null });
const text = (bytes) => new TextDecoder().decode(bytes);

/** A server whose streams the test writes; `connection(i)` waits for the one with that number. */
function server({ info = INFO, allows = () => true } = {}) {
  const connections = [];
  const waiting = [];
  const connection = (i) => (connections[i] ?? (waiting[i] ??= deferred()).promise);
  const fetch = async (url, init) => {
    const { pathname, searchParams } = new URL(url);
    if (!allows(new Headers(init.headers).get("authorization"))) {
      return json({ title: "a token is needed" }, { status: 401, headers: { "content-type": "application/problem+json" } });
    }
    if (pathname === "/info") return json(info);
    const driven = Object.assign(handDriven(), { query: Object.fromEntries(searchParams) });
    waiting[connections.length]?.resolve(driven);
    connections.push(driven);
    return new Response(driven.stream);
  };
  return { fetch, connection, connections };
}

/** Follows, and keeps what it is told. */
function followed(options = {}, url = FEED) {
  const played = server(options.server);
  const told = [];
  const following = follow(url, {
    fetch: played.fetch,
    onChunk: ({ bytes, ...chunk }) => told.push(text(bytes)) && options.each?.(following, chunk),
    onGap: (gap) => told.push(gap),
    onState: (status) => {
      told.push(status.state);
      if (status.state === "reconnecting") following.retryNow();
    },
    ...options.follow,
  });
  return { ...played, following, told };
}

test("an address is taken apart, and what is no feed is refused in words", () => {
  assert.deepEqual(feedAddress("https://a.example/stream"), { server: "https://a.example/", feed: "default", from: undefined, token: undefined, query: {} });
  assert.deepEqual(
    feedAddress("https://a.example:4433/live/stream/b%C3%BCro?from=start&token=t&rate=5&format=raw"),
    { server: "https://a.example:4433/live/", feed: "büro", from: "start", token: "t", query: { rate: "5" } },
  );
  assert.equal(feedAddress("https://a.example/stream/stream").feed, "stream");
  for (const bad of ["/stream", "nonsense", "ftp://a.example/stream", "https://a.example/", "https://a.example/stream/a/b"]) {
    assert.throws(() => follow(bad), TypeError, bad);
  }
  assert.throws(() => follow(`${FEED}?limit=3`), /“limit”/);
  assert.throws(() => follow(FEED, { transport: "pigeon" }), /unknown transport: pigeon/);
});

test("chunks, a gap and the end are told in their order", async () => {
  const f = followed();
  const first = await f.connection(0);
  assert.deepEqual(first.query, { format: "frames", from: "now" });
  for (const frame of [begin(7), chunk(4, "four"), gap(5, 2), chunk(7, "seven"), END]) first.push(frame);
  first.end();
  const { firstAt, duration, ...summary } = await f.following.done;
  assert.deepEqual(summary, { outcome: "ended", chunks: 2, bytes: 9, cursor: "7-7" });
  assert.ok(firstAt >= 0 && duration >= firstAt);
  assert.deepEqual(f.told, ["connecting", "streaming", "four", { missing: 2, restarted: false, reported: true }, "seven", "ended"]);
});

test("a lost connection is resumed after the last chunk", async () => {
  const f = followed();
  const first = await f.connection(0);
  for (const frame of [begin(0x1a), chunk(0, "a"), chunk(1, "b")]) first.push(frame);
  await calm();
  first.fail(new TypeError("network error"));
  const second = await f.connection(1);
  assert.equal(second.query.from, "1a-1");
  for (const frame of [begin(0x1a), chunk(1, "b"), chunk(2, "c"), END]) second.push(frame);
  second.end();
  await f.following.done;
  assert.deepEqual(f.told, ["connecting", "streaming", "a", "b", "reconnecting", "connecting", "streaming", "c", "ended"]);
});

test("a cursor of an earlier page is continued, and a feed that started over since then is told", async () => {
  const f = followed({ follow: { from: "01A-41" } });
  assert.equal(f.following.cursor, "01A-41");
  const first = await f.connection(0);
  assert.equal(first.query.from, "1a-41");
  for (const frame of [begin(0x1b), chunk(0, "new"), END]) first.push(frame);
  first.end();
  assert.equal((await f.following.done).cursor, "1b-0");
  assert.deepEqual(f.told.slice(2, -1), [{ missing: 0, restarted: true, reported: false }, "new"]);
});

test("a feed that fails rejects with its reason, and is not asked for again", async () => {
  const f = followed();
  const first = await f.connection(0);
  for (const frame of [begin(7), chunk(0, "a"), failed("exit status: 3")]) first.push(frame);
  first.end();
  await assert.rejects(f.following.done, (error) => error instanceof ClientError && error.permanent && /exit status: 3/.test(error.message));
  assert.deepEqual(f.told, ["connecting", "streaming", "a", "failed"]);
  assert.equal(f.connections.length, 1);
});

for (const [how, end] of [
  ["stop()", (following) => following.stop()],
  ["the signal", (_, over) => over.abort()],
]) {
  test(`${how} ends it at once, though more has come already`, async () => {
    const over = new AbortController();
    const f = followed({ each: (following) => end(following, over), follow: { signal: over.signal } });
    const first = await f.connection(0);
    first.push(new Uint8Array([...begin(7), ...chunk(0, "a"), ...chunk(1, "b")]));
    const { outcome, cursor } = await f.following.done;
    assert.deepEqual({ outcome, cursor }, { outcome: "stopped", cursor: "7-0" });
    assert.deepEqual(f.told, ["connecting", "streaming", "a", "stopped"]);
    assert.ok(first.cancelled, "the stream was let go");
  });
}

test("a signal that has been given already asks the server for nothing", async () => {
  const f = followed({ follow: { signal: AbortSignal.abort() } });
  assert.equal((await f.following.done).outcome, "stopped");
  assert.equal(f.connections.length, 0);
});

test("a callback that throws ends it, and is not taken for a lost connection", async () => {
  const f = followed({ each: () => { throw new RangeError("of the user's own"); } });
  const first = await f.connection(0);
  first.push(new Uint8Array([...begin(7), ...chunk(0, "a"), ...chunk(1, "b")]));
  await assert.rejects(f.following.done, RangeError);
  assert.deepEqual(f.told, ["connecting", "streaming", "a"]);
});

test("a token is shown; a function is asked for one with the server's reason, and \"\" gives up", async () => {
  const allows = (authorization) => authorization === "Bearer good";
  for (const url of [FEED, `${FEED}?token=good`]) {
    const asked = [];
    const token = url === FEED ? (why) => (asked.push(why), "good") : undefined;
    const f = followed({ server: { allows }, follow: token && { token } }, url);
    const first = await f.connection(0);
    assert.equal(first.query.token, undefined);
    f.following.stop();
    await f.following.done;
    assert.equal(asked.length, url === FEED ? 1 : 0);
    assert.match(asked.join(), url === FEED ? /a token is needed/ : /^$/);
  }
  for (const token of ["bad", () => ""]) {
    const f = followed({ server: { allows }, follow: { token } });
    await assert.rejects(f.following.done, (error) => error instanceof ClientError && error.needsToken);
  }
});

test("openFeed gives the frames of one connection", async () => {
  const played = server();
  const opening = openFeed(FEED, { from: "start", fetch: played.fetch });
  const first = await played.connection(0);
  assert.deepEqual(first.query, { format: "frames", from: "start" });
  for (const frame of [begin(7), chunk(0, "a"), END]) first.push(frame);
  first.end();
  const { stream, transport, close } = await opening;
  const decoder = new frames.FrameDecoder();
  const types = [];
  for await (const bytes of stream) {
    decoder.push(bytes);
    for (let frame = decoder.pop(); frame !== undefined; frame = decoder.pop()) types.push(frame.type);
  }
  close();
  assert.deepEqual([transport, ...types], ["fetch", "begin", "chunk", "end"]);
});

test("openFeed: the signal ends a session that is open already", async () => {
  const WebTransport = fakeWebTransport();
  const over = new AbortController();
  const info = infoDocument({ feeds: INFO.feeds });
  const opening = openFeed(FEED, { transport: "webtransport", WebTransport, fetch: server({ info }).fetch, signal: over.signal });
  while (WebTransport.sessions.length === 0) await calm();
  const [session] = WebTransport.sessions;
  session.open();
  session.give(handDriven().stream);
  const { close } = await opening;
  assert.equal(session.closedByPage, 0);
  over.abort();
  assert.equal(session.closedByPage, 1);
  close();
});

test("a gap's callback that stops it gets no chunk any more", async () => {
  const f = followed({ follow: { onGap: () => f.following.stop() } });
  const first = await f.connection(0);
  first.push(new Uint8Array([...begin(7), ...chunk(0, "a"), ...chunk(3, "d")]));
  const { cursor, chunks } = await f.following.done;
  assert.deepEqual({ cursor, chunks }, { cursor: "7-0", chunks: 1 });
  assert.deepEqual(f.told, ["connecting", "streaming", "a", "stopped"]);
});

test("no token is in the words for a wrong address", () => {
  for (const bad of ["https://h/else?token=secret", "nonsense?a=b&token=secret"]) {
    assert.throws(() => follow(bad), (error) => error instanceof TypeError && !error.message.includes("secret"));
  }
});

test("the package and its guide name the Node that has what the client uses", () => {
  const read = (name) => readFileSync(new URL(`../../${name}`, import.meta.url), "utf8");
  // AbortSignal.any came with 20.3.
  assert.equal(JSON.parse(read("packaging/npm/package.json")).engines.node, ">=20.3");
  assert.match(read("docs/javascript.md"), /From Node 20\.3 on/);
});

test("the package's guide has no link that leads nowhere from there", () => {
  const at = (name) => fileURLToPath(new URL(`../../${name}`, import.meta.url));
  const text = execFileSync("sed", ["-Ef", at("packaging/npm/readme.sed"), at("docs/javascript.md")], { encoding: "utf8" });
  const links = [...text.matchAll(/\]\(([^)]*)\)/g)].map(([, to]) => to);
  assert.deepEqual(links.filter((to) => !/^(https:|#)/.test(to)), []);
  assert.match(text, /frames \(docs\/protocol\.md of h3cast\)/);
  assert.match(readFileSync(at("packaging/npm/pack"), "utf8"), /readme\.sed/);
});

test("what the client says holds outside of a page too", () => {
  const folder = new URL("../../static/js/client/", import.meta.url);
  for (const name of readdirSync(folder)) {
    const code = readFileSync(new URL(name, folder), "utf8").replaceAll(/\/\*[^]*?\*\/|\/\/.*/g, "");
    assert.doesNotMatch(code, /[Tt]his (page|browser|tab)|Press|[Tt]he browser('s)? /, name);
  }
});
