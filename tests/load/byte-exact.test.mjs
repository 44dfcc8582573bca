// Many viewers of one long stream, over both transports: each gets every byte, once and in order.
import assert from 'node:assert/strict';
import { availableParallelism } from 'node:os';
import { test } from 'node:test';

import { feed } from './lib/feeding.mjs';
import { Serving, until, within } from './lib/program.mjs';
import { seed } from './lib/random.mjs';
import { Viewer } from './lib/viewer.mjs';

const VIEWERS = Number(process.env.H3CAST_LOAD_VIEWERS ?? 50);
const TOTAL = Number(process.env.H3CAST_LOAD_BYTES ?? 256 << 20);
/** The slowest that the whole may be, over all viewers together, before it is called stuck. */
const SLOWEST = 40 * (1 << 20);
const DEADLINE = 60_000 + (TOTAL * VIEWERS * 1000) / SLOWEST;

test(`${TOTAL >> 20} MiB to ${VIEWERS} viewers`, { timeout: DEADLINE + 60_000 }, async (t) => {
  t.diagnostic(`seed ${seed}, ${availableParallelism()} cores`);
  const serving = await Serving.start('-', '--chunk', 'bytes', '--lag', 'block');
  const viewers = Array.from({ length: VIEWERS }, (_, number) => new Viewer(serving, number % 2 === 1));
  try {
    const runs = viewers.map((viewer) => viewer.run());
    const all = Promise.all(runs);
    all.catch(() => {}); // it is waited for below
    const here = until(async () => (await serving.feed()).viewers === VIEWERS, 60_000, 'every viewer is there');
    await Promise.race([here, all]);
    const began = performance.now();
    const fed = feed(serving, { total: TOTAL, seed, size: () => 64 * 1024 });
    const [expected] = await within(Promise.all([fed, all]), DEADLINE, 'every viewer has all');
    const seconds = (performance.now() - began) / 1000;
    for (const [number, viewer] of viewers.entries()) {
      assert.equal(viewer.bytes, TOTAL, `viewer ${number}`);
      assert.equal(viewer.hash.digest('hex'), expected, `viewer ${number}`);
    }
    const rate = (TOTAL * VIEWERS) / 2 ** 20 / seconds;
    t.diagnostic(`${seconds.toFixed(1)} s, ${rate.toFixed(0)} MiB/s to all together, ${viewers[0].chunks} chunks; ` +
      `the server's peak memory ${serving.peakMemory()} MiB`);
    const status = await serving.feed();
    assert.deepEqual([status.state, status.bytes, status.chunks, status.skipped],
      ['ended', TOTAL, viewers[0].chunks, 0]);
    await until(async () => (await serving.feed()).viewers === 0, 10_000, 'no viewer is counted any more');
  } finally {
    for (const viewer of viewers) viewer.child?.kill('SIGKILL');
    await serving.stop();
  }
});
