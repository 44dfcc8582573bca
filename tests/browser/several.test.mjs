// The start page with several feeds at once: merged by time or side by side, each with its name and its state.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { assertAccessible, assertFits, assertWhole } from './lib/accessible.mjs';
import { chromium, firefox, open } from './lib/browsers.mjs';
import { Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };

/** @typedef {import('./lib/view.mjs').View} View */

/** Every row as `name text`. @param {View} view @returns {Promise<string[]>} */
const named = (view) => view.page.$$eval('#log > *', (all) => all.map((row) =>
  `${row.querySelector('.feed')?.textContent} ${/** @type {HTMLElement} */ (row).dataset.text ?? /** @type {HTMLElement} */ (row).dataset.kind}`.trim()));

/** The words about each feed. @param {View} view @returns {Promise<string[]>} */
const states = (view) => view.page.$$eval('#feed-lines > div', (all) => all.map((line) => line.textContent ?? ''));

/** Filters the log. @param {View} view @param {string} text */
const filter = (view, text) => view.page.$eval('#filter', (field, value) => {
  /** @type {HTMLInputElement} */ (field).value = value;
  field.dispatchEvent(new Event('input'));
}, text);

/** @param {View} view @param {string} when */
async function inBothThemes(view, when) {
  for (const scheme of ['light', 'dark']) {
    await view.page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
    await assertFits(view, when);
    await assertAccessible(view, when);
    await view.shot(`several ${when} ${scheme}`.replaceAll(' ', '-'));
  }
}

/** @param {View} view @param {string} words */
const status = (view, words) => view.until(`“${words}”`, (wanted) => document.querySelector('#status')?.textContent === wanted, words);

for (const [browserName, launch] of /** @type {const} */ ([['Chromium', chromium], ['Firefox', firefox]])) {
  describe(`several feeds in ${browserName}`, () => {
    /** @type {Server} */ let server;
    /** @type {import('puppeteer-core').Browser} */ let browser;
    before(async () => {
      server = await Server.start({ args: ['web=publish', 'db=publish', 'once=exec:echo all', 'fails=exec:echo x; exit 3', 'zeros=exec:printf "a\\0b\\n"; sleep 600', 'default=exec:sleep 600'] });
      browser = await launch();
    }, TEST);
    after(async () => {
      await browser?.close();
      await server?.stop();
    }, TEST);

    /** Publishes a line, or bytes, and waits until the feed has it. @param {string} feed @param {string | Uint8Array<ArrayBuffer>} what */
    async function say(feed, what) {
      const response = await fetch(`${server.plain}/stream/${feed}`, { method: 'POST', body: typeof what === 'string' ? `${what}\n` : what });
      assert.equal(response.status, 200, await response.text());
    }

    test('merged by the time of publication, in history and live, each line with its name', TEST, async () => {
      /** @type {string[]} */ const said = [];
      const both = async (/** @type {number} */ i) => {
        // Not in turn: neither by the order of feeds nor by that of arrival.
        for (const feed of i % 3 === 0 ? ['db', 'web', 'db'] : ['web', 'db']) {
          await say(feed, `line ${i}`);
          said.push(`${feed} line ${i}`);
        }
      };
      for (let i = 0; i < 10; i += 1) await both(i);
      const view = await open(browser, `${server.plain}/?feed=web&feed=db&view=log`);
      await view.chunksShown(said.length);
      assert.deepEqual(await named(view), said, 'history');
      for (let i = 10; i < 20; i += 1) await both(i);
      await view.chunksShown(said.length);
      assert.deepEqual(await named(view), said, 'and what came live');
      await status(view, '2 feeds: 2 live.');
      assert.deepEqual(await states(view), ['web live', 'db live']);
      assert.equal(await view.page.title(), 'web, db · h3cast');
      assert.equal((await view.report()).chunks, String(said.length), 'the numbers are of all together');
      const colours = await view.page.$$eval('#log .feed', (all) => [...new Set(all.map((name) => getComputedStyle(name).color))]);
      assert.equal(colours.length, 2);

      await view.page.type('#filter', '"line 9"');
      await view.until('what is filtered', () => document.querySelector('#filtered')?.textContent === '3 shown');
      await filter(view, '');
      await view.page.evaluate(() => Object.defineProperty(navigator, 'clipboard', {
        value: { writeText: async (/** @type {string} */ text) => Object.assign(globalThis, { copied: text }) },
      }));
      await view.page.click('#log-menu summary');
      await view.page.click('#copy');
      await view.until('it is copied', () => /Copied/.test(document.querySelector('#log-said')?.textContent ?? ''));
      const copied = await view.page.evaluate(() => Reflect.get(globalThis, 'copied'));
      assert.equal(copied, said.map((line) => `${line.replace(' ', ' | ')}\n`).join(''));
      const saved = await view.page.evaluate(async () => {
        /** @type {Blob | undefined} */ let blob;
        URL.createObjectURL = (object) => {
          blob = /** @type {Blob} */ (object);
          return 'data:,';
        };
        /** @type {HTMLElement} */ (document.querySelector('#download')).click();
        return blob?.text();
      });
      assert.equal(saved, copied);
      await view.assertClean();
      await view.close();
    });

    test('side by side, each with all that is its own, and back', TEST, async () => {
      const view = await open(browser, `${server.plain}/?feed=web&feed=db&from=start&view=log&arrange=columns`, { width: 1280, height: 800 });
      // How long chunks are told to wait for each other.
      await view.page.evaluate(() => {
        /** @type {number[]} */
        const waits = [];
        Object.assign(globalThis, { mergeWaits: waits });
        const timer = window.setTimeout;
        window.setTimeout = /** @type {typeof window.setTimeout} */ ((/** @type {() => void} */ work, /** @type {number} */ ms) => {
          if (new Error().stack?.includes('/merge.mjs')) waits.push(ms);
          return timer(work, ms);
        });
      });
      const columns = () => view.page.$$eval('.column', (all) => all.map((column) => ({
        name: column.getAttribute('aria-label'), state: column.querySelector('header')?.textContent, left: column.getBoundingClientRect().left,
        lines: [...column.querySelectorAll('.chunk')].map((row) => /** @type {HTMLElement} */ (row).dataset.text ?? ''),
      })));
      const all = (/** @type {number} */ count) => view.until(`${count} lines in all`, (wanted) => document.querySelectorAll('.column .chunk').length === wanted, count);
      await all(47);
      const [web, db] = await columns();
      assert.deepEqual([web?.state, db?.state], ['web live', 'db live']);
      assert.ok(Number(db?.left) > Number(web?.left), 'columns');
      assert.deepEqual([web?.lines.length, db?.lines.length], [20, 27]);
      await filter(view, '"line 9"');
      await all(3);
      await view.page.click('.column:last-child header');
      await view.page.focus('.column:last-child .log');
      assert.equal(await view.page.$eval('#download-some', (button) => button.textContent), 'Download what is shown of db');
      await view.page.keyboard.press('ArrowDown');
      await view.page.keyboard.press('m');
      await view.until('the mark', () => document.querySelector('.column:last-child .marked'));
      await say('web', 'more of line 9');
      await all(4);
      await filter(view, '');
      await all(48);
      await assertFits(view, 'side by side');
      await assertAccessible(view, 'side by side');
      await view.page.setViewport({ width: 360, height: 740 });
      const [above, below] = await view.page.$$eval('.column', (both) => both.map((column) => column.getBoundingClientRect().toJSON()));
      assert.ok(above.bottom <= below.top && below.bottom <= 740, 'stacked');
      await assertFits(view, 'stacked');
      // The log and not a pointer says which line is meant.
      const mark = () => view.page.$eval('.column:first-child .chunk:nth-child(2) .seq', (number) => /** @type {HTMLElement} */ (number).click());
      await view.page.focus('.column:last-child .log');
      await mark();
      assert.equal(await view.page.$$eval('.column:first-child .marked', (all) => all.length), 1);
      await mark();
      // Half of a character is there, and the other half comes after the change.
      await say('web', Uint8Array.of(0x3e, 0xc5));
      await all(50);
      await view.page.click('#several summary');
      await view.page.select('#arrange', 'merged');
      await view.until('one log', () => document.querySelectorAll('#log .chunk').length === 50);
      await say('web', Uint8Array.of(0xbc, 0x3c));
      await view.chunksShown(51);
      assert.deepEqual((await named(view)).slice(-3), ['web >', 'web', 'web ż<']);
      const waited = await view.page.evaluate(() => Reflect.get(globalThis, 'mergeWaits'));
      assert.ok(Math.max(0, ...waited) < 1000, `feeds that are open are not waited for: ${waited}`);
      const back = await named(view);
      assert.deepEqual(back.slice(0, 3), ['db line 0', 'web line 0', 'db line 0']);
      assert.equal(back.at(-4), 'web more of line 9');
      assert.match(await view.page.$eval('#log .marked', (row) => row.textContent ?? ''), /^db/);
      assert.equal(new URL(view.page.url()).searchParams.get('arrange'), null);
      await say('db', 'after that');
      await view.chunksShown(52);
      await view.page.select('#arrange', 'columns');
      await all(52);
      assert.match(view.page.url(), /&arrange=columns/);
      await view.page.select('#arrange', 'merged');
      await view.assertClean();
      await view.close();
    });

    if (browserName === 'Firefox') return;

    test('each feed with its state, and what is wrong with one does not stop the others', TEST, async () => {
      const view = await open(browser, `${server.plain}/?feed=web&feed=once&feed=fails&feed=zeros&feed=default&from=start`);
      await status(view, '5 feeds: 2 live, once ended, fails failed, default waiting.');
      assert.deepEqual(await states(view), [
        'web live', 'once ended', 'fails failed: The feed failed at its source: the command exited with status 3.', 'zeros live', 'default waiting for the first chunk',
      ]);
      assert.match(await view.page.$eval('#binary', (notice) => notice.textContent ?? ''), /^The feed zeros is binary/);
      await view.until('what happened to them, by name', () => document.querySelectorAll('#log .mark[data-kind="end"] .feed').length === 2);
      // Where there is little room, too.
      await view.page.setViewport({ width: 360, height: 740 });
      const seen = await view.page.$eval('#status', (status) => [getComputedStyle(status).fontSize, getComputedStyle(status, '::after').content]);
      assert.ok(Number.parseFloat(String(seen[0])) > 10 && seen[1] === 'none', `${seen}`);
      await view.page.click('#stop');
      await status(view, '5 feeds: web stopped, once ended, fails failed, zeros stopped, default stopped.');
      await view.page.click('#start');
      await status(view, '5 feeds: 2 live, once ended, fails failed, default waiting.');
      await view.assertClean();
      await view.close();
    });

    test('chosen by keyboard, kept in the address, and remembered', TEST, async () => {
      const view = await open(browser, `${server.plain}/?feed=web`, { width: 360, height: 740 });
      await view.state(['streaming']);
      await view.page.focus('#several summary');
      await view.page.keyboard.press('Enter');
      const there = await view.page.$$eval('#several-list input', (all) => all.map((box) => /** @type {HTMLInputElement} */ (box).value));
      for (const name of there) {
        await view.page.keyboard.press('Tab');
        if (name === 'db') await view.page.keyboard.press('Space');
      }
      await inBothThemes(view, 'with the menu of feeds');
      // On the page that explains, it opens from the end of a row.
      const explains = await open(browser, `${server.plain}/?feed=web&view=demo`, { width: 360, height: 740 });
      await explains.page.click('#several summary');
      await assertFits(explains, 'with the menu of feeds, explained');
      await assertWhole(explains);
      await explains.close();
      await view.page.bringToFront();
      // Past how they are shown, to the button.
      for (const key of /** @type {const} */ (['Tab', 'Tab', 'Enter'])) await view.page.keyboard.press(key);
      await status(view, '2 feeds: 2 live.');
      assert.equal(new URL(view.page.url()).search, '?feed=db&feed=web');
      assert.equal(await view.page.evaluate(() => document.activeElement?.parentElement?.id), 'several');
      await inBothThemes(view, 'with two feeds');
      await assertWhole(view);
      await view.page.select('#feed', 'db');
      await view.until('one alone', () => document.querySelector('#feed-lines')?.childElementCount === 0 && /^Streaming/.test(document.querySelector('#status')?.textContent ?? ''));
      assert.equal(new URL(view.page.url()).search, '?feed=db');
      assert.equal(await view.page.$('#log .chunk .feed'), null);
      const ticked = await view.page.$$eval('#several-list input:checked', (all) => all.map((box) => /** @type {HTMLInputElement} */ (box).value));
      assert.deepEqual(ticked.sort(), ['db', 'web'], 'those of the last time');
      await view.assertClean();
      await view.close();
    });

    test('a server that is killed and started again: each feed says so, and resumes', TEST, async () => {
      const line = (/** @type {string} */ name) => `${name}=exec:i=0; while :; do echo "${name} $i"; i=$((i+1)); sleep 0.1; done`;
      let own = await Server.start({ args: [line('a'), line('b')] });
      try {
        // Over TCP the death of a server is noticed at once.
        const view = await open(browser, `${own.plain}/?feed=a&feed=b&transport=fetch`);
        await view.chunksShown(6);
        await own.kill();
        await status(view, '2 feeds: reconnecting.');
        assert.deepEqual(await states(view), ['a reconnecting', 'b reconnecting']);
        assert.match(await view.page.$eval('#retry-text', (text) => text.textContent ?? ''), /^[ab]: /);
        own = await own.again();
        // What it would do by itself after a while.
        await view.page.$eval('#retry-now', (button) => /** @type {HTMLElement} */ (button).click());
        await view.until('both again', () => document.querySelectorAll('#log .mark[data-kind="restart"] .feed').length === 2);
        await status(view, '2 feeds: 2 live.');
        assert.equal(await view.page.$eval('#retry', (note) => note.checkVisibility()), false);
        assert.equal((await view.report()).error, '');
        await view.close();
      } finally {
        await own.stop();
      }
    });

    test('over HTTP/1.1 no more than the browser has connections for', TEST, async () => {
      const view = await open(browser, `${server.plain}/?transport=fetch&${['web', 'db', 'once', 'fails', 'zeros', 'default'].map((name) => `feed=${name}`).join('&')}`);
      await view.until('some are left out', () => [...document.querySelectorAll('#feed-lines > div')].some((line) => /Over HTTP\/1\.1 this page follows 4 feeds/.test(line.textContent ?? '')));
      assert.equal(await view.page.evaluate(async () => (await fetch('feeds', { signal: AbortSignal.timeout(60_000) })).status), 200, 'a connection is left for the page');
      await view.assertClean();
      await view.close();
    });
  });
}
