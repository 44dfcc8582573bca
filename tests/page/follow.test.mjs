// Following a feed: what is asked of the server, and what the visitor is told of what comes.
import assert from "node:assert/strict";
import { test } from "node:test";
import { END, begin, calm, chunk, failed, following, frame } from "./following.mjs";
import { infoDocument, json } from "./fakes.mjs";

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

test("a feed that stalls says so, and goes on", async () => {
  const f = following();
  await calm();
  await f.push(0, begin(7), chunk(0), frame(6, 1), frame(6, 1, 0x4e, 0x4f), frame(6, 0), chunk(1));
  assert.deepEqual(f.all("onStalled"), [[true, undefined], [true, "NO"], [false, undefined]]);
  assert.equal(f.all("onChunk").length, 2);
  assert.equal(f.all("onLost").length, 0);
  f.follower.stop();
  await f.run;
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
