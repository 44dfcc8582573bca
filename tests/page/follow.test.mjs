// Following a feed over connections that break: what is asked, what is told, and when.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Backoff, FIRST_MS, LONGEST_MS, retryAfter } from "../../static/js/backoff.mjs";
import { Follower } from "../../static/js/follow.mjs";
import { Place } from "../../static/js/place.mjs";
import { REST_MS } from "../../static/js/rests.mjs";
import { SILENCE_MS, STALL_MS } from "../../static/js/watchdog.mjs";
import { FakeEnv, bytes, fakeWebTransport, handDriven, infoDocument, json, settled } from "./fakes.mjs";

const frame = (kind, ...payload) => Uint8Array.of(kind, payload.length, ...payload);
const begin = (epoch) => frame(3, epoch);
const chunk = (seq, text = `${seq}`) => frame(0, seq, 0, ...bytes(text));
const gap = (from, missing, restarted = 0) => frame(1, from, missing, restarted);
const END = frame(2, 0);
const failed = (reason) => frame(2, 1, ...bytes(reason));
const BEAT = frame(4);

const calm = async () => {
  for (let i = 0; i < 5; i += 1) await settled();
};

/** A follower whose events are written down, and whose connections the test drives by hand. */
function following(changes = {}, wanted = {}) {
  const env = new FakeEnv(changes);
  const connections = [];
  env.routes["/stream"] ??= (init, url) => {
    const driven = handDriven();
    init.signal.addEventListener("abort", () => {
      try {
        driven.fail(init.signal.reason);
      } catch {
        // It had ended.
      }
    });
    connections.push({ ...driven, from: url.searchParams.get("from"), format: url.searchParams.get("format") });
    return new Response(driven.stream);
  };
  const told = [];
  const names = ["onInfo", "onConnecting", "onOpen", "onBegin", "onPath", "onChunk", "onResumed", "onMissed", "onStalled", "onLost", "onEnded", "onStopped", "onError"];
  const text = (argument) => (argument?.bytes instanceof Uint8Array ? { ...argument, bytes: new TextDecoder().decode(argument.bytes) } : argument);
  const follower = new Follower(env, Object.fromEntries(names.map((name) => [name, (...args) => told.push([name, ...args.map(text)])])));
  const run = follower.start({ choice: "fetch", feed: "default", from: "now", ...wanted });
  const all = (name) => told.filter(([kind]) => kind === name).map(([, ...args]) => args);
  const push = async (i, ...frames) => {
    for (const bytes of frames) connections[i].push(bytes);
    await calm();
  };
  /** The connection breaks, and the wait after it goes by. */
  const lose = async (i) => {
    connections[i].fail(new TypeError("network error"));
    await calm();
    env.tick(LONGEST_MS);
    await calm();
  };
  return { env, connections, told, follower, run, all, push, lose, seqs: () => all("onChunk").map(([{ seq }]) => seq) };
}

test("a feed is asked for as frames, from where the visitor wants, and its end ends it", async () => {
  const f = following({ protocols: { "/info": "h2", "/stream": "h2" } }, { from: "start" });
  await calm();
  assert.deepEqual([f.connections[0].from, f.connections[0].format], ["start", "frames"]);
  await f.push(0, begin(7), chunk(0, "hi"), chunk(1), END);
  f.connections[0].end();
  await f.run;
  assert.deepEqual(f.all("onChunk")[0][0], { seq: 0, micros: 0, at: 0, gap: null, bytes: "hi" });
  assert.deepEqual(f.all("onPath"), [[{ transport: "fetch", protocol: "h2", final: true }]]);
  const [[totals]] = f.all("onEnded");
  assert.deepEqual([totals.chunks, totals.bytes], [2, 3]);
  assert.equal(f.all("onLost").length, 0);
  assert.equal(f.follower.running, false);
  assert.deepEqual([f.env.timers.size, f.env.onlineAgain.size, f.env.observers.size], [0, 0, 0], "nothing is left behind");
});

const LIVE = { feeds: [{ name: "default", url: "https://localhost:4433/stream", kind: "live" }] };
const opens = (epoch, next) => frame(3, epoch, next);

test("at the live edge it is known how much there has been, and whether the feed is empty", async () => {
  for (const published of [0, 3]) {
    const f = following({ routes: { "/info": () => json(infoDocument(LIVE)) } });
    await calm();
    await f.push(0, opens(7, published));
    assert.deepEqual(f.all("onBegin"), [[published]]);
    f.follower.stop();
    await f.run;
  }
});

test("from the oldest chunk, or on demand, the next number says nothing of that", async () => {
  for (const [document, from] of [[infoDocument(LIVE), "start"], [infoDocument(), "now"]]) {
    const f = following({ routes: { "/info": () => json(document) } }, { from });
    await calm();
    await f.push(0, opens(7, 0));
    assert.deepEqual(f.all("onBegin"), []);
    f.follower.stop();
    await f.run;
  }
});

test("the feed's end is the end, though its stream stays open", async (t) => {
  const f = following();
  await calm();
  await f.push(0, begin(7), chunk(0), END);
  t.mock.timers.enable({ apis: ["setTimeout"] });
  assert.equal(f.all("onEnded").length, 0, "it is waited for a moment");
  f.env.tick(1000);
  await calm();
  t.mock.timers.tick(1000);
  await f.run;
  assert.equal(f.all("onEnded").length, 1);
  assert.equal(f.all("onLost").length, 0);
});

test("what failed at its source is said, and not asked for again", async () => {
  const f = following({ protocols: { "/info": "h2", "/stream": "h2" } });
  await calm();
  await f.push(0, begin(7), chunk(0), failed("exit code 3"));
  f.connections[0].end();
  await f.run;
  assert.match(f.all("onError")[0][0].message, /failed at its source: exit code 3\./);
  assert.equal(f.connections.length, 1);
});

test("a stream that ends before the feed does is a loss: it goes on behind the last chunk", async () => {
  const f = following();
  await calm();
  await f.push(0, begin(7), chunk(3), chunk(4));
  f.connections[0].end();
  await calm();
  const [[error, wait, attempt]] = f.all("onLost");
  assert.match(error.message, /cut short/);
  assert.deepEqual([wait, attempt], [FIRST_MS / 2, 1]);
  assert.equal(f.connections.length, 1, "not before the wait is over");
  f.env.tick(wait);
  await calm();
  assert.equal(f.connections[1].from, "7-4");
  await f.push(1, begin(7), chunk(5));
  assert.deepEqual(f.seqs(), [3, 4, 5]);
  assert.deepEqual(f.all("onResumed"), [[undefined]]);
  assert.deepEqual(f.all("onMissed"), []);
  f.follower.stop();
  await f.run;
});

for (const [what, frames, resumed] of [
  ["what the server no longer has", [gap(5, 3), chunk(8)], { missing: 3, restarted: false, told: true }],
  ["a hole that nobody tells of", [chunk(9)], { missing: 4, restarted: false, told: false }],
  ["nothing, on a feed that is silent", [BEAT], undefined],
  ["nothing, when the feed has ended", [END], undefined],
]) {
  test(`after a loss it is told what is missing: ${what}`, async () => {
    const f = following();
    await calm();
    await f.push(0, begin(7), chunk(4));
    await f.lose(0);
    await f.push(1, begin(7));
    assert.equal(f.all("onResumed").length, 0, "not before it is known");
    await f.push(1, ...frames);
    assert.deepEqual(f.all("onResumed"), [[resumed]]);
    f.follower.stop();
    await f.run;
  });
}

test("a feed that was started again: told, shown from its beginning, and followed under its new numbers", async () => {
  const f = following();
  await calm();
  await f.push(0, begin(7), chunk(4));
  await f.lose(0);
  assert.equal(f.connections[1].from, "7-4");
  await f.push(1, begin(9), gap(0, 2, 1), chunk(2), chunk(3));
  assert.deepEqual(f.all("onResumed"), [[{ missing: 2, restarted: true, told: true }]]);
  await f.lose(1);
  assert.equal(f.connections[2].from, "9-3");
  assert.deepEqual(f.seqs(), [4, 2, 3]);
  f.follower.stop();
  await f.run;
});

test("nothing is shown twice, whatever the server sends", async () => {
  const f = following();
  await calm();
  await f.push(0, begin(7), chunk(4), chunk(4), chunk(2), chunk(5));
  await f.lose(0);
  await f.push(1, begin(7), gap(2, 3), chunk(3), chunk(5), chunk(6));
  assert.deepEqual(f.seqs(), [4, 5, 6]);
  assert.deepEqual(f.all("onMissed"), []);
  f.follower.stop();
  await f.run;
});

test("chunks that go by on a connection that lasts are told as they are missed", async () => {
  const f = following();
  await calm();
  await f.push(0, begin(7), chunk(1), gap(2, 3), chunk(5), chunk(8));
  assert.deepEqual(f.all("onMissed"), [[{ missing: 3, restarted: false, told: true }], [{ missing: 2, restarted: false, told: false }]]);
  f.follower.stop();
  await f.run;
});

test("the waits grow to their limit, and begin anew with the first chunk", async () => {
  const f = following({ random: () => 1 });
  await calm();
  await f.push(0, begin(7), chunk(0));
  f.env.routes["/info"] = () => { throw new TypeError("Failed to fetch"); };
  f.connections[0].end();
  await calm();
  for (let i = 0; i < 9; i += 1) {
    f.env.tick(f.all("onLost").at(-1)[1]);
    await calm();
  }
  const waits = f.all("onLost").map(([, wait]) => wait);
  assert.deepEqual(waits, [250, 500, 1000, 2000, 4000, 8000, 15000, 15000, 15000, 15000]);
  f.env.routes["/info"] = () => json(infoDocument());
  f.env.tick(LONGEST_MS);
  await calm();
  await f.push(1, begin(7));
  f.connections[1].end();
  await calm();
  assert.equal(f.all("onLost").at(-1)[1], 15000, "a connection that brings nothing is no reason to hurry");
  f.env.tick(LONGEST_MS);
  await calm();
  await f.push(2, begin(7), chunk(1));
  f.connections[2].end();
  await calm();
  assert.deepEqual(f.all("onLost").at(-1).slice(1, 3), [250, 1]);
  f.follower.stop();
  await f.run;
});

test("a network that is there again, and the visitor, end the wait", async () => {
  for (const hurry of [(f) => f.env.onlineAgain.forEach((callback) => callback()), (f) => f.follower.retryNow()]) {
    const f = following();
    await calm();
    await f.push(0, begin(7), chunk(0));
    f.connections[0].end();
    await calm();
    hurry(f);
    await calm();
    assert.equal(f.connections.length, 2);
    f.follower.stop();
    await f.run;
  }
});

for (const status of [400, 401, 403, 404, 410, 501]) {
  test(`status ${status} is for good`, async () => {
    const f = following({ routes: { "/info": () => json(infoDocument()), "/stream": () => new Response("", { status }) } });
    await f.run;
    assert.match(f.all("onError")[0][0].message, new RegExp(`status ${status}`));
    assert.equal(f.all("onLost").length, 0);
  });
}

for (const status of [429, 500, 502, 503]) {
  test(`status ${status} is asked again, when the server wants it`, async () => {
    const answer = () => new Response("", { status, headers: { "retry-after": "7" } });
    const f = following({ routes: { "/info": () => json(infoDocument()), "/stream": answer } });
    await calm();
    assert.equal(f.all("onLost")[0][1], 7000);
    f.env.onlineAgain.forEach((callback) => callback());
    f.env.tick(6999);
    await calm();
    assert.equal(f.all("onConnecting").length, 1);
    f.env.tick(1);
    await calm();
    assert.deepEqual(f.all("onConnecting"), [[0], [1]]);
    f.follower.stop();
    await f.run;
  });
}

test("a feed that is not there, and bytes that are no frames, are for good", async () => {
  const none = following({}, { feed: "nope" });
  await none.run;
  assert.match(none.all("onError")[0][0].message, /no feed .nope./);
  const garbage = following();
  await calm();
  await garbage.push(0, frame(0, 1));
  await garbage.run;
  assert.match(garbage.all("onError")[0][0].message, /not what this page expects/);
});

test("a stop at any time is told once, and leaves nothing behind", async () => {
  for (const until of ["info", "open", "reading", "waiting"]) {
    const f = following();
    if (until !== "info") await calm();
    if (until === "reading" || until === "waiting") await f.push(0, begin(7), chunk(0));
    if (until === "waiting") {
      f.connections[0].end();
      await calm();
    }
    f.follower.stop();
    f.follower.stop();
    await f.run;
    assert.equal(f.all("onStopped").length, 1, until);
    assert.equal(f.all("onError").length, 0, until);
    assert.equal(f.env.timers.size, 0, until);
    assert.equal(f.follower.running, false);
  }
});

test("a stream that is silent for too long is dead; a heartbeat keeps it", async () => {
  const f = following();
  await calm();
  await f.push(0, begin(7), chunk(0));
  f.env.tick(SILENCE_MS - 1);
  await f.push(0, BEAT);
  f.env.tick(SILENCE_MS - 1);
  await calm();
  assert.equal(f.all("onLost").length, 0);
  f.env.tick(1);
  await calm();
  assert.match(f.all("onLost")[0][0].message, /dead: nothing came for 40 seconds/);
  f.env.tick(LONGEST_MS);
  await calm();
  assert.equal(f.connections[1].from, "7-0");
  f.follower.stop();
  await f.run;
});

test("a stream that brings nothing though the server has more is dead sooner", async () => {
  const f = following();
  await calm();
  await f.push(0, begin(7), chunk(0));
  assert.equal(f.follower.told(1, "7"), 0);
  assert.equal(f.follower.told(5, undefined), undefined, "a feed without numbers of its own says nothing");
  assert.equal(f.follower.told(5, "7"), 4);
  f.env.tick(STALL_MS - 1);
  f.follower.told(5, "7");
  await f.push(0, chunk(1));
  f.env.tick(STALL_MS - 1);
  f.follower.told(9, "7");
  await calm();
  assert.equal(f.all("onLost").length, 0, "it is slow, not dead");
  f.env.tick(STALL_MS);
  f.follower.told(9, "7");
  await calm();
  assert.match(f.all("onLost")[0][0].message, /dead: the server has more/);
  f.follower.stop();
  await f.run;
});

test("a stream of a run of numbers that the server no longer has is dead sooner as well", async () => {
  const f = following();
  await calm();
  await f.push(0, begin(7), chunk(0));
  assert.equal(f.follower.told(1, "8"), undefined);
  f.env.tick(STALL_MS);
  f.follower.told(1, "8");
  await calm();
  assert.match(f.all("onLost")[0][0].message, /dead: the server has more/);
  f.follower.stop();
  await f.run;
});

/** An automatic choice where WebTransport is the best that works. */
function choosing() {
  const WebTransport = fakeWebTransport();
  const f = following({ WebTransport }, { choice: "auto" });
  const give = async () => {
    const session = WebTransport.sessions.at(-1);
    const driven = handDriven();
    session.open();
    session.give(driven.stream);
    await calm();
    return { ...driven, session };
  };
  return { ...f, WebTransport, give };
}

test("auto: the way that broke gives way to the next one, with the reason, and is tried again later", async () => {
  const f = choosing();
  await calm();
  const first = await f.give();
  first.push(begin(7));
  first.push(chunk(0));
  await calm();
  assert.match(first.session.url, /from=now/);
  first.fail(new Error("The session is closed."));
  await calm();
  f.env.tick(FIRST_MS);
  await calm();
  const [path, verdicts] = f.all("onOpen").at(-1);
  assert.equal(path.transport, "fetch");
  assert.equal(f.connections[0].from, "7-0");
  const [, why, taken] = verdicts;
  assert.equal(why.verdict, "not taken");
  assert.match(why.reason, /failed .* before: The stream was cut short .*The session is closed\..*left alone for a minute/);
  assert.equal(taken.verdict, "taken");
  await f.push(0, begin(7), chunk(1));

  for (let time = 0; time < REST_MS; time += REST_MS / 4) {
    f.env.tick(REST_MS / 4);
    await f.push(0, BEAT);
  }
  f.connections[0].end();
  await calm();
  f.env.tick(FIRST_MS);
  await calm();
  const second = await f.give();
  assert.match(second.session.url, /from=7-1/);
  assert.equal(f.all("onOpen").at(-1)[0].transport, "webtransport");
  f.follower.stop();
  await f.run;
});

test("auto: where the server itself was gone, no way is to blame", async () => {
  const f = choosing();
  await calm();
  const first = await f.give();
  first.push(begin(7));
  first.push(chunk(0));
  await calm();
  f.env.routes["/info"] = () => { throw new TypeError("Failed to fetch"); };
  first.fail(new Error("The session is closed."));
  await calm();
  f.env.tick(FIRST_MS);
  await calm();
  f.env.routes["/info"] = () => json(infoDocument());
  f.env.tick(LONGEST_MS);
  await calm();
  await f.give();
  assert.equal(f.all("onOpen").at(-1)[0].transport, "webtransport");
  f.follower.stop();
  await f.run;
});

test("a way that was chosen by hand is kept", async () => {
  const WebTransport = fakeWebTransport();
  const f = following({ WebTransport }, { choice: "webtransport" });
  for (let i = 0; i < 2; i += 1) {
    await calm();
    const session = WebTransport.sessions[i];
    const driven = handDriven();
    session.open();
    session.give(driven.stream);
    await calm();
    driven.push(begin(7));
    driven.push(chunk(i));
    await calm();
    driven.fail(new Error("gone"));
    await calm();
    f.env.tick(LONGEST_MS);
  }
  assert.deepEqual(f.all("onOpen").map(([{ transport }]) => transport), ["webtransport", "webtransport"]);
  assert.match(f.all("onOpen")[0][1][0].reason, /chosen by hand/);
  assert.equal(f.connections.length, 0);
  f.follower.stop();
  await f.run;
});

test("a flood gives the page its turn", async () => {
  const f = following();
  let time = 1000;
  f.env.performance.now = () => (time += 1);
  await calm();
  await f.push(0, begin(7), new Uint8Array(Buffer.concat(Array.from({ length: 60 }, (_, seq) => chunk(seq)))));
  assert.equal(f.seqs().length, 60);
  assert.ok(f.env.breaths >= 3, `${f.env.breaths}`);
  f.follower.stop();
  await f.run;
});

test("a place knows where it is before the first chunk", () => {
  const place = new Place("now");
  place.begin("7", 5);
  assert.equal(place.from, "7-4");
  assert.deepEqual(place.chunk(7), { fresh: true, missed: { missing: 2, restarted: false, told: false } });
  // Another run, of which the first chunks are gone: a run that had not begun wanted all of it.
  const early = new Place("now");
  early.begin("7", 0);
  assert.equal(early.from, "start");
  early.begin("8", 500);
  assert.deepEqual(early.chunk(500), { fresh: true, missed: { missing: 500, restarted: false, told: false } });
  // One that starts afresh for each viewer.
  const fresh = new Place("now");
  fresh.begin("7", 0);
  fresh.begin("8", 0);
  assert.deepEqual(fresh.chunk(0), { fresh: true, missed: undefined });
  // A restart that nothing follows is told by the end.
  const over = new Place("now");
  over.begin("7", 5);
  over.begin("8", 0);
  assert.equal(over.restarted, true);
  assert.deepEqual(over.end(), { missing: 0, restarted: true, told: true });
  assert.equal(over.end(), undefined);
});

test("where numbers are left out, a jump is no loss, and what the server tells is", () => {
  const place = new Place("now");
  place.begin("7", 5);
  place.sparse();
  assert.deepEqual(place.chunk(9), { fresh: true, missed: undefined });
  assert.equal(place.chunk(9).fresh, false);
  assert.deepEqual(place.gap({ from: 10, missing: 2, restarted: false }), { missing: 2, restarted: false, told: true });
  // Another stream may be of a server that keeps all of them.
  place.begin("7", 12);
  assert.deepEqual(place.chunk(13).missed, { missing: 1, restarted: false, told: false });
});

test("a feed that stalls says so, and goes on", async () => {
  const f = following();
  await calm();
  await f.push(0, begin(7), chunk(0), frame(6, 1), frame(6, 0), chunk(1));
  assert.deepEqual(f.all("onStalled"), [[true], [false]]);
  assert.equal(f.all("onChunk").length, 2);
  assert.equal(f.all("onLost").length, 0);
  f.follower.stop();
  await f.run;
});

test("a place that was told of a restart, and nothing after it, begins at its start", () => {
  const place = new Place("now");
  assert.equal(place.from, "now");
  place.begin("7");
  assert.equal(place.from, "now");
  place.chunk(4);
  place.begin("9");
  assert.equal(place.from, "start");
  place.gap({ from: 0, missing: 0, restarted: true });
  assert.equal(place.from, "start");
  place.begin("9");
  assert.deepEqual(place.chunk(0), { fresh: true, missed: undefined });
  assert.equal(place.from, "9-0");
});

test("a restart that only the epoch tells of", () => {
  const place = new Place("now");
  place.begin("7");
  place.chunk(4);
  place.begin("9");
  assert.deepEqual(place.chunk(2), { fresh: true, missed: { missing: 2, restarted: true, told: false } });
});

test("the wait is anything up to its top, and never less than the server asks for", () => {
  const waits = (random) => {
    const backoff = new Backoff(random);
    return [backoff.next(), backoff.next(), backoff.next(3000)];
  };
  assert.deepEqual(waits(() => 0), [0, 0, 3000]);
  assert.deepEqual(waits(() => 0.5), [125, 250, 3000]);
});

test("Retry-After in seconds and as a date", () => {
  const now = Date.parse("Wed, 21 Oct 2026 07:28:00 GMT");
  for (const [header, ms] of [
    [null, 0], ["", 0], ["soon", 0], ["0", 0], ["3", 3000], ["-3", 0], ["999999", 300_000],
    ["Wed, 21 Oct 2026 07:28:05 GMT", 5000], ["Wed, 21 Oct 2026 07:00:00 GMT", 0],
  ]) {
    assert.equal(retryAfter(header, now), ms, `${header}`);
  }
});
