// Streams that are dead without an end, and pages that stand still.
import assert from "node:assert/strict";
import { test } from "node:test";
import { LONGEST_MS } from "../../static/js/client/backoff.mjs";
import { SILENCE_MS, STALL_MS, WAKE_MS } from "../../static/js/client/watchdog.mjs";
import { BEAT, begin, calm, chunk, following } from "./following.mjs";

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
  assert.match(f.all("onLost")[0][0].message, /dead: nothing was received for 40 seconds/);
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

/** The page stands still: its clock goes on, and its timers come late. */
function standStill(f, ms) {
  f.env.time += ms;
  f.env.tick(0);
}

test("a page that stood still reads on if the stream brings something", async () => {
  const f = following();
  await calm();
  await f.push(0, begin(7), chunk(0));
  standStill(f, 10 * SILENCE_MS);
  await f.push(0, chunk(1));
  f.env.tick(SILENCE_MS - 1);
  await calm();
  assert.deepEqual([f.all("onLost").length, f.seqs()], [0, [0, 1]]);
  f.env.tick(1);
  await calm();
  assert.match(f.all("onLost")[0][0].message, /dead: nothing was received/, "that was long ago");
  f.follower.stop();
  await f.run;
});

for (const [what, lose] of [
  ["is cut when it runs again", (f) => f.connections[0].fail(new TypeError("network error"))],
  ["is silent", (f) => f.env.tick(WAKE_MS)],
]) {
  test(`a page that stood still, whose stream then ${what}, says so`, async () => {
    const f = following();
    await calm();
    await f.push(0, begin(7), chunk(0));
    standStill(f, 70_000);
    await calm();
    assert.equal(f.all("onLost").length, 0);
    lose(f);
    await calm();
    assert.match(f.all("onLost")[0][0].message, /Nothing ran here for 70 s/);
    f.env.tick(LONGEST_MS);
    await calm();
    assert.equal(f.connections[1].from, "7-0");
    f.follower.stop();
    await f.run;
  });
}
