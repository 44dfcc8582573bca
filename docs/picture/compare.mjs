// Makes docs/compare.png: /compare.html after a run of ten seconds in Chromium. It needs what docs/picture/make needs.
// STATIC may have `--static FOLDER` for other pages.
import path from 'node:path';
import { chromium, open } from '../../tests/browser/lib/browsers.mjs';
import { ROOT, Server } from '../../tests/browser/lib/server.mjs';

const server = await Server.start({ args: (process.env.STATIC ?? '').split(' ').filter(Boolean) });
const browser = await chromium({ trust: server });
try {
  const url = `${server.plain}/compare.html?rate=50&size=1000&burst=5&seconds=10`;
  const view = await open(browser, url, { width: 1280, height: 800, dark: false });
  await view.start();
  await view.state(['done', 'error', 'stopped']);
  // Up to the end of the cards.
  const box = await (await view.page.$('#lanes'))?.boundingBox();
  const height = Math.ceil((box?.y ?? 0) + (box?.height ?? 0)) + 12;
  await view.page.screenshot({ path: path.join(ROOT, 'docs/compare.png'), clip: { x: 0, y: 0, width: 1280, height } });
} finally {
  await browser.close();
  await server.stop();
}
