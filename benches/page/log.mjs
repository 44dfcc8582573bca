// What the start page's log costs in Chromium: at 200 lines a second, and while 50,000 lines are scrolled through.
//
//   H3CAST_BIN=target/release/h3cast node benches/page/log.mjs [ROUNDS]
//
// It prints what `performance.md` quotes. The goals: under 10 % of a core, 60 frames a second, 40 MB of heap. Each round
// also measures the page without lines, and a page that does nothing but draw as many rows of text, to tell what is the
// machine's and the browser's.
import { loadavg } from 'node:os';
import { chromium } from '../../tests/browser/lib/browsers.mjs';
import { Server } from '../../tests/browser/lib/server.mjs';
import { Tab, sleep } from './tab.mjs';

const ROUNDS = Number(process.argv[2] ?? 3);
const RATE = 200;
const SECONDS = 8;
const LINES = 50_000;
const FRAMES = 300;

/** Draws as many rows as the log gets, four times a second. */
const PLAIN = `<!doctype html><style>body { margin: 0 } div { height: 800px; overflow: auto; font: 13px/1.45 monospace } p { margin: 0; padding: 2px 14px }</style><div></div><script>
  const box = document.querySelector("div");
  let i = 0;
  setInterval(() => {
    for (let n = 0; n < ${RATE / 4}; n += 1, i += 1) {
      const row = document.createElement("p");
      row.textContent = "#" + i + " 06:00:00.000 +5.0 ms 2026-11-27T06:00:00.000Z INFO request " + i + " GET /index.html 200 in " + i % 90 + " ms";
      box.append(row);
      if (box.childElementCount > 120) box.firstElementChild.remove();
    }
    box.scrollTop = box.scrollHeight;
  }, 250);
</script>`;

const line = (/** @type {number} */ i) => `2026-11-27T06:00:00.000Z ${i % 50 === 0 ? 'ERROR' : 'INFO'} request ${i} GET /index.html 200 in ${i % 90} ms`;

const server = await Server.start({ args: ['--history', '64M', '-'] });
// Each tab has a browser of its own: what is not in sight is not drawn.
const browsers = [await chromium(), await chromium()];
try {
  const [browser, other] = /** @type {[import('puppeteer-core').Browser, import('puppeteer-core').Browser]} */ (browsers);
  const tab = await Tab.open(browser, `${server.plain}/?from=start&transport=fetch`);
  const plain = await Tab.open(other, `data:text/html,${encodeURIComponent(PLAIN)}`);

  let sent = 0;
  const send = (/** @type {number} */ count) => {
    for (let i = 0; i < count; i += 1) server.write(line(sent + i));
    sent += count;
  };
  /** @param {number} seconds */
  const pour = async (seconds) => {
    const from = performance.now();
    const before = sent;
    while (performance.now() - from < seconds * 1000) {
      const due = Math.round(((performance.now() - from) / 1000) * RATE) - (sent - before);
      if (due > 0) send(due);
      await sleep(5);
    }
  };
  // So many that rows go as others come.
  send(1000);
  await pour(2);
  const ratios = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const rows = await plain.cost(() => sleep(SECONDS * 1000));
    const log = await tab.cost(() => pour(SECONDS));
    ratios.push(log.process / rows.process);
    console.log(`${RATE} lines/s: ${log.words}\n  plain rows: ${rows.words}`);
  }
  console.log(`the log costs ${ratios.map((ratio) => ratio.toFixed(1)).join(', ')} times as much as plain rows; load of the machine ${loadavg()[0]?.toFixed(1)}`);
  console.log(`no lines: ${(await tab.cost(() => sleep(SECONDS * 1000))).words}`);
  await tab.evaluate(() => /** @type {HTMLElement | null} */ (document.querySelector('#drawer'))?.click());
  console.log(`${RATE} lines/s with the numbers in sight: ${(await tab.cost(() => pour(SECONDS))).words}`);
  await tab.evaluate(() => /** @type {HTMLElement | null} */ (document.querySelector('#drawer'))?.click());

  while (sent < LINES + 5000) {
    send(1000);
    await sleep(10);
  }
  await tab.chunks(sent);
  const frames = await tab.evaluate(async (count) => {
    const log = /** @type {HTMLElement} */ (document.querySelector('#log'));
    const turn = () => new Promise((resolve) => requestAnimationFrame(resolve));
    const times = [];
    let last = await turn();
    for (let i = 0; i < count; i += 1) {
      // Three notches of a wheel in each frame: fast.
      log.scrollTop -= 300;
      const now = await turn();
      times.push(Number(now) - Number(last));
      last = now;
    }
    return times;
  }, FRAMES);
  frames.sort((a, b) => a - b);
  const at = (/** @type {number} */ part) => frames[Math.min(frames.length - 1, Math.floor(frames.length * part))]?.toFixed(1);
  const late = frames.filter((time) => time > 20).length;
  console.log(`${LINES.toLocaleString('en')} lines, ${FRAMES} frames of 300 pixels: median ${at(0.5)} ms, 95 % ${at(0.95)} ms, worst ${at(1)} ms; ${late} took longer than 20 ms`);
  const first = await tab.evaluate(() => /** @type {HTMLElement} */ (document.querySelector('#log .chunk')).dataset.seq);
  await tab.devtools.send('HeapProfiler.collectGarbage');
  const { usedSize, ...rest } = /** @type {any} */ (await tab.devtools.send('Runtime.getHeapUsage'));
  console.log(`scrolled back to line ${first}; heap ${((usedSize + (rest.backingStorageSize ?? 0) + (rest.embedderHeapUsedSize ?? 0)) / 1e6).toFixed(1)} MB`);
} finally {
  for (const browser of browsers) await browser.close();
  await server.stop();
}
