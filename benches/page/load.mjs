// What a first visit to a live log costs in Chromium, by protocol: requests, bytes, and the time from the start of the
// navigation to the first row.
//
//   H3CAST_BIN=target/release/h3cast node benches/page/load.mjs [RUNS]
//
// Each visit has a cache and connections of its own, but for those of "again", which come back to the same tab. It
// prints what `performance.md` quotes.
import { chromium } from '../../tests/browser/lib/browsers.mjs';
import { Server } from '../../tests/browser/lib/server.mjs';

const RUNS = Number(process.argv[2] ?? 10);
const HISTORY = 200;
const LATE_MS = 20_000;

/** Remembers when the first row is in the page. Runs there, before its scripts. */
const watch = () => {
  const found = /** @type {any} */ (globalThis);
  found.firstRow = new Promise((resolve) => {
    const look = () => {
      if (!document.querySelector('#log .chunk')) return;
      observer.disconnect();
      resolve(performance.now());
    };
    const observer = new MutationObserver(look);
    observer.observe(document, { subtree: true, childList: true });
  });
};

/**
 * Opens `url` in a tab and counts what is fetched until the first row is there.
 * @param {import('puppeteer-core').Page} page
 * @param {string} url
 */
async function visit(page, url) {
  const devtools = await page.createCDPSession();
  await devtools.send('Network.enable');
  /** @type {Map<string, { url: string, protocol: string, raw: number, sent: number, cached: boolean }>} */
  const requests = new Map();
  devtools.on('Network.responseReceived', ({ requestId, response }) => {
    requests.set(requestId, {
      url: response.url, protocol: response.protocol ?? '', raw: 0, sent: response.encodedDataLength,
      cached: Boolean(response.fromDiskCache || response.fromPrefetchCache),
    });
  });
  devtools.on('Network.dataReceived', ({ requestId, dataLength }) => {
    const request = requests.get(requestId);
    if (request) request.raw += dataLength;
  });
  devtools.on('Network.loadingFinished', ({ requestId, encodedDataLength }) => {
    const request = requests.get(requestId);
    if (request) request.sent = encodedDataLength;
  });
  await page.goto(url, { timeout: LATE_MS, waitUntil: 'load' });
  const row = await page.evaluate((late) => Promise.race([
    /** @type {any} */ (globalThis).firstRow,
    new Promise((_, reject) => setTimeout(() => reject(new Error('no row')), late)),
  ]), LATE_MS);
  await devtools.detach();
  // The feed is what the page is for, and has no end.
  const files = [...requests.values()].filter(({ url: at }) => !new URL(at).pathname.startsWith('/stream'));
  const sum = (/** @type {(one: typeof files[number]) => number} */ of) => files.reduce((all, one) => all + of(one), 0);
  const network = files.filter(({ cached }) => !cached);
  return {
    row: Number(row), requests: network.length, raw: sum(({ raw }) => raw), sent: sum(({ sent, cached }) => (cached ? 0 : sent)),
    protocols: [...new Set(network.map(({ protocol }) => protocol))].join(', '),
    largest: files.sort((a, b) => b.raw - a.raw).slice(0, 3).map(({ url: at, raw }) => `${new URL(at).pathname} ${kB(raw)}`),
  };
}

const kB = (/** @type {number} */ bytes) => `${(bytes / 1000).toFixed(1)} kB`;

const server = await Server.start({ args: ['--history', '64M', '-'] });
for (let i = 0; i < HISTORY; i += 1) server.write(`2026-11-27T06:00:00.000Z INFO request ${i} GET /index.html 200 in ${i % 90} ms`);
// As a live log has it.
const pulse = setInterval(() => server.write(`now ${Date.now()}`), 100);
try {
  /** @type {[string, string, object][]} */
  const ways = [
    ['plain HTTP', server.plain, {}],
    ['HTTP/2', server.base, { trust: server, quic: false }],
    ['HTTP/3', server.base, { trust: server }],
  ];
  console.log(`${RUNS} visits each; first row in ms: least, median, most`);
  for (const [name, base, options] of ways) {
    const browser = await chromium(options);
    try {
      const first = [];
      const again = [];
      for (let i = 0; i < RUNS; i += 1) {
        const context = await browser.createBrowserContext();
        const page = await context.newPage();
        await page.setViewport({ width: 1280, height: 800 });
        await page.evaluateOnNewDocument(watch);
        first.push(await visit(page, `${base}/`));
        await page.goto('about:blank');
        again.push(await visit(page, `${base}/`));
        await context.close();
      }
      const times = (/** @type {typeof first} */ visits) => {
        const rows = visits.map(({ row }) => row).sort((a, b) => a - b);
        const middle = ((rows[(rows.length - 1) >> 1] ?? 0) + (rows[rows.length >> 1] ?? 0)) / 2;
        return `${rows[0]?.toFixed(0)}, ${middle.toFixed(0)}, ${rows.at(-1)?.toFixed(0)}`;
      };
      const weight = ({ requests, raw, sent, protocols }) => `${requests} requests over ${protocols || 'nothing'}, ${kB(raw)} of files, ${kB(sent)} sent`;
      console.log(`${name}\n  first: ${weight(first[0])}; first row ${times(first)}`);
      console.log(`  again: ${weight(again[0])}; first row ${times(again)}`);
      if (name === 'HTTP/3') console.log(`  largest: ${first[0]?.largest.join(', ')}`);
    } finally {
      await browser.close();
    }
  }
} finally {
  clearInterval(pulse);
  await server.stop();
}
