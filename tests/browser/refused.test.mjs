// Pages that the server refuses, for now or for good: what they say, how often they ask, and that they get in later.
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import { assertAccessible } from './lib/accessible.mjs';
import { chromium, firefox, open } from './lib/browsers.mjs';
import { Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };
/** What browsers write into their console about requests that are refused. */
const REFUSED = /net::ERR_|Failed to load resource|NetworkError|WebTransport|can’t establish a connection/;
const NUMBERS = 'exec:i=0; while :; do echo "number $i"; i=$((i+1)); sleep 0.1; done';

/**
 * Runs `act` with a server whose places for viewers' commands are taken, until `holder` is aborted.
 * @param {() => Promise<import('puppeteer-core').Browser>} launch
 * @param {readonly [string, string]} limits all, and of each client
 * @param {(full: { base: string, browser: import('puppeteer-core').Browser, holder: AbortController }) => Promise<void>} act
 */
async function whileFull(launch, [all, each], act) {
  // One address: a client that is counted once.
  const server = await Server.start({ host: '127.0.0.1', args: ['--per-viewer', '--max-processes', all, '--processes-per-client', each, NUMBERS] });
  const browser = await launch();
  const holder = new AbortController();
  const base = server.plain.replace('localhost', '127.0.0.1');
  try {
    const held = await fetch(`${base}/stream`, { signal: holder.signal });
    assert.equal(held.status, 200);
    await act({ base, browser, holder });
  } finally {
    holder.abort();
    await browser.close();
    await server.stop();
  }
}

/** Waits until the page has asked for the feed so often, and gives when. @param {import('./lib/view.mjs').View} view @param {number} count */
async function asked(view, count) {
  await view.page.waitForFunction((wanted) => performance.getEntriesByType('resource').filter(({ name }) => new URL(name).pathname === '/stream').length >= wanted, { timeout: 60_000, polling: 100 }, count);
  return view.page.evaluate(() => performance.getEntriesByType('resource').filter(({ name }) => new URL(name).pathname === '/stream').map(({ startTime }) => startTime));
}

/**
 * Makes the page one whose next `/info` can be held, with `hold`, until `go`.
 * @param {import('./lib/view.mjs').View} view
 */
async function holdable({ page }) {
  await page.evaluateOnNewDocument(() => {
    const real = globalThis.fetch;
    const info = { held: Promise.resolve(), room: Promise.resolve(), ask: () => {}, go: () => {}, hold: () => {
      info.room = new Promise((resolve) => { info.go = resolve; });
      info.held = new Promise((resolve) => { info.ask = resolve; });
    } };
    Object.assign(window, { info });
    globalThis.fetch = async (what, how) => {
      if (new URL(String(what), location.href).pathname === '/info') {
        info.ask();
        await info.room;
      }
      return real(what, how);
    };
  });
  await page.reload();
}

/**
 * Frees the place between two attempts of the page, of which each begins with `/info`. Else one attempt could find no
 * room for its session, and room for the fetch after it.
 * @param {import('./lib/view.mjs').View} view
 * @param {string} base
 * @param {AbortController} holder
 */
async function makeRoom({ page }, base, holder) {
  await page.evaluate(() => {
    const { info } = /** @type {any} */ (window);
    info.hold();
    return info.held;
  });
  holder.abort();
  while (!/^h3cast_processes 0$/m.test(await (await fetch(`${base}/metrics`)).text()));
  await page.evaluate(() => /** @type {any} */ (window).info.go());
}

describe('a server that takes no more viewers for now', () => {
  for (const [name, launch] of /** @type {const} */ ([['Chromium', chromium], ['Firefox', firefox]])) {
    for (const [status, transport, limits, advice] of /** @type {const} */ ([
      [503, 'fetch', ['1', '0'], /The server is full/],
      [429, 'auto', ['2', '1'], /Close other tabs/],
    ])) {
      test(`${name}, ${status} over ${transport}: the page says so, asks as seldom as it should, and gets in`, TEST, async () => {
        await whileFull(launch, limits, async ({ base, browser, holder }) => {
          const view = await open(browser, `${base}/?transport=${transport}`);
          await holdable(view);
          await view.start();
          await view.state(['reconnecting']);
          await view.until('advice', () => /keeps trying/.test(document.querySelector('#error')?.textContent ?? ''));
          const { error } = await view.report();
          assert.match(error, new RegExp(`status ${status}: .*commands (are )?running`));
          assert.match(error, advice);
          assert.doesNotMatch(error, /Press Start/);
          await assertAccessible(view, 'while it is refused');
          const times = await asked(view, 3);
          times.slice(1).forEach((time, i) => assert.ok(time - times[i] >= 1000, `Retry-After is 1 s: ${times}`));
          await makeRoom(view, base, holder);
          await view.state(['streaming']);
          await view.chunksShown(3);
          const { error: after, transport: used } = await view.report();
          assert.deepEqual([after, used], ['', transport === 'auto' ? 'webtransport' : transport], 'and no transport was blamed');
          await view.assertClean(REFUSED);
        });
      });
    }
  }
});

for (const [name, launch] of /** @type {const} */ ([['Chromium', chromium], ['Firefox', firefox]])) {
  test(`${name}: an EventSource that is refused for now is told so, and comes back`, TEST, async () => {
    await whileFull(launch, ['1', '0'], async ({ base, browser, holder }) => {
      const view = await open(browser, `${base}/`);
      await view.page.evaluate(() => {
        const source = new EventSource('/stream');
        const seen = { refused: /** @type {string[]} */ ([]), messages: 0 };
        Object.assign(window, { source, seen });
        source.addEventListener('refused', ({ data }) => seen.refused.push(data));
        source.addEventListener('message', () => { seen.messages += 1; });
      });
      // Refused, and come back, and refused again.
      await view.until('two refusals', () => /** @type {any} */ (window).seen.refused.length >= 2);
      const [problem] = await view.page.evaluate(() => /** @type {any} */ (window).seen.refused);
      assert.equal(JSON.parse(problem).status, 503);
      holder.abort();
      await view.until('messages', () => /** @type {any} */ (window).seen.messages >= 3);
      assert.notEqual(await view.page.evaluate(() => /** @type {any} */ (window).source.readyState), 2);
    });
  });
}

test('a token that does not allow the feed: the page says so, and takes another one', TEST, async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'h3cast-tokens-'));
  const file = path.join(folder, 'tokens');
  const [other, all] = ['the-token-of-the-other-feed', 'the-token-of-all-the-feeds'];
  await writeFile(file, `read=other ${other}\nread=* ${all}\n`, { mode: 0o600 });
  const server = await Server.start({ args: ['--tokens', file, NUMBERS, `other=${NUMBERS}`] });
  const browser = await chromium();
  try {
    for (const transport of ['fetch', 'webtransport']) {
      // A tab has its own token.
      const view = await open(browser, `${server.plain}/?transport=${transport}&feed=default&autostart=1`);
      for (const token of [other, all]) {
        await view.until('the question', (second) => {
          const words = document.querySelector('#token-form')?.textContent ?? '';
          return second ? /status 403: .*default/.test(words) : words !== '';
        }, token === all);
        await view.page.type('#token', token);
        await view.page.click('#token-form button');
      }
      await view.chunksShown(3);
      const { error, transport: used } = await view.report();
      assert.deepEqual([error, used], ['', transport]);
      await view.assertClean(/403|401|Failed to load resource/);
      await view.close();
    }
  } finally {
    await browser.close();
    await server.stop();
    await rm(folder, { recursive: true, force: true });
  }
});
