// The start page over connections that break, with the real server, real browsers and a network in
// between that can be cut.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { assertAccessible, assertFits } from './lib/accessible.mjs';
import { chromium, firefox, open } from './lib/browsers.mjs';
import { assertEveryNumber, chunksAfterMark, marked, rows, saved } from './lib/log.mjs';
import { Relay } from './lib/relay.mjs';
import { Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };
/** What browsers write into their console about requests to a server that is gone. */
const GONE = /net::ERR_|Failed to load resource|NetworkError|can’t establish a connection|Connection lost|WebTransport/;
/** A live feed whose every line is its number. */
const NUMBERS = 'exec:i=0; while :; do echo "number $i"; i=$((i+1)); sleep 0.2; done';

describe('a server that is killed and started again', () => {
  for (const [name, launch] of /** @type {const} */ ([['Chromium', chromium], ['Firefox', firefox]])) {
    test(`${name}: a feed that can be replayed goes on where it was, nothing lost or twice`, TEST, async () => {
      let server = await Server.start({ args: ['--count', '0', 'demo'] });
      const browser = await launch();
      try {
        const view = await open(browser, `${server.plain}/`);
        await view.choose('fetch');
        await view.start();
        await view.chunksShown(3);
        await server.kill();
        await view.state(['reconnecting']);
        await marked(view, 'lost');
        assert.match((await view.report()).status, /Reconnecting/);
        await view.until('words on the next attempt', () => /Retrying (now|in \d+ s) \(attempt \d+\)\.|connecting/.test(document.querySelector('#retry-text')?.textContent ?? ''));
        await assertAccessible(view, 'while it is lost');
        server = await server.again();
        await marked(view, 'back');
        await chunksAfterMark(view, 3);
        await assertEveryNumber(view);
        const lines = (await saved(view)).split('\n').filter((line) => line.startsWith('data chunk #'));
        assert.deepEqual(lines, lines.map((_, i) => `data chunk #${i}`));
        assert.ok(lines.length > 5, `${lines.length} lines`);
        const { status, state, error } = await view.report();
        assert.deepEqual({ state, error }, { state: 'streaming', error: '' });
        assert.match(status, /Resumed: nothing is missing/);
        assert.equal(await view.page.$eval('#missing', (e) => e.textContent), '0');
        assert.equal(await view.page.$eval('#losses', (e) => e.textContent), 'reconnected once');
        await view.assertClean(GONE);
      } finally {
        await browser.close();
        await server.stop();
      }
    });
  }

  for (const transport of ['fetch', 'webtransport']) {
    test(`${transport}: a live feed is told to have been started again, and is shown from its beginning`, TEST, async () => {
      let server = await Server.start({ args: [NUMBERS] });
      const browser = await chromium();
      try {
        const view = await open(browser, `${server.plain}/?transport=${transport}`);
        await view.start();
        await view.chunksShown(3);
        await server.kill();
        server = await server.again();
        await marked(view, 'restart');
        await chunksAfterMark(view, 3);
        const shown = await rows(view);
        const gap = shown.findIndex((row) => row.startsWith('restart: '));
        assert.match(shown[gap - 1] ?? '', /^lost: /);
        assert.match(shown[gap] ?? '', /Resumed with .*The feed was restarted\./);
        assert.deepEqual(shown.slice(gap + 1, gap + 4), ['number 0\n', 'number 1\n', 'number 2\n']);
        assert.equal((await view.report()).transport, transport, 'what was chosen by hand is kept');
        await view.assertClean(GONE);
      } finally {
        await browser.close();
        await server.stop();
      }
    });
  }

  test('a server that is not there yet: told in words, and read when it comes', TEST, async () => {
    let server = await Server.start();
    const browser = await chromium();
    try {
      const view = await open(browser, `${server.plain}/`);
      await view.state(['idle']);
      await server.kill();
      await view.start();
      await view.state(['reconnecting']);
      await view.until('advice', () => !(/** @type {HTMLElement} */ (document.querySelector('#error'))).hidden);
      assert.match((await view.report()).error, /did not answer.*Check that the server is still running/);
      await assertAccessible(view, 'with an error shown');
      await assertFits(view, 'with an error shown');
      server = await server.again();
      await view.page.click('#retry-now').catch(() => {}); // it may be trying already
      await view.state(['done']);
      assert.equal((await view.report()).error, '', 'what is over is no error');
      assert.equal((await assertEveryNumber(view)).length, 10);
      await view.assertClean(GONE);
    } finally {
      await browser.close();
      await server.stop();
    }
  });
});

describe('UDP that is blocked in the middle of a feed', () => {
  for (const [name, protocol] of [['Chromium', 'h2'], ['Firefox', 'http/1.1']]) {
    test(`${name}: WebTransport gives way to fetch over ${protocol}, nothing lost or twice`, TEST, async () => {
      const server = await Server.start({ host: '127.0.0.1', args: [NUMBERS] });
      const relay = await Relay.start(server);
      const secure = name === 'Chromium';
      const browser = await (secure ? chromium({ trust: server, quic: false }) : firefox());
      try {
        const view = await open(browser, `${secure ? relay.base : relay.plain}/?from=start`);
        assert.equal(await view.navigationProtocol(), protocol);
        await view.start();
        await view.chunksShown(5);
        assert.equal((await view.report()).transport, 'webtransport');
        assert.ok(relay.passed > 5 && relay.connections > 0, 'everything goes through the relay');
        relay.udpBlocked = true;
        await marked(view, 'lost');
        await marked(view, 'back');
        await chunksAfterMark(view, 3);
        assert.ok(relay.vanished > 0);
        const { transport, protocol: reported, status, why } = await view.report();
        assert.deepEqual({ transport, reported }, { transport: 'fetch', reported: protocol });
        assert.match(status, /Streaming with fetch\. Resumed: nothing is missing\./);
        assert.match(why, /WebTransport not takenIt failed .* ago: The stream is dead/);
        assert.match(why, /fetch over HTTP\/2 or 1\.1 taken/);
        await assertEveryNumber(view);
        // On a slow machine, the first have no row any more.
        const lines = (await saved(view)).split('\n').filter((line) => line.startsWith('number'));
        assert.deepEqual(lines, lines.map((_, i) => `number ${i}`), 'and they are what the source printed');
        assert.ok(lines.length > 8, `${lines.length} lines`);
        await view.page.click('#stop');
        await view.state(['stopped']);
        assert.deepEqual([...new Set(await view.resourceProtocols('/info'))], [protocol]);
        await view.assertClean(GONE);
      } finally {
        await browser.close();
        await relay.stop();
        await server.stop();
      }
    });
  }
});
