// The start page of a server with a single feed says which one that is, unless it has the usual name.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { assertAccessible, assertFits } from './lib/accessible.mjs';
import { chromium, open } from './lib/browsers.mjs';
import { Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };
const LONG = 'a-name-of-a-feed-that-is-so-long-that-it-cannot-be-shown-in-whole-on-a-phone';

describe('a single feed', () => {
  /** @type {import('puppeteer-core').Browser} */ let browser;
  /** @type {string} */ let folder;
  before(async () => {
    browser = await chromium();
    folder = await mkdtemp(path.join(tmpdir(), 'h3cast-alone-'));
  }, TEST);
  after(async () => {
    await browser?.close();
    await rm(folder, { recursive: true });
  }, TEST);

  for (const [words, name, args] of /** @type {[string, string, () => string[]][]} */ ([
    ['in memory', 'news', () => ['news=publish']],
    ['that is stored', 'orders', () => ['orders=publish', '--store', folder]],
    ['for each viewer', 'count', () => ['count=exec:echo one', '--per-viewer']],
    ['with a long name', LONG, () => [`${LONG}=publish`]],
    ['with the usual name', '', () => ['publish']],
  ])) {
    test(`${words} is named as it is`, TEST, async () => {
      const server = await Server.start({ args: args() });
      try {
        for (const width of name === 'news' || name === LONG ? [360, 1100] : [1100]) {
          const view = await open(browser, `${server.plain}/`, { width, height: 740 });
          await view.until('what it shows', () => document.documentElement.dataset.view !== undefined);
          const seen = await view.page.$eval('#feed-name', (element) => {
            const { width, left, right } = element.getBoundingClientRect();
            return { text: element.checkVisibility() ? element.textContent : '', width, inside: left >= 0 && right <= innerWidth };
          });
          assert.equal(seen.text, name);
          assert.ok(name === '' || (seen.width > 30 && seen.inside), JSON.stringify(seen));
          assert.equal(await view.page.$eval('#feed', (element) => element.checkVisibility()), false, 'there is nothing to choose');
          for (const scheme of /** @type {const} */ (['light', 'dark'])) {
            await view.page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
            await assertFits(view, words);
            await view.shot(`alone-${name.slice(0, 6)}-${width}-${scheme}`);
          }
          if (name === 'news') await assertAccessible(view, words);
          await view.assertClean();
          await view.close();
        }
      } finally {
        await server.stop();
      }
    });
  }
});
