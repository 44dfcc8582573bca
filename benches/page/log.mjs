// What the start page's log costs in Chromium: at 200 lines a second, and while 50,000 lines are scrolled through.
//
//   H3CAST_BIN=target/release/h3cast node benches/page/log.mjs
//
// It prints what `performance.md` quotes. The goals: under 10 % of a core, 60 frames a second, 40 MB of heap.
import { chromium, open } from '../../tests/browser/lib/browsers.mjs';
import { Server } from '../../tests/browser/lib/server.mjs';

const RATE = 200;
const SECONDS = 10;
const LINES = 50_000;
const FRAMES = 300;

const line = (/** @type {number} */ i) => `2026-11-27T06:00:00.000Z ${i % 50 === 0 ? 'ERROR' : 'INFO'} request ${i} GET /index.html 200 in ${i % 90} ms`;
const sleep = (/** @type {number} */ ms) => new Promise((resolve) => setTimeout(resolve, ms));

const server = await Server.start({ args: ['--history', '64M', '-'] });
const browser = await chromium();
try {
  const view = await open(browser, `${server.plain}/?from=start&transport=fetch`, { width: 1280, height: 800 });
  await view.state(['streaming']);
  const devtools = await view.page.createCDPSession();
  await devtools.send('Performance.enable');
  const host = await browser.target().createCDPSession();
  const measured = async () => {
    const { metrics } = await devtools.send('Performance.getMetrics');
    const of = (/** @type {string} */ name) => metrics.find((metric) => metric.name === name)?.value ?? 0;
    const { processInfo } = await host.send('SystemInfo.getProcessInfo');
    const cpu = Math.max(...processInfo.filter(({ type }) => type === 'renderer').map(({ cpuTime }) => cpuTime));
    return { task: of('TaskDuration'), script: of('ScriptDuration'), layout: of('LayoutDuration'), style: of('RecalcStyleDuration'), cpu };
  };

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
  const start = await measured();
  const from = performance.now();
  await pour(SECONDS);
  const wall = (performance.now() - from) / 1000;
  const end = await measured();
  const share = (/** @type {keyof typeof start} */ name) => `${(((end[name] - start[name]) / wall) * 100).toFixed(1)} %`;
  console.log(`${RATE} lines/s for ${wall.toFixed(0)} s: main thread ${share('task')} of a core (script ${share('script')}, style ${share('style')}, layout ${share('layout')}), renderer process ${share('cpu')}`);

  while (sent < LINES + 5000) {
    send(1000);
    await sleep(10);
  }
  await view.until('every line', (count) => Number(document.querySelector('#chunks')?.textContent) >= count, sent, 60_000);
  const frames = await view.page.evaluate(async (count) => {
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
  const first = await view.page.$eval('#log .chunk', (row) => Number(/** @type {HTMLElement} */ (row).dataset.seq));
  await devtools.send('HeapProfiler.collectGarbage');
  const { usedSize, ...rest } = /** @type {any} */ (await devtools.send('Runtime.getHeapUsage'));
  console.log(`scrolled back to line ${first}; heap ${((usedSize + (rest.backingStorageSize ?? 0) + (rest.embedderHeapUsedSize ?? 0)) / 1e6).toFixed(1)} MB`);
} finally {
  await browser.close();
  await server.stop();
}
