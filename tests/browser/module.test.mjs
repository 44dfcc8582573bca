// examples/page: a page of somebody's own, from another origin, that follows a feed with the module that the server has.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import { describe, test } from 'node:test';
import { chromium, firefox, open } from './lib/browsers.mjs';
import { ROOT, Server } from './lib/server.mjs';

const TEST = { timeout: 60_000 };
/** What browsers write into their console about requests to a server that is gone. */
const GONE = /net::ERR_|Failed to load resource|NetworkError|can’t establish a connection|Connection lost|WebTransport|CORS|Cross-Origin|favicon/;

/** Serves the example as its author would, with the server's address in it. @param {string} plain */
async function pageOfOnesOwn(plain) {
  const html = (await readFile(path.join(ROOT, 'examples/page/index.html'), 'utf8')).replaceAll('http://localhost:8080', plain);
  const site = http.createServer((_, response) => {
    response.writeHead(200, { 'content-type': 'text/html' });
    response.end(html);
  });
  await new Promise((resolve) => site.listen(0, '127.0.0.1', () => resolve(undefined)));
  const { port } = /** @type {import('node:net').AddressInfo} */ (site.address());
  return { base: `http://localhost:${port}/`, stop: () => new Promise((resolve) => {
    site.close(resolve);
    site.closeAllConnections();
  }) };
}

/** @param {import('./lib/view.mjs').View} view @param {number} count */
const lines = (view, count) => view.until(
  `${count} lines`, (wanted) => (document.querySelector('#log')?.textContent ?? '').split('\n').length > wanted, count);
/** @param {import('./lib/view.mjs').View} view @param {string} state */
const inState = (view, state) => view.until(
  state, (wanted) => document.querySelector('#state')?.getAttribute('data-state') === wanted, state, 30_000);
/** @param {import('./lib/view.mjs').View} view @param {string} id */
const text = (view, id) => view.page.$eval(`#${id}`, (element) => element.textContent ?? '');

describe('a page of its own', () => {
  for (const [name, launch] of /** @type {const} */ ([['Chromium', chromium], ['Firefox', firefox]])) {
    test(`${name}: it follows over each transport, resumes after a restart, and continues after a reload`, TEST, async () => {
      let server = await Server.start({ args: ['--count', '0', 'demo'] });
      const site = await pageOfOnesOwn(server.plain);
      const browser = await launch();
      try {
        for (const [asked, says] of [['fetch', 'streaming fetch http/1.1'], ['auto', 'streaming webtransport h3']]) {
          const view = await open(browser, `${site.base}?transport=${asked}`);
          await lines(view, 3);
          assert.equal(await text(view, 'state'), says);
          // Firefox takes long to notice that a session's server is gone.
          if (asked === 'fetch') {
            await server.kill();
            await inState(view, 'reconnecting');
            server = await server.again();
            await inState(view, 'streaming');
            await lines(view, (await text(view, 'log')).split('\n').length + 3);
          }
          await view.page.click('#stop');
          await inState(view, 'stopped');
          const seen = (await text(view, 'log')).split('\n').slice(0, -1);
          assert.deepEqual(seen, seen.map((_, i) => `data chunk #${i}`), 'nothing lost, nothing twice');
          await view.page.reload();
          await lines(view, 2);
          assert.match(await text(view, 'log'), new RegExp(`^data chunk #${seen.length}\n`));
          await view.assertClean(GONE);
          await view.close();
        }
      } finally {
        await browser.close();
        await site.stop();
        await server.stop();
      }
    });
  }
});
