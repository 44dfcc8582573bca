// examples/page: a page of somebody's own, from another origin, that follows a feed with the module that the server has.
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import { chromium, firefox, open } from './lib/browsers.mjs';
import { ROOT, Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };
/** What browsers write into their console about requests to a server that is gone. */
const GONE = /net::ERR_|Failed to load resource|NetworkError|can’t establish a connection|Connection lost|WebTransport|CORS|Cross-Origin|favicon/;

/** The example. */
const example = () => readFile(path.join(ROOT, 'examples/page/index.html'), 'utf8');
/** The page that the guide begins with. */
const guided = async () =>
  /```html\n([^]*?)```/.exec(await readFile(path.join(ROOT, 'docs/javascript.md'), 'utf8'))?.[1] ?? assert.fail('no page');

/** Serves a page as its author would, with the server's address in it. @param {string} page @param {string} plain */
async function pageOfOnesOwn(page, plain) {
  const html = page.replaceAll('http://localhost:8080', plain);
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
  state, (wanted) => document.querySelector('#state')?.getAttribute('data-state') === wanted, state);
/** @param {import('./lib/view.mjs').View} view @param {string} id */
const text = (view, id) => view.page.$eval(`#${id}`, (element) => element.textContent ?? '');

describe('a page of its own', () => {
  for (const [name, launch] of /** @type {const} */ ([['Chromium', chromium], ['Firefox', firefox]])) {
    test(`${name}: it follows over each transport, resumes after a restart, and continues after a reload`, TEST, async () => {
      let server = await Server.start({ args: ['--count', '0', 'demo'] });
      const site = await pageOfOnesOwn(await example(), server.plain);
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

test('the page that the guide begins with shows the demo', TEST, async () => {
  const server = await Server.start();
  const site = await pageOfOnesOwn(await guided(), server.plain);
  const browser = await chromium();
  try {
    const view = await open(browser, site.base);
    await view.until('ten chunks', () => document.body.textContent?.includes('data chunk #9\n') ?? false);
    await view.assertClean(GONE);
  } finally {
    await browser.close();
    await site.stop();
    await server.stop();
  }
});

test('gaps, a failure and tokens, as the module reports them to a page', TEST, async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'h3cast-module-'));
  const tokens = path.join(folder, 'tokens');
  await writeFile(tokens, 'read=* publish=* the-token-that-is-right-1\n', { mode: 0o600 });
  const server = await Server.start({
    args: ['--tokens', tokens, '--history', 'written=20k', 'written=publish', 'failed=exec:echo one; echo two; exit 3'],
  });
  const browser = await chromium();
  try {
    const view = await open(browser, `${server.plain}/fetch.html`);
    const publish = async (/** @type {number} */ count) => {
      const answer = await fetch(`${server.plain}/stream/written?chunk=lines`, {
        method: 'POST', body: `${'x'.repeat(999)}\n`.repeat(count), headers: { authorization: 'Bearer the-token-that-is-right-1' },
      });
      assert.equal(answer.status, 200);
    };
    /** Follows a feed until `count` chunks have come or it ends. @param {string} feed @param {Record<string, string>} options @param {number} count */
    const followed = (feed, options, count) => view.page.evaluate(async (feed, options, count) => {
      const path = '/js/client/index.mjs';
      const { follow } = await import(path);
      const seen = { chunks: 0, first: '', gaps: /** @type {unknown[]} */ ([]), states: /** @type {string[]} */ ([]), asked: 0, outcome: '', steps: 0 };
      const following = follow(`/stream/${feed}`, {
        from: 'start',
        token: () => ['', 'one-that-is-not-right-at-all', 'the-token-that-is-right-1'][(seen.asked += 1)] ?? '',
        ...options,
        onChunk: (/** @type {{ cursor: string }} */ { cursor }) => {
          seen.first ||= cursor;
          seen.chunks += 1;
          if (seen.chunks === count) following.stop();
        },
        onGap: (/** @type {unknown} */ gap) => seen.gaps.push(gap),
        onState: (/** @type {{ state: string }} */ { state }) => seen.states.push(state),
      });
      try {
        seen.outcome = (await following.done).outcome;
      } catch (error) {
        const { name, message, permanent, steps } = /** @type {any} */ (error);
        seen.outcome = `${name}: ${message} ${permanent}`;
        seen.steps = steps.length;
      }
      return seen;
    }, feed, options, count);

    await publish(3);
    for (const transport of ['fetch', 'webtransport']) {
      const { first, ...rest } = await followed('written', { transport }, 3);
      assert.deepEqual(rest, { chunks: 3, gaps: [], states: rest.states, asked: 2, outcome: 'stopped', steps: 0 }, 'it asks again for another token');
      assert.equal(rest.states.at(-1), 'stopped');
    }
    const { first } = await followed('written', {}, 1);
    await publish(60);
    for (const transport of ['fetch', 'webtransport']) {
      const { gaps, outcome } = await followed('written', { transport, from: first }, 1);
      const [{ missing, ...gap }] = /** @type {[any]} */ (gaps);
      assert.ok(missing > 2, `${missing} are missing`);
      assert.deepEqual({ ...gap, outcome }, { restarted: false, reported: true, outcome: 'stopped' });
      const failed = await followed('failed', { transport }, 9);
      assert.equal(failed.chunks, 2);
      assert.match(failed.outcome, /^ClientError: The feed failed.* status 3.* true$/);
      assert.ok(failed.steps > 0 && failed.states.at(-1) === 'failed');
    }
  } finally {
    await browser.close();
    await server.stop();
    await rm(folder, { recursive: true });
  }
});
