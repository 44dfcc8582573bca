// Input for a command from the page: a line at a time over each transport, its end, and the token that is asked for.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { assertAccessible, assertFits } from './lib/accessible.mjs';
import { chromium, firefox, open } from './lib/browsers.mjs';
import { Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };
const TOKEN = 'a-token-to-publish-with';
const COMMAND = 'exec:while read line; do echo "got $line"; done; echo bye';
const CLOSES = 'exec:read line; echo "got $line"; exec 0<&-; echo closed; sleep 60';
/** What browsers write into their console about requests that are refused. */
const REFUSED = /net::ERR_|Failed to load resource|NetworkError|401|410/;

/** @param {import('./lib/view.mjs').View} view @param {string} words */
const logged = (view, words) => view.until(
  `“${words}” in the log`, (wanted) => document.querySelector('#log')?.textContent?.includes(wanted), words);

/** @param {import('./lib/view.mjs').View} view @param {string} line */
async function type(view, line) {
  await view.page.type('#input-line', line);
  await view.page.keyboard.press('Enter');
}

/** @param {import('./lib/view.mjs').View} view */
const form = (view) => view.until('the form', () => document.querySelector('#input')?.checkVisibility());

for (const [name, launch, transports] of /** @type {const} */ ([
  ['Chromium', chromium, ['fetch', 'webtransport']],
  ['Firefox', firefox, ['webtransport']],
])) {
  describe(`input for a command from the page in ${name}`, () => {
    /** @type {Server} */ let server;
    /** @type {Server} */ let guarded;
    /** @type {import('puppeteer-core').Browser} */ let browser;
    before(async () => {
      [browser, server, guarded] = await Promise.all([
        launch(), Server.start({ args: [COMMAND, `two=${COMMAND}`, `closes=${CLOSES}`, 'other=demo', '--per-viewer', '--input'] }),
        Server.start({ args: [COMMAND, '--per-viewer', '--input', '--publish-token', TOKEN] }),
      ]);
    }, TEST);
    after(async () => {
      await browser?.close();
      await Promise.all([server?.stop(), guarded?.stop()]);
    }, TEST);

    /** The page with its form and a connection. @param {Server} at @param {string} transport @param {string} [feed] */
    async function connected(at, transport, feed = 'default') {
      const view = await open(browser, `${at.plain}/?feed=${feed}&transport=${transport}&view=log`);
      await form(view);
      await view.until('a connection', () => document.querySelector('#status')?.textContent?.includes('Connected'));
      return view;
    }

    for (const transport of transports) {
      test(`a line at a time, over ${transport}`, TEST, async () => {
        const view = await connected(server, transport);
        if (transport === 'fetch') {
          await assertAccessible(view, 'with the form');
          await assertFits(view, 'with the form');
        }
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
        await view.page.select('#feed', 'two');
        await view.until('nothing said of another command', () => document.querySelector('#input-said')?.textContent === '');
        assert.equal(await view.page.$eval('#input', (form) => form.checkVisibility()), true);
        await view.page.select('#feed', 'other');
        await view.until('no form', () => (/** @type {HTMLElement} */ (document.querySelector('#input'))).hidden);
        await view.assertClean();
        await view.close();
      });
    }

    if (name === 'Firefox') return;

    for (const transport of transports) {
      test(`a command that closes its input, over ${transport}`, TEST, async () => {
        const view = await connected(server, transport, 'closes');
        await type(view, 'one');
        await logged(view, 'closed');
        for (const line of ['two', 'three']) {
          await type(view, line);
          await view.until('why it takes no more', () => /closed/.test(document.querySelector('#input-said')?.textContent ?? ''));
        }
        assert.equal(await view.page.$('#token-form'), null);
        await view.assertClean(REFUSED);
        await view.close();
      });
    }

    for (const transport of transports) {
      test(`the token that may send is asked for, over ${transport}`, TEST, async () => {
        const view = await connected(guarded, transport);
        await type(view, 'hello');
        await view.until('the question', () => document.querySelector('#token-form'));
        await view.page.type('#token', TOKEN);
        await view.page.click('#token-form button');
        if (transport === 'webtransport') {
          await view.until('another session', () => document.querySelector('#input-said')?.textContent === '');
          await view.until('its connection', () => document.querySelector('#status')?.textContent?.includes('Connected'));
          // What was refused is there again.
          assert.equal(await view.page.$eval('#input-line', (line) => /** @type {HTMLInputElement} */ (line).value), 'hello');
          await type(view, '');
        }
        await logged(view, 'got hello');
        await view.assertClean(REFUSED);
        await view.close();
      });
    }
  });
}
