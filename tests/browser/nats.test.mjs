// The page on a feed that NATS keeps, and what it says when NATS is gone.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { assertAccessible, assertFits } from './lib/accessible.mjs';
import { chromium, firefox, open } from './lib/browsers.mjs';
import { assertEveryNumber, chunksAfterMark, marked } from './lib/log.mjs';
import { Nats } from './lib/nats.mjs';
import { Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };

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
        await marked(view, 'stalled');
        const { status, state, error } = await view.report();
        assert.deepEqual({ state, error }, { state: 'streaming', error: '' });
        assert.match(status, /^Stalled: the server cannot receive or store new chunks/);
        await assertAccessible(view, 'while NATS is gone');
        await assertFits(view, 'while NATS is gone');
        assert.equal(await publish('refused\n'), 503);
        await nats.run();
        await marked(view, 'back');
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

/** What browsers write into their console about requests to a server that is gone. */
const GONE = /net::ERR_|Failed to load resource|NetworkError|can’t establish a connection|Connection lost|WebTransport/;

describe('two edges, each at an address of one name', () => {
  for (const [name, launch] of /** @type {const} */ ([['Chromium', chromium], ['Firefox', firefox]])) {
    test(`${name}: when the one of its session is killed, the page goes on at the other`, TEST, async () => {
      const nats = await Nats.start();
      const args = ['chat=publish', '--engine', `nats://127.0.0.1:${nats.port}`, '--ensure-stream'];
      const one = await Server.start({ host: '127.0.0.1', args });
      const ports = [one.port, Number(new URL(one.plain).port)];
      const edges = [one, await Server.start({ host: '[::1]', ports, certs: one.certs, args })];
      const direct = ['127.0.0.1', '[::1]'].map((host) => `http://${host}:${ports[1]}`);
      let killed = -1;
      const browser = await launch();
      try {
        const view = await open(browser, `${one.plain}/?feed=chat&from=start`);
        await view.start();
        await view.state(['streaming']);
        assert.equal((await view.report()).transport, 'webtransport');
        /** @type {number[]} */
        const viewers = await Promise.all(direct.map(async (edge) =>
          (await (await fetch(`${edge}/feeds`)).json()).feeds[0].viewers));
        killed = viewers.indexOf(1);
        assert.equal(viewers[1 - killed], 0);
        const publish = async (/** @type {string} */ body) => {
          const { status } = await fetch(`${direct[1 - killed]}/stream/chat?chunk=lines`, { method: 'POST', body });
          assert.equal(status, 200);
        };
        await publish('before\n');
        await view.chunksShown(1);
        await edges[killed]?.kill();
        await publish('meanwhile\n');
        // What way it takes is the browser's affair: for sessions they try one address only.
        await marked(view, 'back');
        await publish('after\n');
        await chunksAfterMark(view, 2);
        assert.deepEqual(await assertEveryNumber(view), [0, 1, 2]);
        const { state, error, status } = await view.report();
        assert.deepEqual({ state, error }, { state: 'streaming', error: '' });
        assert.match(status, /Resumed: nothing is missing/);
        await view.assertClean(GONE);
      } finally {
        await browser.close();
        await Promise.all(edges.map((edge, i) => (i === killed ? edge.abandon() : edge.stop())));
        await nats.stop();
      }
    });
  }
});
