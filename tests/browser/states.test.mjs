// What the pages say of a feed that failed, of one that has ended, and of one that is still empty.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { assertAccessible } from './lib/accessible.mjs';
import { chromium, firefox, open } from './lib/browsers.mjs';
import { Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };
/** What browsers write into their console about a response that was cut off. */
const CUT = /net::ERR_|Failed to load resource|NetworkError|TypeError/;
const FEEDS = ['failed=exec:echo "so far"; exit 3', 'ended=exec:echo all', 'nothing=exec:true', 'empty=publish'];

for (const [name, launch] of /** @type {const} */ ([['Chromium', chromium], ['Firefox', firefox]])) {
  describe(`the state of a feed in ${name}`, () => {
    /** @type {Server} */ let server;
    /** @type {import('puppeteer-core').Browser} */ let browser;
    before(async () => {
      server = await Server.start({ args: FEEDS });
      browser = await launch();
    }, TEST);
    after(async () => {
      await browser?.close();
      await server?.stop();
    }, TEST);

    /** @param {string} feed @param {string} query @param {string} state */
    async function shown(feed, query, state) {
      const view = await open(browser, `${server.plain}/${query}feed=${feed}&autostart=1`);
      await view.state([state]);
      return view;
    }

    for (const transport of ['fetch', 'webtransport']) {
      test(`${transport}: failed, with the reason, after what it had`, TEST, async () => {
        const view = await shown('failed', `?from=start&transport=${transport}&`, 'error');
        assert.deepEqual((await view.reads()).map(({ text }) => text), ['so far\n']);
        const { error } = await view.report();
        assert.match(error, /The feed failed at its source: .*3/);
        assert.match((await view.report()).status, /^The feed failed at its source: .*3/);
        await view.until('the note', () => /failed \(.*3/.test(document.querySelector('#feed-note')?.textContent ?? ''));
        await assertAccessible(view, 'when the feed has failed');
        await view.assertClean();
        await view.page.close();
      });
    }

    test('failed, on the page that only knows bytes', TEST, async () => {
      const view = await shown('failed', 'fetch.html?', 'error');
      assert.match((await view.report()).error, /The feed failed at its source: .*3/);
      await view.assertClean(CUT);
      await view.page.close();
    });

    test('ended, before the viewer came', TEST, async () => {
      const view = await shown('ended', '?from=now&', 'done');
      assert.match((await view.report()).status, /has ended: it had 1 chunk before you connected.*oldest kept/);
      await view.page.select('#from', 'start');
      await view.chunksShown(1);
      await view.state(['done']);
      assert.match((await view.report()).status, /^The feed has ended: 1 chunk, 4 B/);
      await view.page.close();
    });

    test('ended, and it was empty', TEST, async () => {
      for (const query of ['?', '?from=start&']) {
        const view = await shown('nothing', query, 'done');
        assert.equal((await view.report()).status, 'The feed has ended, and it was empty.');
        await view.until('the note', () => /ended, empty/.test(document.querySelector('#feed-note')?.textContent ?? ''));
        await view.page.close();
      }
    });

    test('stopped while it reconnects: it no longer does', TEST, async () => {
      const lost = await Server.start({ args: ['feed=exec:echo all; sleep 600'] });
      const view = await open(browser, `${lost.plain}/?from=start&transport=fetch`);
      await view.chunksShown(1);
      await lost.kill();
      await view.until('the loss', () => /^reconnecting/.test(document.querySelector('#losses')?.textContent ?? ''));
      await view.page.click('#stop');
      await view.state(['stopped']);
      assert.equal(await view.page.$eval('#losses', (element) => element.textContent), 'never reconnected');
      await view.page.close();
      await (await lost.again()).stop();
    });

    test('not there: the page says so and which there are, and another can be chosen', TEST, async () => {
      const view = await open(browser, `${server.plain}/?feed=nosuch`);
      await view.until('that there is none', () => document.querySelector('#status')?.textContent === 'There is no feed “nosuch” here. Try one of these: empty, ended, failed, nothing.');
      await view.page.select('#feed', 'empty');
      await view.state(['streaming']);
      await view.assertClean(/404|Failed to load resource/);
      await view.page.close();
    });

    test('a page that is left reads nothing, also when another setting had just been chosen', TEST, async () => {
      const view = await open(browser, `${server.plain}/?feed=empty&transport=fetch`);
      await view.state(['streaming']);
      await view.page.$eval('#from', (from) => {
        /** @type {HTMLSelectElement} */ (from).value = 'start';
        from.dispatchEvent(new Event('change'));
        dispatchEvent(new Event('pagehide'));
      });
      await view.state(['stopped']);
      await view.page.evaluate(() => new Promise((resolve) => setTimeout(resolve)));
      assert.equal((await view.report()).state, 'stopped');
      await view.page.close();
    });

    test('empty so far', TEST, async () => {
      for (const query of ['?', '?from=start&']) {
        const view = await shown('empty', query, 'streaming');
        await view.until('the words', () => /The feed is empty so far/.test(document.querySelector('#status')?.textContent ?? ''));
        await view.page.close();
      }
    });
  });
}
