// What several feeds cost on the start page in Chromium: 200 lines a second, from as many feeds as are asked for together.
//
//   H3CAST_BIN=target/release/h3cast node benches/page/several.mjs 2 [columns]
import { chromium, open } from '../../tests/browser/lib/browsers.mjs';
import { Server } from '../../tests/browser/lib/server.mjs';
const COUNT = Number(process.argv[2] ?? 2);
const ARRANGE = process.argv[3] ?? 'merged';
const RATE = 200;
const sleep = (/** @type {number} */ ms) => new Promise((resolve) => setTimeout(resolve, ms));

const feed = (/** @type {number} */ i) => `f${i}=exec:perl -MTime::HiRes=sleep -e '$|=1; for (my $i=0;;$i++) { print "2026-11-27T06:00:00.000Z ", ($i % 50 ? "INFO" : "ERROR"), " request $i GET /index.html 200 in ", $i % 90, " ms\\n"; sleep ${COUNT / RATE}; }'`;
const args = Array.from({ length: COUNT }, (_, i) => feed(i));
const server = await Server.start({ args });
const browser = await chromium();
try {
  const view = await open(browser, `${server.plain}/?from=start&transport=fetch&${args.map((_, i) => `feed=f${i}`).join('&')}&arrange=${ARRANGE}`, { width: 1280, height: 800 });
  await view.state(['streaming']);
  const devtools = await view.page.createCDPSession();
  await devtools.send('Performance.enable');
  const host = await browser.target().createCDPSession();
  const measured = async () => {
    const { metrics } = await devtools.send('Performance.getMetrics');
    const of = (/** @type {string} */ name) => metrics.find((metric) => metric.name === name)?.value ?? 0;
    const { processInfo } = await host.send('SystemInfo.getProcessInfo');
    const cpu = Math.max(...processInfo.filter(({ type }) => type === 'renderer').map(({ cpuTime }) => cpuTime));
    return { task: of('TaskDuration'), script: of('ScriptDuration'), layout: of('LayoutDuration'), style: of('RecalcStyleDuration'), cpu, chunks: Number(await view.page.$eval('#chunks', (e) => e.textContent)) };
  };
  await sleep(5000);
  const start = await measured();
  const from = performance.now();
  await sleep(10_000);
  const end = await measured();
  const wall = (performance.now() - from) / 1000;
  const share = (/** @type {keyof typeof start} */ name) => `${(((end[name] - start[name]) / wall) * 100).toFixed(1)} %`;
  console.log(`${COUNT} feeds, ${ARRANGE}: ${((end.chunks - start.chunks) / wall).toFixed(0)} lines/s, main ${share('task')} (script ${share('script')}, style ${share('style')}, layout ${share('layout')}), process ${share('cpu')}`);
} finally {
  await browser.close();
  await server.stop();
}
