// What handlers may answer, right and wrong, to Chromium over HTTP/3: one connection carries all of it.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { chromium } from './lib/browsers.mjs';
import { PARITY, Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };
const FORBIDDEN = ['connection', 'keep-alive', 'proxy-connection', 'te', 'transfer-encoding', 'upgrade', 'named'];

describe('Chromium over HTTP/3', () => {
  /** @type {Server} */ let server;
  /** @type {import('puppeteer-core').Browser} */ let browser;
  /** @type {import('puppeteer-core').Page} */ let page;
  before(async () => {
    server = await Server.start({ program: PARITY });
    browser = await chromium({ trust: server });
    page = await browser.newPage();
    await page.goto(`${server.base}/`);
  }, TEST);
  after(async () => {
    await browser?.close();
    await server?.stop();
  }, TEST);

  /**
   * What fetch makes of each path, and over which protocol. A response that is open all the while shows that the
   * connection stays.
   * @param {string[]} paths
   */
  const fetched = async (paths) => {
    const { seen, held } = await fetchedBeside(paths);
    assert.equal(held, 'held released');
    return seen;
  };

  /** @param {string[]} paths */
  const fetchedBeside = (paths) => page.evaluate(async (paths) => {
    const held = await fetch('/held');
    const seen = [];
    for (const path of paths) {
      try {
        const response = await fetch(path, { cache: 'no-store' });
        const fields = [...response.headers.keys()];
        const text = await response.text();
        const { nextHopProtocol } = /** @type {PerformanceResourceTiming} */ (
          performance.getEntriesByName(new URL(path, location.href).href).at(-1));
        seen.push({ path, status: response.status, text, fields, nextHopProtocol });
      } catch (error) {
        seen.push({ path, error: String(error) });
      }
    }
    await fetch('/release');
    return { seen, held: await held.text() };
  }, paths);

  test('fields that speak of the connection do not end it', TEST, async () => {
    const seen = await fetched(FORBIDDEN.flatMap((name) => [`/forbidden/${name}`, `/trailers/${name}`]));
    for (const { path, status, text, fields = [], nextHopProtocol } of seen) {
      const body = path.startsWith('/forbidden') ? 'a body' : 'before the trailers';
      assert.deepEqual({ path, status, text, nextHopProtocol }, { path, status: 200, text: body, nextHopProtocol: 'h3' });
      assert.deepEqual(fields.filter((name) => [...FORBIDDEN, 'x-one', 'x-two'].includes(name)), []);
    }
  });

  test('a body of another length is an error of that request', TEST, async () => {
    const seen = await fetched(['/length/7/streamed', '/length/3/streamed', '/length/7/sized', '/failing', '/']);
    const last = seen.pop();
    for (const { path, error } of seen) assert.match(error ?? `${path} looks whole`, /TypeError/);
    assert.deepEqual([last?.status, last?.text, last?.nextHopProtocol], [200, 'hello\n', 'h3']);
  });

  test('103 (Early Hints) is passed by', TEST, async () => {
    const [hints] = await fetched(['/hints']);
    assert.deepEqual([hints?.status, hints?.text, hints?.nextHopProtocol], [200, 'after hints', 'h3']);
    const response = await page.goto(`${server.base}/hints`);
    assert.equal(response?.status(), 200);
    assert.equal(await page.evaluate(() => document.body.innerText), 'after hints');
    await page.goto(`${server.base}/`);
  });
});
