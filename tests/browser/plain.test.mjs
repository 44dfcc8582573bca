// examples/plain in Chromium, with the flags that it prints: the whole idea on the plain crates alone.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { chromium, open } from './lib/browsers.mjs';
import { assertDemo } from './lib/checks.mjs';
import { Example } from './lib/example.mjs';

const TEST = { timeout: 240_000 };

describe('Chromium with the flags that plain prints', () => {
  /** @type {Example} */ let server;
  /** @type {import('puppeteer-core').Browser} */ let browser;
  before(async () => {
    server = await Example.plain();
    browser = await chromium({ flags: server.flags });
  }, TEST);
  after(async () => {
    await browser?.close();
    assert.deepEqual(await server?.stop(), { code: 0, signal: null });
  }, TEST);

  for (const [page, transport, text] of /** @type {const} */ ([
    ['/fetch.html', 'fetch', 'h3'],
    ['/webtransport.html', 'webtransport', 'h3 (WebTransport)'],
  ])) {
    test(`${page} reads ten chunks`, TEST, async () => {
      const view = await open(browser, `${server.base}${page}`);
      assert.equal(await view.navigationProtocol(), 'h3');
      await view.runToEnd();
      const { protocol, protocolText, transport: used } = await view.report();
      assert.deepEqual({ protocol, protocolText, used }, { protocol: 'h3', protocolText: text, used: transport });
      assert.deepEqual(await view.resourceProtocols('/stream'), transport === 'fetch' ? ['h3'] : []);
      await assertDemo(view);
      await view.assertClean();
      await view.close();
    });
  }

  for (const choice of ['auto', 'fetch', 'webtransport']) {
    test(`/ reads ten chunks with ${choice}, and calls the server what it is`, TEST, async () => {
      const view = await open(browser, `${server.base}/`);
      await view.choose(choice);
      await view.runToEnd();
      const { protocol, transport } = await view.report();
      assert.deepEqual({ protocol, transport }, { protocol: 'h3', transport: choice === 'auto' ? 'fetch' : choice });
      await assertDemo(view);
      const shown = await view.page.evaluate(() => ({
        version: document.querySelector('#version')?.textContent,
        missing: document.querySelector('#missing')?.textContent,
        marks: [...document.querySelectorAll('#log .mark')].map((mark) => mark.textContent),
        chrome: /** @type {HTMLElement | null} */ (document.querySelector('#chrome'))?.hidden,
      }));
      assert.match(String(shown.version), /^h3cast \d+\.\d+\.\d+ \(plain\)$/);
      assert.deepEqual({ ...shown, version: '' }, { version: '', missing: '0', marks: ['End The feed has ended.'], chrome: true });
      await view.assertClean();
      await view.close();
    });
  }
});

test('the chat page says that there is none', TEST, async () => {
  const server = await Example.plain();
  const browser = await chromium({ flags: server.flags });
  try {
    const view = await open(browser, `${server.base}/chat.html`);
    await view.state(['error']);
    assert.match((await view.report()).error, /no chat/i);
  } finally {
    await browser.close();
    await server.stop();
  }
});

for (const page of ['/fetch.html', '/webtransport.html']) {
  test(`${page} shows the chunks of a feed without an end as they come, until Stop`, TEST, async () => {
    const server = await Example.plain('0', '20');
    const browser = await chromium({ flags: server.flags });
    try {
      const view = await open(browser, `${server.base}${page}`);
      for (let run = 0; run < 2; run += 1) {
        await view.start();
        await view.state(['streaming']);
        await view.chunksShown(5);
        await view.page.click('#stop');
        await view.state(['stopped']);
        assert.equal((await view.reads())[0]?.text.split('\n')[0], 'data chunk #0');
      }
      await view.assertClean();
    } finally {
      await browser.close();
      await server.stop();
    }
  });
}

test('a window shows the first chunk of /stream, an hour before the second', TEST, async () => {
  const server = await Example.plain('0', '3600000');
  const browser = await chromium({ flags: server.flags });
  try {
    const page = await browser.newPage();
    // It never ends, so neither does the navigation.
    page.goto(`${server.base}/stream`, { timeout: 0 }).catch(() => {});
    await page.waitForFunction(() => document.body?.innerText.includes('data chunk #0'), { polling: 50 });
  } finally {
    await browser.close();
    await server.stop();
  }
});
