// The page that shows the transports side by side, in browsers that can run all of them and in some that cannot.
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { assertAccessible, assertFits } from './lib/accessible.mjs';
import { chromium, firefox, open } from './lib/browsers.mjs';
import { Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };
const IDS = ['fetch-h3', 'fetch-tcp', 'eventsource', 'wt-stream', 'wt-datagrams'];
/** What browsers say of the TLS port's certificate, which nobody has told them to trust. */
const UNTRUSTED = /ERR_CERT_AUTHORITY_INVALID|Cross-Origin Request Blocked/;

/** @typedef {import('./lib/view.mjs').View} View */

/** What each card shows. @param {View} view */
async function cards(view) {
  const all = await view.page.$$eval('.lane', (lanes) => lanes.map((lane) => {
    const field = (/** @type {string} */ name) => lane.querySelector(`[data-field="${name}"]`)?.textContent ?? '';
    const { lane: id, state } = /** @type {HTMLElement} */ (lane).dataset;
    return {
      id, state, protocol: field('protocol'), note: field('protocol-note'), chunks: field('chunks'), bytes: field('bytes'),
      missing: field('missing'), tooLong: field('missing-note'), lag: field('lag'), first: field('first'),
      intervals: field('intervals'), error: field('error'),
    };
  }));
  assert.deepEqual(all.map(({ id }) => id), IDS);
  return /** @type {[h3: typeof all[0], tcp: typeof all[0], events: typeof all[0], stream: typeof all[0], datagrams: typeof all[0]]} */ (all);
}

/** @param {View} view @param {string} [state] */
async function run(view, state = 'done') {
  await view.start();
  await view.state(['done', 'error', 'stopped']);
  assert.equal((await view.report()).state, state, JSON.stringify(await cards(view)));
}

/** How many pixels of the plot are those of chunks. @param {View} view */
const drawn = (view) => view.page.$eval('#axis', (canvas) => {
  const { width, height } = /** @type {HTMLCanvasElement} */ (canvas);
  const context = /** @type {CanvasRenderingContext2D} */ (/** @type {HTMLCanvasElement} */ (canvas).getContext('2d'));
  const { data } = context.getImageData(0, 0, width, height);
  // Texts and lines are grey.
  return data.filter((green, at) => at % 4 === 1 && green > (data[at - 1] ?? 0) + 60).length;
});

/** @param {Awaited<ReturnType<typeof cards>>[0]} card @param {number} chunks */
function assertWhole(card, chunks) {
  const { id, state, missing } = card;
  assert.deepEqual({ id, state, missing, chunks: card.chunks }, { id, state: 'done', missing: '0', chunks: String(chunks) });
  assert.match(card.lag, /^-?[\d.]+ m?s$/);
  assert.match(card.first, /^[\d.]+ m?s$/);
  assert.match(card.intervals, /^half .*, 99 % .*, longest [\d.]+ m?s$/);
}

describe('the transports side by side', () => {
  /** @type {Server} */ let server;
  /** @type {import('puppeteer-core').Browser} */ let browser;
  let folder = '';
  /** Is there when the feed `log` may begin. */
  let go = '';
  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'h3cast-compare-'));
    go = path.join(folder, 'go');
    server = await Server.start({ args: ['demo', `log=exec:until [ -e ${go} ]; do sleep 0.05; done; echo one; echo two; exit 3`] });
    browser = await chromium({ trust: server });
  }, TEST);
  after(async () => {
    await browser?.close();
    await server?.stop();
    await rm(folder, { recursive: true });
  }, TEST);

  test('all five at once, each with the protocol that the browser reports', TEST, async () => {
    const view = await open(browser, `${server.plain}/compare.html?seconds=2&rate=20&burst=4&size=500`, { width: 1280, height: 800, dark: false });
    await assertAccessible(view, 'before');
    await run(view);
    const all = await cards(view);
    for (const card of all) {
      assertWhole(card, 40);
      assert.equal(card.bytes, '20.0 kB');
    }
    const [h3, tcp, events, stream, datagrams] = all;
    assert.deepEqual([h3.protocol, tcp.protocol, events.protocol], ['h3', 'http/1.1', 'h3']);
    for (const { note } of [h3, tcp, events]) assert.match(note, /as the browser reports it for this request/);
    for (const { protocol, note } of [stream, datagrams]) {
      assert.equal(protocol, '–', 'nothing that the browser did not report');
      assert.match(note, /reports none/);
    }
    assert.ok((await drawn(view)) > 50, 'the plot shows it');
    const label = await view.page.$eval('#axis', (canvas) => canvas.getAttribute('aria-label'));
    assert.match(label ?? '', /WebTransport datagrams: 40 chunks, lag .*, 0 missing\./);
    assert.equal(await view.page.$eval('#chrome', (section) => section.checkVisibility()), false);
    await assertAccessible(view, 'after');
    await view.shot('compare-1280-light');
    await view.assertClean();
    await view.close();
  });

  test('what is too long for a datagram is reported and missing, there alone; dark, on a phone', TEST, async () => {
    const view = await open(browser, `${server.plain}/compare.html?seconds=0.5&rate=20&burst=5&size=5000`, { width: 360, height: 740, dark: true });
    await run(view);
    const all = await cards(view);
    for (const card of all.slice(0, 4)) assertWhole(card, 10);
    const [, , , , datagrams] = all;
    assert.deepEqual([datagrams.chunks, datagrams.missing, datagrams.tooLong], ['0', '10', '10 too long for a datagram']);
    await assertFits(view, 'on a phone');
    await assertAccessible(view, 'dark, on a phone');
    await view.shot('compare-360-dark');
    await view.assertClean();
    await view.close();
  });

  test('without an end until all are stopped, by keyboard', TEST, async () => {
    const view = await open(browser, `${server.plain}/compare.html`);
    await view.page.select('#seconds', '0');
    assert.match(view.page.url(), /seconds=0/, 'a link shows the same');
    await view.until('the start button', () => !document.querySelector('#start')?.matches(':disabled'));
    await view.page.focus('#start');
    await view.page.keyboard.press('Enter');
    await view.until('chunks over each', () => [...document.querySelectorAll('.lane [data-field="chunks"]')].every((e) => Number(e.textContent) > 2));
    assert.equal(await view.page.evaluate(() => document.activeElement?.id), 'stop');
    await view.page.keyboard.press('Enter');
    await view.state(['stopped', 'error']);
    for (const { state } of await cards(view)) assert.equal(state, 'stopped');
    await view.assertClean();
    await view.close();
  });

  test('from the TLS port all requests are HTTP/3, and the page says what to do', TEST, async () => {
    const view = await open(browser, `${server.base}/compare.html?seconds=0.5&rate=20&burst=5`);
    await run(view);
    const [h3, tcp, ...rest] = await cards(view);
    assert.equal(tcp.state, 'unavailable');
    assert.match(tcp.error, /reports h3 for https:\/\/localhost:\d+.*over plain HTTP/);
    for (const card of [h3, ...rest]) assertWhole(card, 10);
    await view.assertClean();
    await view.close();
  });

  test('started while the page still looks at what can run: what it finds changes nothing', TEST, async () => {
    const view = await open(browser, `${server.plain}/status`);
    /** @type {import('puppeteer-core').HTTPRequest[]} */
    const asked = [];
    const isInfo = (/** @type {import('puppeteer-core').HTTPRequest} */ request) => new URL(request.url()).pathname === '/info';
    await view.page.setRequestInterception(true);
    view.page.on('request', (request) => void ((isInfo(request) && asked.push(request) === 1) || request.continue()));
    const first = view.page.waitForRequest(isInfo);
    await view.page.goto(`${server.plain}/compare.html?seconds=0.5&rate=20&burst=5`, { waitUntil: 'domcontentloaded' });
    await first;
    await run(view);
    const before = await cards(view);
    for (const card of before) assertWhole(card, 10);
    const late = view.page.waitForResponse((response) => response.request() === asked[0]);
    await asked[0]?.continue();
    await (await late).text();
    // A turn of the page, in which it has read that.
    await view.page.evaluate(() => new Promise((resolve) => setTimeout(resolve)));
    assert.deepEqual(await cards(view), before);
    await view.assertClean();
    await view.close();
  });

  test('a live one that fails is read to its end over each, and one that is not there is named', TEST, async () => {
    const view = await open(browser, `${server.plain}/compare.html?feed=log`);
    await view.start();
    await view.until('all are open', () => document.querySelectorAll('.lane[data-state="running"]').length === 5);
    await writeFile(go, '');
    await view.state(['error', 'done']);
    for (const { id, state, chunks, error } of await cards(view)) {
      assert.deepEqual({ id, state, chunks }, { id, state: 'failed', chunks: '2' });
      assert.match(error, /command exited with status 3/, id);
    }
    await view.assertClean();
    await view.close();
    const other = await open(browser, `${server.plain}/compare.html?feed=none`);
    await other.start();
    await other.state(['error']);
    assert.match((await other.report()).error, /there is no feed `none`/);
  });
});

// Both mostly wait.
describe('a browser that does not trust the certificate', { concurrency: true }, () => {
  /** @type {Server} */ let server;
  before(async () => {
    server = await Server.start();
  }, TEST);
  after(async () => {
    await server?.stop();
  }, TEST);

  for (const [name, launch] of /** @type {const} */ ([['Chromium', chromium], ['Firefox', firefox]])) {
    test(`${name}: four run, and the fifth says what to do`, TEST, async () => {
      const browser = await launch();
      try {
        const view = await open(browser, `${server.plain}/compare.html?seconds=0.5&rate=20&burst=5`, { width: 1280, height: 800 });
        await view.until('what cannot run, before the start', () => document.querySelector('.lane')?.getAttribute('data-state') === 'unavailable');
        await run(view);
        const [h3, ...rest] = await cards(view);
        assert.equal(h3.state, 'unavailable');
        assert.match(h3.error, /no answer from https:\/\/localhost:\d+.*Start Chrome with the command/);
        for (const card of rest) assertWhole(card, 10);
        const [tcp, events, stream] = rest;
        assert.deepEqual([tcp?.protocol, events?.protocol, stream?.protocol], ['http/1.1', 'http/1.1', '–']);
        const command = await view.page.$eval('#chrome-command', (element) => element.textContent ?? '');
        assert.match(command, /--origin-to-force-quic-on=localhost:\d+ --ignore-certificate-errors-spki-list=\S+ http:\/\/localhost:\d+\/compare\.html$/);
        await view.page.click('[data-copy="chrome-command"]');
        await view.until('a word that it was copied', () => /Copied|Selected/.test(document.querySelector('[data-copy]')?.textContent ?? ''));
        if (name === 'Chromium') await assertAccessible(view, 'with one that cannot run');
        await view.shot(`compare-${name.toLowerCase()}`);
        await view.assertClean(UNTRUSTED);
      } finally {
        await browser.close();
      }
    });
  }
});
