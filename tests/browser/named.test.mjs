// The pages of one transport on a server that has named feeds only.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { assertAccessible } from './lib/accessible.mjs';
import { chromium, firefox, open } from './lib/browsers.mjs';
import { Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };

for (const [name, launch] of /** @type {const} */ ([['Chromium', chromium], ['Firefox', firefox]])) {
  describe(`named feeds in ${name}`, () => {
    /** @type {Server} */ let server;
    /** @type {import('puppeteer-core').Browser} */ let browser;
    before(async () => {
      // A feed for each viewer begins at its start.
      server = await Server.start({ args: ['one=exec:echo first', 'two=exec:echo second', '--per-viewer'] });
      browser = await launch();
    }, TEST);
    after(async () => {
      await browser?.close();
      await server?.stop();
    }, TEST);

    for (const page of ['fetch.html', 'webtransport.html']) {
      for (const [query, feed, text] of [['', 'one', 'first\n'], ['feed=two&', 'two', 'second\n']]) {
        test(`${page}?${query} reads ${feed}`, TEST, async () => {
          const view = await open(browser, `${server.plain}/${page}?${query}autostart=1`);
          await view.state(['done']);
          assert.deepEqual((await view.reads()).map((read) => read.text).join(''), text);
          const shown = await view.page.evaluate(() => ({
            title: document.querySelector('#panel-title')?.textContent ?? '',
            raw: document.querySelector('footer a')?.getAttribute('href'),
            snippet: document.querySelector('#snippet')?.textContent ?? '',
          }));
          assert.equal(shown.raw, `/stream/${feed}`);
          assert.ok(shown.title.includes(feed) && shown.snippet.includes(`"/stream/${feed}"`), JSON.stringify(shown));
          await assertAccessible(view, `of the feed ${feed}`);
          await view.assertClean();
          await view.page.close();
        });
      }
    }
  });
}
