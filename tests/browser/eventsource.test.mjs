// EventSource clients settle: in real browsers, and the `eventsource` package for Node.js. When a feed has
// ended they reconnect once, are answered with 204, and leave it at that (HTML §9.2.3).
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { EventSource as NodeEventSource } from 'eventsource';
import { chromium, firefox, open } from './lib/browsers.mjs';
import { Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };
/** What a run of each feed says, with its chunks and its end. */
const FEEDS = {
  '/stream': { chunks: Array.from({ length: 10 }, (_, n) => `data chunk #${n}`), end: {} },
  '/stream/ended?from=start': { chunks: ['おわり'], end: {} },
  '/stream/empty': { chunks: [], end: {} },
  '/stream/failed?from=start': { chunks: ['ü'], end: { error: 'status' } },
};
const SOURCES = ['demo', 'ended=exec:echo おわり', 'empty=exec:true', 'failed=exec:echo ü; exit 3'];

/** @typedef {{ seen: string[], ends: { data: string, id: string }[], opened: number, closed: boolean }} Report */

/**
 * Follows a feed until its client gives up. Runs in the page too, so it stands alone.
 * @param {typeof EventSource} Client
 * @param {string} url
 * @returns {Promise<Report>}
 */
function follow(Client, url) {
  const report = { seen: /** @type {string[]} */ ([]), ends: /** @type {Report['ends']} */ ([]), opened: 0, closed: false };
  const source = new Client(url);
  source.onopen = () => report.opened++;
  source.onmessage = (event) => report.seen.push(event.data);
  source.addEventListener('end', (event) => report.ends.push({ data: event.data, id: event.lastEventId }));
  return new Promise((resolve) => {
    source.onerror = () => {
      report.closed = source.readyState === 2;
      // One that does not settle is not followed for ever.
      if (report.closed || report.ends.length > 2) {
        source.close();
        resolve(report);
      }
    };
  });
}

/** @param {string} feed @param {Report} report */
function assertSettled(feed, report) {
  const { chunks, end } = FEEDS[/** @type {keyof FEEDS} */ (feed)];
  assert.deepEqual(report.seen, chunks, feed);
  assert.equal(report.ends.length, 1, `${feed}: it ended ${report.ends.length} times`);
  assert.match(report.ends[0].id, /-end$/);
  const said = JSON.parse(report.ends[0].data);
  assert.deepEqual(Object.keys(said), Object.keys(end), feed);
  assert.deepEqual({ opened: report.opened, closed: report.closed }, { opened: 1, closed: true }, feed);
}

for (const [name, launch] of /** @type {const} */ ([['Chromium', chromium], ['Firefox', firefox]])) {
  describe(`EventSource in ${name}, of feeds that end`, () => {
    /** @type {Server} */ let server;
    /** @type {import('puppeteer-core').Browser} */ let browser;
    before(async () => {
      server = await Server.start({ args: SOURCES });
      browser = await launch();
    }, TEST);
    after(async () => {
      await browser?.close();
      await server?.stop();
    }, TEST);

    for (const feed of Object.keys(FEEDS)) {
      test(`${feed} settles`, TEST, async () => {
        const { page } = await open(browser, `${server.plain}/`);
        const report = /** @type {Report} */ (
          await page.evaluate(`(${follow})(EventSource, ${JSON.stringify(feed)})`)
        );
        assertSettled(feed, report);
        await page.close();
      });
    }
  });
}

describe('the package eventsource, of feeds that end', () => {
  /** @type {Server} */ let server;
  before(async () => {
    server = await Server.start({ args: SOURCES });
  }, TEST);
  after(() => server?.stop(), TEST);

  for (const feed of Object.keys(FEEDS)) {
    test(`${feed} settles`, TEST, async () => {
      const client = /** @type {typeof EventSource} */ (/** @type {unknown} */ (NodeEventSource));
      assertSettled(feed, await follow(client, server.plain + feed));
    });
  }
});
