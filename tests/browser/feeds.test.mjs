// A live feed read by an unmodified EventSource, which reconnects and resumes by itself.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { chromium, firefox, open } from './lib/browsers.mjs';
import { Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };

for (const [name, launch] of /** @type {const} */ ([['Chromium', chromium], ['Firefox', firefox]])) {
  describe(`EventSource in ${name}`, () => {
    /** @type {Server} */ let server;
    /** @type {import('puppeteer-core').Browser} */ let browser;
    before(async () => {
      server = await Server.start({ args: ['-'] });
      browser = await launch();
    }, TEST);
    after(async () => {
      await browser?.close();
      await server?.stop();
    }, TEST);

    test('gets every line once, over connections that end after three', TEST, async () => {
      const { page } = await open(browser, `${server.plain}/`);
      await page.evaluate(() => {
        const seen = /** @type {string[]} */ ([]);
        const opened = { count: 0 };
        const source = new EventSource('/stream?from=start&limit=3');
        source.onopen = () => opened.count++;
        source.onmessage = (event) => seen.push(event.data);
        Object.assign(globalThis, { seen, opened, source });
      });
      const lines = Array.from({ length: 8 }, (_, n) => `line ${n} zażółć 🦀`);
      for (const [n, line] of lines.entries()) {
        server.write(line);
        // Each arrives before the next is made, on whichever connection.
        await page.waitForFunction((count) => Reflect.get(globalThis, 'seen').length === count, { timeout: 60_000 }, n + 1);
      }
      const { seen, opened } = await page.evaluate(() => {
        Reflect.get(globalThis, 'source').close();
        return { seen: Reflect.get(globalThis, 'seen'), opened: Reflect.get(globalThis, 'opened').count };
      });
      assert.deepEqual(seen, lines);
      assert.ok(opened >= 3, `it connected ${opened} times`);
      await page.close();
    });
  });
}
