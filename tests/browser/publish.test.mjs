// Publishing from the page: a line, a file, the token that is asked for, and a connection that breaks in the middle.
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import { assertAccessible, assertFits } from './lib/accessible.mjs';
import { chromium, firefox, open } from './lib/browsers.mjs';
import { Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };
const TOKEN = 'a-token-to-publish-with';
/** What browsers write into their console about requests that are refused or cut. */
const REFUSED = /net::ERR_|Failed to load resource|NetworkError|401/;

/** In front of the server: breaks the first long POST after some bytes, and holds up one when asked. @param {string} plain */
async function breaking(plain) {
  let broken = 0;
  /** @type {(() => void) | undefined} */
  let held;
  const proxy = http.createServer((request, response) => {
    const { method, headers } = request;
    const passed = http.request(plain + request.url, { method, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
      answer.on('error', () => response.destroy());
    });
    passed.on('error', () => response.destroy());
    response.on('close', () => passed.destroy());
    let seen = 0;
    request.on('data', (bytes) => {
      seen += bytes.length;
      if (held !== undefined && seen > 100_000) {
        request.unpipe(passed);
        request.pause();
        held();
        held = undefined;
      }
      if (broken > 0 || seen < 500_000) return;
      broken += 1;
      passed.destroy();
      request.destroy();
    });
    request.pipe(passed);
  });
  await new Promise((resolve) => proxy.listen(0, '127.0.0.1', () => resolve(undefined)));
  const { port } = /** @type {import('node:net').AddressInfo} */ (proxy.address());
  /** Resolves when the next long POST stands still. */
  const hold = () => new Promise((resolve) => {
    held = () => resolve(undefined);
  });
  return { base: `http://localhost:${port}`, broken: () => broken, hold, stop: () => new Promise((resolve) => {
    proxy.close(resolve);
    proxy.closeAllConnections();
  }) };
}

/** The first bytes of a feed. @param {string} url @param {number} length */
async function read(url, length) {
  const over = new AbortController();
  const response = await fetch(`${url}?from=start`, { signal: over.signal });
  let text = '';
  const decoder = new TextDecoder();
  for await (const bytes of /** @type {AsyncIterable<Uint8Array>} */ (/** @type {unknown} */ (response.body))) {
    text += decoder.decode(bytes, { stream: true });
    if (text.length >= length) break;
  }
  over.abort();
  return text;
}

/** @param {import('./lib/view.mjs').View} view @param {string} words */
const said = (view, words) => view.until(
  words, (wanted) => document.querySelector('#publish-said')?.textContent?.includes(wanted), words);

describe('publishing from the page', () => {
  for (const [name, launch] of /** @type {const} */ ([['Chromium', chromium], ['Firefox', firefox]])) {
    test(`${name}: a line with the token asked for, and a file through a break, nothing twice`, TEST, async () => {
      const folder = await mkdtemp(path.join(tmpdir(), 'h3cast-publish-'));
      const file = path.join(folder, 'much.txt');
      const much = Array.from({ length: 10_000 }, (_, i) => `line ${i} of much: ${'x'.repeat(80)}\n`).join('');
      await writeFile(file, much);
      const server = await Server.start({ args: ['--publish-token', TOKEN, '--history', '64M', 'default=publish', 'other=demo'] });
      const proxy = await breaking(server.plain);
      const browser = await launch();
      try {
        const view = await open(browser, `${proxy.base}/?transport=fetch&view=log`);
        await view.until('the form', () => !(/** @type {HTMLElement} */ (document.querySelector('#publish'))).hidden);
        await assertAccessible(view, 'with the form');
        await assertFits(view, 'with the form');
        await view.page.type('#publish-line', 'first wörds');
        await view.page.keyboard.press('Enter');
        await view.until('the question', () => document.querySelector('#token-form'));
        await view.page.type('#token', TOKEN);
        await view.page.click('#token-form button');
        await said(view, 'Published.');
        await view.until('the line in the log', () => document.querySelector('#log')?.textContent?.includes('first wörds'));
        assert.equal(await view.page.$eval('#publish-line', (input) => /** @type {HTMLInputElement} */ (input).value), '');
        const input = /** @type {import('puppeteer-core').ElementHandle<HTMLInputElement>} */ (await view.page.$('#publish-file'));
        await input.uploadFile(file);
        await said(view, 'Published much.txt');
        assert.equal(proxy.broken(), 1, 'it was cut in the middle');
        // A small one, dropped.
        await view.page.$eval('#publish', (form) => {
          const data = new DataTransfer();
          data.items.add(new File(['dropped\n'], 'small.txt', { type: 'text/plain' }));
          form.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));
        });
        await said(view, 'Published small.txt');
        // One that stands still is cancelled, and continued.
        const standing = proxy.hold();
        await input.uploadFile(file);
        await standing;
        // It is told of to its end, whatever feed is looked at meanwhile.
        await view.page.select('#feed', 'other');
        await said(view, 'to “default”…');
        await view.page.focus('#publish-cancel');
        await view.page.keyboard.press('Enter');
        await said(view, 'Cancelled.');
        await assertFits(view, 'when a publication to another feed was cancelled');
        await assertAccessible(view, 'when a publication was cancelled');
        assert.equal(await view.page.$eval('#publish-send', (button) => button.textContent), 'Continue');
        // The keyboard's place is not lost with the button.
        assert.equal(await view.page.evaluate(() => document.activeElement?.id), 'publish-send');
        const cancel = await view.page.evaluateHandle(() => ({
          reached: new Promise((resolve) => document.querySelector('#publish-cancel')?.addEventListener('focus', () => resolve(true), { once: true })),
        }));
        await view.page.keyboard.press('Enter');
        await cancel.evaluate(({ reached }) => reached);
        await said(view, 'Published much.txt to “default”, ');
        assert.equal(await view.page.$eval('#publish-cancel', (button) => button.checkVisibility()), false);
        const whole = `first wörds\n${much}dropped\n${much}`;
        assert.equal(await read(`${server.plain}/stream`, whole.length), whole);
        assert.equal(await view.page.$eval('#publish-line', (line) => line.checkVisibility()), false, 'the feed that is shown is not written');
        await view.page.select('#feed', 'default');
        await view.until('the form, empty', () => /** @type {HTMLElement} */ (document.querySelector('#publish-line')).checkVisibility() && document.querySelector('#publish-said')?.textContent === '');
        await view.page.select('#feed', 'other');
        await view.until('no form', () => (/** @type {HTMLElement} */ (document.querySelector('#publish'))).hidden);
        await view.assertClean(REFUSED);
        await view.close();
      } finally {
        await browser.close();
        await proxy.stop();
        await server.stop();
        await rm(folder, { recursive: true, force: true });
      }
    });
  }
});
