// A library's servers in Chromium without a flag: an app under a prefix, and whose pages may open a session.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { chromium, open } from './lib/browsers.mjs';
import { DEMO } from './lib/checks.mjs';
import { Example } from './lib/example.mjs';
import { Server, WEBTRANSPORT } from './lib/server.mjs';

const TEST = { timeout: 240_000 };

/** @typedef {import('./lib/view.mjs').View} View */

describe('Chromium with no flag', () => {
  /** @type {Example} */ let example;
  /** @type {import('puppeteer-core').Browser} */ let browser;
  before(async () => {
    [example, browser] = await Promise.all([Example.withPage('app_under_prefix'), chromium()]);
  }, TEST);
  after(async () => {
    await browser?.close();
    await example?.stop();
  }, TEST);

  /** @param {View} view */
  const text = async (view) => (await view.reads()).map((read) => read.text).join('');

  test('the page under a prefix, found by a link, reads over either transport', TEST, async () => {
    const view = await open(browser, `${example.plain}/`);
    for (const [transport, protocol] of /** @type {const} */ ([['fetch', /http\/1\.1/], ['webtransport', /WebTransport/]])) {
      await Promise.all([view.page.waitForNavigation(), view.page.click('a[href]')]);
      assert.equal(view.page.url(), `${example.plain}/live/index.html`);
      await view.choose(transport);
      await view.runToEnd();
      assert.match((await view.report()).protocolText, protocol);
      assert.equal(await view.page.$$eval('#log .line, #log .row, #log .chunk', (rows) => rows.length > 0), true);
    }
    await view.assertClean();
    await view.close();
  });

  for (const name of ['fetch', 'webtransport']) {
    test(`the ${name} demo under a prefix, its code and its links`, TEST, async () => {
      const view = await open(browser, `${example.plain}/live/${name}.html`);
      await view.until('the version', () => /\d/.test(document.querySelector('#version')?.textContent ?? ''));
      await view.runToEnd();
      assert.equal(await text(view), DEMO.join(''));
      // Pasted into the console, as the page says.
      const code = await view.page.$eval('#snippet', (element) => element.textContent);
      const printed = /** @type {string[]} */ (await view.page.evaluate(`(async () => {
        const printed = [];
        const console = { log: (text) => printed.push(text) };
        ${code}
        return printed;
      })()`));
      // On a busy machine, one read may bring two chunks; the source makes one each 100 ms.
      assert.equal(printed.join(''), DEMO.join(''));
      assert.ok(printed.length > 1, 'each as it came');
      const links = await view.page.$$eval('a[href]', (links) => links.map((link) => /** @type {HTMLAnchorElement} */ (link).href));
      for (const link of new Set(links)) {
        assert.ok(link.startsWith(`${example.plain}/live/`), link);
        const response = await fetch(link);
        await response.body?.cancel();
        assert.equal(response.status, 200, link);
      }
      await view.close();
    });
  }

  test('a page of another origin opens a session only where origins(…) names it', TEST, async () => {
    const view = await open(browser, `${example.plain}/`);
    /** @param {Server} server */
    const session = (server) => view.page.evaluate(async (url, hash) => {
      const value = Uint8Array.from(atob(hash), (letter) => letter.charCodeAt(0));
      const session = new WebTransport(url, { serverCertificateHashes: [{ algorithm: 'sha-256', value }] });
      session.closed.catch(() => {});
      try {
        await session.ready;
        session.close();
        return 'open';
      } catch (error) {
        return String(error);
      }
    }, `${server.base}/echo`, server.identity?.sha256_base64 ?? '');
    const [refused, named] = await Promise.all([[], ['--origin', example.plain]].map(async (args) => {
      const server = await Server.start({ program: WEBTRANSPORT, args });
      try {
        return await session(server);
      } finally {
        await server.stop();
      }
    }));
    assert.match(refused ?? '', /WebTransportError.*handshake/);
    assert.equal(named, 'open');
    await view.close();
  });
});
