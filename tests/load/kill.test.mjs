// Viewers that are killed in the middle of a chunk, again and again, and go on from their last whole one over
// the other transport: nothing is missing, nothing comes twice.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { feed } from './lib/feeding.mjs';
import { Serving, until, within } from './lib/program.mjs';
import { Keystream, seed } from './lib/random.mjs';
import { Viewer } from './lib/viewer.mjs';

const VIEWERS = 20;
const KILLS_EACH = 6;
const TOTAL = 128 << 20;
/**
 * How far the feed may be ahead of the slowest viewer: some come back to what has long been, others to what is
 * made just now.
 */
const AHEAD = 8 << 20;
const DEADLINE = 300_000;
/** The server forgets a viewer 30 s after it last sent it something unasked, which it does each 12 s. */
const FORGOTTEN_MS = 60_000;

/** Runs a viewer to the end of the feed, killed each time that it has read so much more. */
async function survive(viewer, places) {
  for (;;) {
    viewer.onprogress = () => {
      if (viewer.bytes >= places[0]) viewer.child.kill('SIGKILL');
      viewer.moved();
    };
    const how = await viewer.run();
    if (how.signal === null) break;
    assert.equal(how.signal, 'SIGKILL');
    viewer.kills++;
    // It may have read on behind more than one of the places before it was gone.
    while (places[0] <= viewer.bytes) places.shift();
    viewer.webtransport = !viewer.webtransport;
  }
  viewer.onprogress = () => {};
}

test(`${VIEWERS} viewers of ${TOTAL >> 20} MiB, killed at random`, { timeout: DEADLINE + 90_000 }, async (t) => {
  t.diagnostic(`seed ${seed}`);
  const random = new Keystream(`kills ${seed}`);
  const serving = await Serving.start('-', '--chunk', 'bytes', '--lag', 'skip', '--history', '256M');
  const viewers = Array.from({ length: VIEWERS }, (_, number) => new Viewer(serving, number % 2 === 1));
  try {
    let moved = () => {};
    const slowest = () => Math.min(...viewers.map((viewer) => viewer.bytes));
    const began = performance.now();
    const all = Promise.all(viewers.map((viewer) => {
      viewer.kills = 0;
      viewer.moved = () => moved();
      // One in each part of the feed, so that no two are so near that one kill serves for both.
      const part = Math.floor(TOTAL / KILLS_EACH);
      const places = Array.from({ length: KILLS_EACH }, (_, n) => n * part + 1 + random.below(part - (4 << 20)));
      return survive(viewer, places);
    }));
    all.catch(() => {}); // it is waited for below
    await Promise.race([
      until(async () => (await serving.feed()).viewers === VIEWERS, 60_000, 'every viewer is there'),
      all,
    ]);
    const sizes = new Keystream(`sizes ${seed}`);
    const fed = feed(serving, {
      total: TOTAL,
      seed,
      size: () => 1 + sizes.below(64 * 1024),
      before: async (written) => {
        while (written - slowest() > AHEAD) await Promise.race([new Promise((resolve) => (moved = resolve)), all]);
      },
    });
    const [expected] = await within(Promise.all([fed, all]), DEADLINE, 'every viewer has all');
    const seconds = (performance.now() - began) / 1000;
    for (const [number, viewer] of viewers.entries()) {
      assert.equal(viewer.bytes, TOTAL, `viewer ${number}`);
      assert.equal(viewer.hash.digest('hex'), expected, `viewer ${number}`);
    }
    const kills = viewers.reduce((sum, viewer) => sum + viewer.kills, 0);
    const torn = viewers.reduce((sum, viewer) => sum + viewer.torn, 0);
    const status = await serving.feed();
    assert.deepEqual([status.state, status.bytes, status.chunks, status.skipped],
      ['ended', TOTAL, viewers[0].chunks, 0]);
    const ended = performance.now();
    await until(async () => (await serving.feed()).viewers === 0, FORGOTTEN_MS, 'the killed viewers are forgotten');
    const forgotten = ((performance.now() - ended) / 1000).toFixed(1);
    t.diagnostic(`${kills} kills in ${seconds.toFixed(1)} s, ${torn} of them in the middle of a frame, forgotten ` +
      `${forgotten} s later; ${viewers[0].chunks} chunks; the server's peak memory ${serving.peakMemory()} MiB`);
    assert.ok(kills >= 100, `${kills} kills`);
  } finally {
    for (const viewer of viewers) viewer.child?.kill('SIGKILL');
    await serving.stop();
  }
});
