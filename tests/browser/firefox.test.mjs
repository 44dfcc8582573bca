// Debian's Firefox, which needs no flag for WebTransport by certificate hash.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { firefox, open } from './lib/browsers.mjs';
import { assertChunkByChunk, assertDemo, assertStopIsSeen } from './lib/checks.mjs';
import { BY_HAND, Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };

describe('Firefox as it is installed', () => {
  /** @type {Server} */ let server;
  /** @type {import('puppeteer-core').Browser} */ let browser;
  before(async () => {
    server = await Server.start();
    browser = await firefox();
  }, TEST);
  after(async () => {
    await browser?.close();
    await server?.stop();
  }, TEST);

  test('/webtransport.html reads a session by certificate hash', TEST, async () => {
    const view = await open(browser, `${server.plain}/webtransport.html`);
    await view.runToEnd();
    const { protocol, protocolText, transport } = await view.report();
    assert.deepEqual(
      { protocol, protocolText, transport },
      { protocol: 'h3', protocolText: 'h3 (WebTransport)', transport: 'webtransport' },
    );
    await assertDemo(view);
    await view.assertClean();
    await view.close();
  });

  test('/ takes WebTransport and says why it left fetch alone', TEST, async () => {
    const view = await open(browser, `${server.plain}/`);
    await view.runToEnd();
    const { protocol, transport, why } = await view.report();
    assert.deepEqual({ protocol, transport }, { protocol: 'h3', transport: 'webtransport' });
    assert.match(why, /WebTransport/);
    assert.match(why, /fetch/i);
    assert.match(why, /http\/1\.1/i, 'it names what fetch would have been');
    await assertDemo(view);
    await view.assertClean();
    await view.shot('firefox-webtransport-1200');
    await view.close();
  });

  test('/fetch.html streams over plain HTTP/1.1 too and calls it that', TEST, async () => {
    const view = await open(browser, `${server.plain}/fetch.html`);
    await view.runToEnd();
    const { protocol, transport } = await view.report();
    assert.deepEqual({ protocol, transport }, { protocol: 'http/1.1', transport: 'fetch' });
    assert.match(await view.page.$eval('#carried', (element) => element.textContent ?? ''), /^HTTP\/1\.1 carried .* reports “http\/1\.1”/);
    assert.match(await view.page.$eval('#chrome-command', (element) => element.textContent ?? ''), / https:\/\/localhost:\d+\/fetch\.html$/);
    await assertDemo(view);
    await view.assertClean();
    await view.close();
  });
});

describe('Firefox without WebTransport', () => {
  /** @type {Server} */ let server;
  /** @type {import('puppeteer-core').Browser} */ let browser;
  before(async () => {
    server = await Server.start();
    browser = await firefox({ prefs: { 'network.webtransport.enabled': false } });
  }, TEST);
  after(async () => {
    await browser?.close();
    await server?.stop();
  }, TEST);

  test('/ says so and falls back to fetch', TEST, async () => {
    const view = await open(browser, `${server.plain}/`);
    assert.equal(await view.page.evaluate(() => typeof WebTransport), 'undefined');
    await view.runToEnd();
    const { protocol, transport, why } = await view.report();
    assert.deepEqual({ protocol, transport }, { protocol: 'http/1.1', transport: 'fetch' });
    assert.match(why, /WebTransport is not available here/);
    await assertDemo(view);
    await view.assertClean();
    await view.close();
  });

  test('/webtransport.html says so', TEST, async () => {
    const view = await open(browser, `${server.plain}/webtransport.html`);
    await view.until('words about it', () => /WebTransport is not available here/.test(document.body.innerText));
    assert.equal((await view.report()).shown, 0);
    await view.assertClean();
    await view.close();
  });
});

describe('Firefox with a source driven by hand', () => {
  test('WebTransport by certificate hash: every chunk before the next one is made, and a stop is seen', TEST, async () => {
    const server = await Server.start({ program: BY_HAND });
    const browser = await firefox();
    try {
      const view = await open(browser, `${server.plain}/webtransport.html`);
      await assertStopIsSeen(view, server);
      await assertChunkByChunk(view, server);
      assert.equal((await view.report()).transport, 'webtransport');
      await view.assertClean();
    } finally {
      await browser.close();
      await server.stop();
    }
  });
});
