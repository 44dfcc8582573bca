// What several feeds cost on the start page in Chromium: 200 lines a second, from as many feeds as are asked for together.
//
//   H3CAST_BIN=target/release/h3cast node benches/page/several.mjs 2 [columns]
import { loadavg } from 'node:os';
import { chromium } from '../../tests/browser/lib/browsers.mjs';
import { Server } from '../../tests/browser/lib/server.mjs';
import { Tab, sleep } from './tab.mjs';
const COUNT = Number(process.argv[2] ?? 2);
const ARRANGE = process.argv[3] ?? 'merged';
const RATE = 200;

const feed = (/** @type {number} */ i) => `f${i}=exec:perl -MTime::HiRes=sleep -e '$|=1; for (my $i=0;;$i++) { print "2026-11-27T06:00:00.000Z ", ($i % 50 ? "INFO" : "ERROR"), " request $i GET /index.html 200 in ", $i % 90, " ms\\n"; sleep ${COUNT / RATE}; }'`;
const args = Array.from({ length: COUNT }, (_, i) => feed(i));
const server = await Server.start({ args });
const browser = await chromium();
try {
  const tab = await Tab.open(browser, `${server.plain}/?from=start&transport=fetch&${args.map((_, i) => `feed=f${i}`).join('&')}&arrange=${ARRANGE}`);
  const chunks = () => tab.evaluate(() => Number(document.querySelector('#chunks')?.textContent));
  await tab.chunks(5 * RATE);
  const before = await chunks();
  const from = performance.now();
  const { words } = await tab.cost(() => sleep(10_000));
  const rate = ((await chunks()) - before) / ((performance.now() - from) / 1000);
  console.log(`${COUNT} feeds, ${ARRANGE}: ${rate.toFixed(0)} lines/s, ${words}; load of the machine ${loadavg()[0]?.toFixed(1)}`);
} finally {
  await browser.close();
  await server.stop();
}
