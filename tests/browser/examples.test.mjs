// The pages of the short examples, in Chromium without a flag.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { chromium } from './lib/browsers.mjs';
import { Example } from './lib/example.mjs';
import { View } from './lib/view.mjs';

const TEST = { timeout: 240_000 };

describe('Chromium with no flag', () => {
  /** @type {import('puppeteer-core').Browser} */ let browser;
  before(async () => { browser = await chromium(); }, TEST);
  after(() => browser?.close(), TEST);

  /** @param {string} name @param {(view: View) => Promise<void>} use */
  async function onPage(name, use) {
    const server = await Example.withPage(name);
    try {
      const view = new View(await browser.newPage());
      await view.watch();
      // The example names the port that it was given, which is 0 here.
      await view.page.evaluateOnNewDocument((base) => {
        const Real = globalThis.WebTransport;
        globalThis.WebTransport = class extends Real {
          /** @param {string | URL} url @param {WebTransportOptions} [options] */
          constructor(url, options) {
            super(base + new URL(url).pathname, options);
          }
        };
      }, server.base);
      await view.page.goto(`${server.plain}/`);
      await use(view);
      await view.assertClean();
      await view.close();
    } finally {
      await server.stop();
    }
  }

  test('webtransport_echo: what is typed comes back', TEST, () => onPage('webtransport_echo', async (view) => {
    for (const [word, log] of /** @type {const} */ ([['wörd', 'wörd\n'], ['two', 'wörd\ntwo\n']])) {
      await view.page.$eval('#text', (input) => { /** @type {HTMLInputElement} */ (input).value = ''; });
      await view.page.type('#text', word);
      await view.page.keyboard.press('Enter');
      await view.until(word, (wanted) => document.querySelector('#log')?.textContent === wanted, log);
    }
  }));

  test('datagram_telemetry: readings come', TEST, () => onPage('datagram_telemetry', async (view) => {
    await view.until('ten readings', () => Number(document.querySelector('#count')?.textContent) >= 10);
    const shown = await view.page.$eval('#celsius', (element) => element.textContent);
    assert.match(String(shown), /^\d\d\.\d\d °C$/);
  }));
});
