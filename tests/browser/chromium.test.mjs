// Chromium, once with the flags that `h3cast open chrome` uses and once with none.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { chromium, open } from './lib/browsers.mjs';
import { assertChunkByChunk, assertDemo, assertStopIsSeen } from './lib/checks.mjs';
import { BY_HAND, Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };

describe('Chromium that trusts the certificate and speaks HTTP/3 from the first request', () => {
  /** @type {Server} */ let server;
  /** @type {import('puppeteer-core').Browser} */ let browser;
  before(async () => {
    server = await Server.start();
    browser = await chromium({ trust: server });
  }, TEST);
  after(async () => {
    await browser?.close();
    await server?.stop();
  }, TEST);

  test('/ comes over h3 and reads with fetch over h3 of its own accord', TEST, async () => {
    const view = await open(browser, `${server.base}/`);
    assert.equal(await view.navigationProtocol(), 'h3');
    await view.runToEnd();
    const { protocol, protocolText, transport, why } = await view.report();
    assert.deepEqual({ protocol, protocolText, transport }, { protocol: 'h3', protocolText: 'h3', transport: 'fetch' });
    assert.match(why, /fetch/i);
    assert.deepEqual(new Set(await view.resourceProtocols('/stream')), new Set(['h3']));
    await assertDemo(view);
    await view.assertClean();
    await view.close();
  });

  for (const choice of ['fetch', 'webtransport']) {
    test(`/ reads with ${choice} when told to`, TEST, async () => {
      const view = await open(browser, `${server.base}/`);
      await view.choose(choice);
      await view.runToEnd();
      const { protocol, transport } = await view.report();
      assert.deepEqual({ protocol, transport }, { protocol: 'h3', transport: choice });
      await assertDemo(view);
      await view.assertClean();
      await view.close();
    });
  }

  test('/fetch.html reads over h3', TEST, async () => {
    const view = await open(browser, `${server.base}/fetch.html`);
    assert.equal(await view.navigationProtocol(), 'h3');
    await view.runToEnd();
    const { protocol, protocolText, transport } = await view.report();
    assert.deepEqual({ protocol, protocolText, transport }, { protocol: 'h3', protocolText: 'h3', transport: 'fetch' });
    assert.deepEqual(await view.resourceProtocols('/stream'), ['h3']);
    assert.match(await view.page.$eval('#carried', (element) => element.textContent ?? ''), /^HTTP\/3 carried .* reports “h3”/);
    await assertDemo(view);
    await view.assertClean();
    await view.close();
  });

  test('/webtransport.html reads a session', TEST, async () => {
    const view = await open(browser, `${server.base}/webtransport.html`);
    assert.equal(await view.navigationProtocol(), 'h3');
    await view.runToEnd();
    const { protocol, protocolText, transport } = await view.report();
    assert.deepEqual(
      { protocol, protocolText, transport },
      { protocol: 'h3', protocolText: 'h3 (WebTransport)', transport: 'webtransport' },
    );
    assert.deepEqual(await view.resourceProtocols('/stream'), [], 'no fetch was made');
    await assertDemo(view);
    await view.assertClean();
    await view.close();
  });

  test('a second run on the same page starts afresh', TEST, async () => {
    const view = await open(browser, `${server.base}/fetch.html`);
    await view.runToEnd();
    await view.page.evaluate(() => {
      for (const chunk of document.querySelectorAll('#log .chunk')) chunk.setAttribute('data-before', '');
    });
    await view.start();
    await view.until('the second end', () =>
      document.querySelector('#status')?.getAttribute('data-state') === 'done' &&
      !document.querySelector('#log .chunk[data-before]'));
    await assertDemo(view);
    await view.assertClean();
    await view.close();
  });
});

describe('Chromium with no flag', () => {
  /** @type {Server} */ let server;
  /** @type {import('puppeteer-core').Browser} */ let browser;
  before(async () => {
    server = await Server.start();
    browser = await chromium();
  }, TEST);
  after(async () => {
    await browser?.close();
    await server?.stop();
  }, TEST);

  test('/webtransport.html reads a session by certificate hash', TEST, async () => {
    const view = await open(browser, `${server.plain}/webtransport.html`);
    assert.equal(await view.navigationProtocol(), 'http/1.1');
    await view.runToEnd();
    const { protocol, transport } = await view.report();
    assert.deepEqual({ protocol, transport }, { protocol: 'h3', transport: 'webtransport' });
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
    await view.close();
  });

  test('/fetch.html streams over plain HTTP/1.1 too and calls it that', TEST, async () => {
    const view = await open(browser, `${server.plain}/fetch.html`);
    await view.runToEnd();
    const { protocol, transport } = await view.report();
    assert.deepEqual({ protocol, transport }, { protocol: 'http/1.1', transport: 'fetch' });
    await assertDemo(view);
    await view.assertClean();
    await view.close();
  });
});

describe('Chromium with a source driven by hand', () => {
  for (const [name, trusted, path] of /** @type {const} */ ([
    ['fetch over h3', true, '/fetch.html'],
    ['WebTransport', true, '/webtransport.html'],
    ['WebTransport by certificate hash', false, '/webtransport.html'],
  ])) {
    test(`${name}: every chunk before the next one is made, and a stop is seen`, TEST, async () => {
      const server = await Server.start({ program: BY_HAND });
      const browser = await chromium(trusted ? { trust: server } : {});
      try {
        const view = await open(browser, `${trusted ? server.base : server.plain}${path}`);
        await assertStopIsSeen(view, server);
        await assertChunkByChunk(view, server);
        assert.equal((await view.report()).protocol, 'h3');
        await view.assertClean();
      } finally {
        await browser.close();
        await server.stop();
      }
    });
  }
});
