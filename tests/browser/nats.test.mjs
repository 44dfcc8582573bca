// The page on a feed that NATS keeps, and what it says when NATS is gone.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { assertAccessible, assertFits } from './lib/accessible.mjs';
import { chromium, firefox, open } from './lib/browsers.mjs';
import { chunksAfterMark, marked } from './lib/log.mjs';
import { Nats } from './lib/nats.mjs';
import { Server } from './lib/server.mjs';

const TEST = { timeout: 90_000 };

describe('a feed that NATS keeps', () => {
  for (const [name, launch, transport] of /** @type {const} */ ([
    ['Chromium', chromium, 'webtransport'], ['Firefox', firefox, 'fetch'],
  ])) {
    test(`${name}, ${transport}: the page says that NATS is gone, stays, and goes on`, TEST, async () => {
      const nats = await Nats.start();
      const server = await Server.start({
        args: ['chat=publish', '--engine', `nats://127.0.0.1:${nats.port}`, '--ensure-stream'],
      });
      const browser = await launch();
      /** @param {string} text */
      const publish = async (text) => {
        const response = await fetch(`${server.plain}/stream/chat?chunk=lines`, { method: 'POST', body: text });
        return response.status;
      };
      try {
        const view = await open(browser, `${server.plain}/?feed=chat&transport=${transport}`);
        await view.start();
        await view.state(['streaming']);
        assert.equal(await publish('before\n'), 200);
        await view.chunksShown(1);
        await nats.kill();
        await marked(view, 'lost', 30_000);
        const { status, state, error } = await view.report();
        assert.deepEqual({ state, error }, { state: 'streaming', error: '' });
        assert.match(status, /cannot reach what keeps the feed/);
        await assertAccessible(view, 'while NATS is gone');
        await assertFits(view, 'while NATS is gone');
        assert.equal(await publish('refused\n'), 503);
        await nats.run();
        await marked(view, 'back', 30_000);
        assert.equal(await publish('after\n'), 200);
        await chunksAfterMark(view, 1);
        assert.match((await view.report()).status, /^Streaming with/);
        assert.equal(await view.page.$eval('#losses', (e) => e.textContent), 'never reconnected');
        assert.equal(await view.page.$eval('#missing', (e) => e.textContent), '0');
        await view.assertClean();
      } finally {
        await browser.close();
        await server.stop();
        await nats.stop();
      }
    });
  }
});
