// A feed whose connection is lost: it resumes after the last chunk, and what is missing is told once.
import assert from "node:assert/strict";
import { test } from "node:test";
import { FIRST_MS } from "../../static/js/client/backoff.mjs";
import { BEAT, END, begin, calm, chunk, following, gap } from "./following.mjs";

test("a stream that ends before the feed does is a loss: it goes on behind the last chunk", async () => {
  const f = following();
  await calm();
  await f.push(0, begin(7), chunk(3), chunk(4));
  f.connections[0].end();
  await calm();
  const [[error, wait, attempt]] = f.all("onLost");
  assert.match(error.message, /interrupted/);
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
