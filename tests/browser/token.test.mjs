// A token that ends while the page reads: it gets another one, from a login of the same origin or from its visitor,
// and resumes with nothing lost.
import assert from 'node:assert/strict';
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import { assertAccessible } from './lib/accessible.mjs';
import { chromium, firefox, open } from './lib/browsers.mjs';
import { assertEveryNumber, chunksAfterMark, marked } from './lib/log.mjs';
import { Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };
const NUMBERS = 'exec:i=0; while :; do echo "number $i"; i=$((i+1)); sleep 0.1; done';
/** What browsers write into their console about requests that are refused. */
const REFUSED = /net::ERR_|Failed to load resource|NetworkError|Connection lost|WebTransport|401/;

/** Tokens in a file, which is replaced in one step. */
class Tokens {
  serial = 0;
  /** @param {string} folder */
  constructor(folder) {
    this.folder = folder;
    this.file = path.join(folder, 'tokens');
  }

  get current() {
    return `the-token-with-the-number-${this.serial}`;
  }

  async next() {
    this.serial += 1;
    await writeFile(`${this.file}.new`, `read=* ${this.current}\n`, { mode: 0o600 });
    await rename(`${this.file}.new`, this.file);
  }
}

/**
 * A login in front of the server's plain HTTP, as a reverse proxy has one.
 * @param {string} plain
 * @param {() => string} token
 */
async function login(plain, token) {
  let asked = 0;
  const proxy = http.createServer((request, response) => {
    if (request.method === 'POST' && request.url === '/login/token') {
      asked += 1;
      response.end(JSON.stringify({ token: token() }));
      return;
    }
    const { method, headers } = request;
    const passed = http.request(plain + request.url, { method, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
      answer.on('error', () => response.destroy());
    });
    passed.on('error', () => response.destroy());
    response.on('close', () => passed.destroy());
    request.pipe(passed);
  });
  await new Promise((resolve) => proxy.listen(0, '127.0.0.1', () => resolve(undefined)));
  const address = /** @type {import('node:net').AddressInfo} */ (proxy.address());
  return {
    base: `http://localhost:${address.port}`,
    asked: () => asked,
    stop: () => new Promise((resolve) => {
      proxy.close(resolve);
      proxy.closeAllConnections();
    }),
  };
}

describe('a token that ends', () => {
  for (const [name, launch] of /** @type {const} */ ([['Chromium', chromium], ['Firefox', firefox]])) {
    test(`${name}: the page renews it and resumes, over fetch and WebTransport`, TEST, async () => {
      const folder = await mkdtemp(path.join(tmpdir(), 'h3cast-tokens-'));
      const tokens = new Tokens(folder);
      await tokens.next();
      const server = await Server.start({ args: ['--tokens', tokens.file, '--auth-renewal', '/login/token', NUMBERS] });
      const proxy = await login(server.plain, () => tokens.current);
      const browser = await launch();
      try {
        for (const transport of ['fetch', 'webtransport']) {
          const view = await open(browser, `${proxy.base}/?transport=${transport}`);
          await view.start();
          await view.chunksShown(3);
          const before = proxy.asked();
          await tokens.next();
          await marked(view, 'back');
          await chunksAfterMark(view, 3);
          await assertEveryNumber(view);
          const { state, error, transport: used } = await view.report();
          assert.deepEqual({ state, error, used }, { state: 'streaming', error: '', used: transport });
          assert.equal(await view.page.$eval('#missing', (e) => e.textContent), '0');
          assert.ok(proxy.asked() > before, 'the login was asked');
          await view.assertClean(REFUSED);
          await view.page.close();
        }
      } finally {
        await browser.close();
        await proxy.stop();
        await server.stop();
        await rm(folder, { recursive: true, force: true });
      }
    });
  }

  test('without a login the page asks its visitor', TEST, async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'h3cast-tokens-'));
    const tokens = new Tokens(folder);
    await tokens.next();
    const server = await Server.start({ args: ['--tokens', tokens.file, NUMBERS] });
    const browser = await chromium();
    try {
      const view = await open(browser, `${server.plain}/?transport=fetch`);
      const give = async () => {
        await view.until('the question', () => document.querySelector('#token-form'));
        await view.page.type('#token', tokens.current);
        await view.page.click('#token-form button');
      };
      await view.until('the question', () => document.querySelector('#token-form'));
      await assertAccessible(view, 'while it asks for a token');
      await give();
      await view.until('no question', () => document.querySelector('#token-form') === null);
      // It follows the feed as soon as it may.
      await view.chunksShown(3);
      await tokens.next();
      await give();
      await marked(view, 'back');
      await chunksAfterMark(view, 3);
      await assertEveryNumber(view);
      assert.doesNotMatch(view.page.url(), /token=/);
      await view.assertClean(REFUSED);
    } finally {
      await browser.close();
      await server.stop();
      await rm(folder, { recursive: true, force: true });
    }
  });
});
