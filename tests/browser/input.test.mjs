// Input for a command from the page: a line at a time over each transport, its end, and the token that is asked for.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { assertAccessible, assertFits } from './lib/accessible.mjs';
import { chromium, firefox, open } from './lib/browsers.mjs';
import { Server } from './lib/server.mjs';

const TEST = { timeout: 60_000 };
const TOKEN = 'a-token-to-publish-with';
const COMMAND = 'exec:while read line; do echo "got $line"; done; echo bye';
/** What browsers write into their console about requests that are refused. */
const REFUSED = /net::ERR_|Failed to load resource|NetworkError|401/;

/** @param {import('./lib/view.mjs').View} view @param {string} words */
const logged = (view, words) => view.until(
  `“${words}” in the log`, (wanted) => document.querySelector('#log')?.textContent?.includes(wanted), words, 30_000);

/** @param {import('./lib/view.mjs').View} view @param {string} line */
async function type(view, line) {
  await view.page.type('#input-line', line);
  await view.page.keyboard.press('Enter');
}

/** @param {import('./lib/view.mjs').View} view */
const form = (view) => view.until('the form', () => document.querySelector('#input')?.checkVisibility());

describe('input for a command from the page', () => {
  for (const [name, launch, transports] of /** @type {const} */ ([
    ['Chromium', chromium, ['fetch', 'webtransport']],
    ['Firefox', firefox, ['webtransport']],
  ])) {
    test(`${name}: a line at a time, over ${transports.join(' and ')}`, TEST, async () => {
      const server = await Server.start({ args: [COMMAND, 'other=demo', '--per-viewer', '--input'] });
      const browser = await launch();
      try {
        for (const transport of transports) {
          const view = await open(browser, `${server.plain}/?transport=${transport}&view=log`);
          await form(view);
          if (transport === 'fetch') {
            await assertAccessible(view, 'with the form');
            await assertFits(view, 'with the form');
          }
          await view.until('a connection', () => document.querySelector('#status')?.textContent?.includes('Connected'));
          // Without a wait in between, and in order.
          await type(view, 'first wörds');
          await type(view, 'second');
          await logged(view, 'got first wörds');
          await logged(view, 'got second');
          assert.equal(await view.page.$eval('#input-line', (line) => /** @type {HTMLInputElement} */ (line).value), '');
          assert.equal(await view.page.evaluate(() => document.activeElement?.id), 'input-line');
          await view.page.click('#input-end');
          await logged(view, 'bye');
          await view.until('the end', () => document.querySelector('#status')?.textContent?.includes('has ended'));
          await type(view, 'too late');
          await view.until('a word about it', () => document.querySelector('#input-said')?.textContent?.includes('press Start'));
          assert.equal(await view.page.$eval('#input-line', (line) => /** @type {HTMLInputElement} */ (line).value), 'too late');
          await view.page.select('#feed', 'other');
          await view.until('no form', () => (/** @type {HTMLElement} */ (document.querySelector('#input'))).hidden);
          await view.assertClean();
          await view.close();
        }
      } finally {
        await browser.close();
        await server.stop();
      }
    });
  }

  test('the token that may send is asked for', TEST, async () => {
    const server = await Server.start({ args: [COMMAND, '--per-viewer', '--input', '--publish-token', TOKEN] });
    const browser = await chromium();
    try {
      for (const transport of ['fetch', 'webtransport']) {
        const view = await open(browser, `${server.plain}/?transport=${transport}&view=log`);
        await form(view);
        await view.until('a connection', () => document.querySelector('#status')?.textContent?.includes('Connected'));
        await type(view, 'hello');
        await view.until('the question', () => document.querySelector('#token-form'));
        await view.page.type('#token', TOKEN);
        await view.page.click('#token-form button');
        if (transport === 'webtransport') {
          await view.until('another session', () => document.querySelector('#input-said')?.textContent?.includes('to a new command'));
          await view.until('its connection', () => document.querySelector('#status')?.textContent?.includes('Connected'));
          // What was refused is there again.
          assert.equal(await view.page.$eval('#input-line', (line) => /** @type {HTMLInputElement} */ (line).value), 'hello');
          await type(view, '');
        }
        await logged(view, 'got hello');
        await view.assertClean(REFUSED);
        await view.close();
      }
    } finally {
      await browser.close();
      await server.stop();
    }
  });
});
