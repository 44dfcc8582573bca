// The start page's log: feeds to choose from, colours, JSON, pause, search, download, and its bounds.
import assert from 'node:assert/strict';
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { assertAccessible, assertFits } from './lib/accessible.mjs';
import { chromium, open } from './lib/browsers.mjs';
import { assertEveryNumber, marked, rows } from './lib/log.mjs';
import { Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };

/** @typedef {import('./lib/view.mjs').View} View */

/** @param {View} view @param {string} id @returns {Promise<string>} */
const text = (view, id) => view.page.$eval(`#${id}`, (element) => (element.textContent ?? '').trim());

/** Waits until so many chunks have come, whether they have rows or not. @param {View} view @param {number} count */
const came = (view, count) =>
  view.until(`${count} chunks`, (wanted) => Number(document.querySelector('#chunks')?.textContent) >= wanted, count);

describe('what came', () => {
  /** @type {Server} */ let server;
  /** @type {import('puppeteer-core').Browser} */ let browser;
  /** @type {View} */ let view;
  before(async () => {
    browser = await chromium();
  }, TEST);
  after(async () => {
    await browser?.close();
  }, TEST);

  /** A page that reads a feed whose lines the test writes. @param {{ args?: string[], width?: number }} [options] */
  async function reading({ args = ['-'], width } = {}) {
    server = await Server.start({ args });
    // Over TCP the death of a server is noticed at once.
    view = await open(browser, `${server.plain}/?from=start&transport=fetch`, width ? { width } : {});
    await view.start();
    await view.state(['streaming']);
  }
  async function done() {
    await view.assertClean();
    await view.close();
    await server.stop();
  }

  test('the feeds to choose from: in the list, in the address, and none where there is one', TEST, async () => {
    await reading({ args: ['-', 'log=exec:echo from the log; sleep 60', 'demo=demo'] });
    server.write('from the default');
    await view.chunksShown(1);
    assert.deepEqual(await view.page.$$eval('#feed option', (all) => all.map((option) => option.value)), ['default', 'demo', 'log'].sort());
    await view.until('what the server says of it', () => /live · open · 1 viewer/.test(document.querySelector('#feed-note')?.textContent ?? ''));
    await view.page.select('#feed', 'log');
    await view.until('the other feed', () => /^from the log\n/.test(/** @type {HTMLElement | null} */ (document.querySelector('#log .chunk'))?.dataset.text ?? ''));
    assert.deepEqual(await rows(view), ['from the log\n'], 'nothing of the first is left');
    assert.equal(new URL(view.page.url()).search, '?from=start&transport=fetch&feed=log');
    await view.page.reload();
    await view.until('the same feed', () => /** @type {HTMLSelectElement} */ (document.querySelector('#feed')).value === 'log');
    await view.start();
    await view.chunksShown(1);
    assert.deepEqual(await rows(view), ['from the log\n']);
    await view.page.goto(`${server.plain}/?feed=nope&autostart=1`);
    await view.state(['error']);
    assert.match((await view.report()).error, /no feed .nope.: there are default, demo, log/);
    await view.close();
    await server.stop();

    server = await Server.start();
    view = await open(browser, `${server.plain}/`);
    await view.until('the version', () => /\d/.test(document.querySelector('#version')?.textContent ?? ''));
    assert.equal(await view.page.$eval('#feed-row', (element) => element.checkVisibility()), false);
    await done();
  });

  for (const width of [360, 1200]) {
    test(`colours, escapes and JSON, ${width} px`, TEST, async () => {
      await reading({ width });
      const long = 'x'.repeat(5000);
      const order = { level: 'info', seq: 2, items: ['tea', { name: 'Żaneta' }], note: 'y'.repeat(300) };
      for (const line of [
        '\x1b[31;1mred\x1b[0m and \x1b[48;5;21mblue ground\x1b[m \x1b]0;a title\x07plain <b>not bold</b>', JSON.stringify(order), long, '{"cut":',
        '\x1b[7minverse\x1b[27m \x1b[2mdim\x1b[22m \x1b[93mbright\x1b[39m \x1b[30;100mgrey\x1b[0m \x1b[37;47mwhite on white\x1b[0m',
      ]) server.write(line);
      await view.chunksShown(5);
      const shown = await view.page.$$eval('#log .chunk', (all) => all.map((element) => element.querySelector('.text')?.textContent ?? ''));
      assert.equal(shown[0], 'red and blue ground plain <b>not bold</b>');
      assert.match(shown[2] ?? '', /^x{2000}… \(3,000 more characters in the download\)$/);
      assert.equal(shown[3], '{"cut":');
      const colours = await view.page.evaluate(() => {
        const of = (/** @type {string} */ query) => getComputedStyle(/** @type {Element} */ (document.querySelector(query)));
        return { red: of('.fg-2').color, weight: of('.fg-2').fontWeight, plain: of('#log .text').color, ground: of('.bg-5').backgroundColor };
      });
      assert.notEqual(colours.red, colours.plain);
      assert.equal(colours.weight, '700');
      assert.doesNotMatch(colours.ground, /rgba\(0, 0, 0, 0\)/);

      const folded = await view.page.$('#log details');
      assert.ok(folded);
      assert.equal(await folded.$eval('summary', (element) => element.getBoundingClientRect().height < 40), true, 'one line');
      assert.equal(await folded.$('pre'), null, 'nothing is unfolded before it is asked for');
      await folded.$eval('summary', (element) => /** @type {HTMLElement} */ (element).click());
      await view.until('what was folded', () => document.querySelector('#log details pre'));
      assert.deepEqual(JSON.parse(await folded.$eval('pre', (element) => element.textContent ?? '')), order);
      await assertFits(view, 'with all of it');
      for (const dark of [false, true]) {
        await view.page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }]);
        await assertAccessible(view, `in ${dark ? 'dark' : 'light'}`);
      }
      await done();
    });
  }

  test('a pause holds the view and nothing else', TEST, async () => {
    await reading();
    for (let i = 0; i < 3; i += 1) server.write(`line ${i}`);
    await view.chunksShown(3);
    await view.page.click('#pause');
    assert.equal(await view.page.$eval('#pause', (button) => button.getAttribute('aria-pressed')), 'true');
    for (let i = 3; i < 7; i += 1) server.write(`line ${i}`);
    await came(view, 7);
    assert.equal((await rows(view)).length, 3);
    assert.equal(await text(view, 'jump'), 'Jump to newest (4 new)');
    await assertAccessible(view, 'while it is paused');
    await view.page.click('#pause');
    await view.chunksShown(7);
    await assertEveryNumber(view);
    assert.equal(await view.page.$eval('#jump', (button) => button.checkVisibility()), false);
    await done();
  });

  test('who looks back is left where they are, and comes back to the newest', TEST, async () => {
    await reading();
    for (let i = 0; i < 800; i += 1) server.write(`line ${i}`);
    await came(view, 800);
    const at = () => view.page.$eval('#log', (log) => ({
      top: log.scrollTop, end: log.scrollHeight - log.scrollTop - log.clientHeight < 2, rows: log.childElementCount,
      first: Number(/** @type {HTMLElement} */ (log.firstElementChild).dataset.seq),
      last: Number(/** @type {HTMLElement} */ (log.lastElementChild).dataset.seq),
    }));
    await view.until('the last line', () => document.querySelector('#log .chunk[data-seq="799"]'));
    assert.ok((await at()).end && (await at()).rows <= 300);
    // Upwards, as with a wheel, until there is nothing above.
    for (let turn = 0; turn < 40 && (await at()).first > 0; turn += 1) {
      const { first } = await at();
      await view.page.$eval('#log', (log) => { log.scrollTop = 0; });
      await view.until('older rows', (before) => Number(/** @type {HTMLElement | null} */ (document.querySelector('#log .chunk'))?.dataset.seq) < before, first);
      assert.ok((await at()).rows <= 300);
      assert.ok((await at()).top > 0, 'what was seen stays in sight');
    }
    assert.equal((await at()).first, 0);
    await assertEveryNumber(view);
    const before = await at();
    server.write('one more');
    await came(view, 801);
    assert.deepEqual(await at(), before, 'nothing moves');
    assert.match(await text(view, 'jump'), /\(\d+ new\)/);
    // And down again.
    for (let turn = 0; turn < 40 && (await at()).last < 800; turn += 1) {
      const { last } = await at();
      await view.page.$eval('#log', (log) => { log.scrollTop = log.scrollHeight; });
      await view.until('newer rows', (before) => Number(/** @type {HTMLElement | null} */ (document.querySelector('#log')?.lastElementChild)?.dataset.seq) > before, last);
    }
    await view.page.$eval('#log', (log) => { log.scrollTop = 0; });
    await view.page.waitForSelector('#jump', { visible: true });
    await view.page.click('#jump');
    await view.until('the newest', () => /** @type {HTMLElement | null} */ (document.querySelector('#log')?.lastElementChild)?.dataset.text === 'one more\n');
    assert.ok((await at()).end);
    server.write('and another');
    await view.until('it is followed again', () => /** @type {HTMLElement | null} */ (document.querySelector('#log')?.lastElementChild)?.dataset.text === 'and another\n');
    await done();
  });

  test('search finds what has no row any more, and the download has every byte', TEST, async () => {
    await reading();
    const lines = Array.from({ length: 1000 }, (_, i) => (i % 490 === 10 ? `a \x1b[32mNEE\x1b[0mdle ${i} żółć` : `line ${i}`));
    for (const line of lines) server.write(line);
    await came(view, 1000);
    await view.page.focus('#log');
    await view.page.keyboard.press('/');
    assert.equal(await view.page.evaluate(() => document.activeElement?.id), 'find');
    await view.page.keyboard.type('needle');
    await view.until('the count', () => document.querySelector('#found')?.textContent === '3 found');
    for (const [key, place, seq] of /** @type {const} */ ([['', '3 of 3', 990], ['', '2 of 3', 500], ['', '1 of 3', 10], ['', '3 of 3', 990], ['Shift', '1 of 3', 10]])) {
      if (key) await view.page.keyboard.down(key);
      await view.page.keyboard.press('Enter');
      if (key) await view.page.keyboard.up(key);
      await view.until(place, (wanted) => document.querySelector('#found')?.textContent === wanted, place);
      await view.until('its row', (wanted) => document.querySelector('#log .current')?.getAttribute('data-seq') === `${wanted}`, seq);
      const seen = await view.page.$eval('#log .current', (row) => {
        const [inner, outer] = [row, /** @type {Element} */ (row.parentElement)].map((element) => element.getBoundingClientRect());
        const marks = [...(CSS.highlights.get('found') ?? [])].map((range) => range.toString());
        return { inside: !!inner && !!outer && inner.top >= outer.top - 1 && inner.bottom <= outer.bottom + 1, marks };
      });
      assert.ok(seen.inside, 'it is in sight');
      assert.ok(seen.marks.length > 0 && seen.marks.every((mark) => mark === 'NEEdle'), seen.marks.join());
      assert.ok((await rows(view)).length <= 300);
    }
    await assertAccessible(view, 'while it searches');
    await view.page.keyboard.press('Escape');
    assert.equal(await view.page.$eval('#find', (input) => /** @type {HTMLInputElement} */ (input).value), '');

    const folder = await mkdtemp(path.join(tmpdir(), 'h3cast-download-'));
    const session = await browser.target().createCDPSession();
    await session.send('Browser.setDownloadBehavior', { behavior: 'allow', downloadPath: folder, eventsEnabled: true });
    const finished = new Promise((resolve) => {
      session.on('Browser.downloadProgress', ({ state }) => state === 'completed' && resolve(undefined));
    });
    await view.page.click('#log-menu summary');
    await view.page.click('#download');
    await finished;
    const [name = ''] = await readdir(folder);
    assert.match(name, /^h3cast-default-.*\.log$/);
    assert.equal(await readFile(path.join(folder, name), 'utf8'), lines.map((line) => `${line}\n`).join(''));
    await rm(folder, { recursive: true });
    await session.detach();
    await done();
  });

  test('a gap, a loss and JSON at once, as a picture', TEST, async () => {
    await reading({ args: ['-', 'demo=demo'] });
    server.write('\x1b[32mGET\x1b[0m /index.html \x1b[1m200\x1b[0m in 12 ms');
    server.write('{"level":"info","msg":"order placed","user":{"id":42,"name":"Żaneta"},"items":["tea","bread"]}');
    server.write('\x1b[33mwarning\x1b[0m: the cache is cold');
    await view.chunksShown(3);
    await server.kill();
    server = await server.again();
    await marked(view, 'restart');
    server.write('\x1b[97;41m ERROR \x1b[0m upstream timed out after \x1b[1m3000 ms\x1b[0m');
    server.write('{"level":"info","msg":"order placed","user":{"id":43,"name":"Ola"},"items":["milk"]}');
    await view.chunksShown(5);
    for (const width of [1200, 360]) {
      for (const dark of [false, true]) {
        await view.page.setViewport({ width, height: 900 });
        await view.page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }]);
        await assertFits(view, 'after a gap');
        await assertAccessible(view, 'after a gap');
        await view.shot(`log-${width}-${dark ? 'dark' : 'light'}`);
      }
    }
    await view.close();
    await server.stop();
  });
});

describe('a feed that floods', () => {
  /** What the page says that it keeps, and what a day of it may cost beside: rows, and the page itself. */
  const KEPT = 16_000_000;
  const ROWS = 300;
  const HEAP = 40_000_000;
  const TOTAL = 200_000_000;

  test('200 MB as fast as they come: the page answers, and stays within its bounds', TEST, async () => {
    // The source waits for the page, so that all of it comes: what is dropped on the way costs nothing.
    const line = `${'flood '.repeat(33)}\n`;
    const dir = await mkdtemp(path.join(tmpdir(), 'h3cast-flood-'));
    const go = path.join(dir, 'go');
    // Nobody holds a source up before there is a viewer, so it begins when it is told to.
    const flood = `while [ ! -e '${go}' ]; do sleep 0.05; done; yes '${line.trim()}' | head -c ${TOTAL}`;
    const server = await Server.start({ args: ['--lag', 'block', `exec:${flood}`] });
    const browser = await chromium();
    try {
      const view = await open(browser, `${server.plain}/?from=start`);
      await view.page.evaluate(() => {
        const slowest = { frame: 0 };
        let last = performance.now();
        const turn = (/** @type {number} */ now) => {
          slowest.frame = Math.max(slowest.frame, now - last);
          last = now;
          requestAnimationFrame(turn);
        };
        requestAnimationFrame(turn);
        Object.assign(globalThis, { slowest });
      });
      await view.start();
      await view.state(['streaming']);
      await writeFile(go, '');
      await came(view, 20_000);
      const from = Date.now();
      await view.page.click('#pause');
      await view.until('the pause', () => document.querySelector('#pause')?.getAttribute('aria-pressed') === 'true');
      await view.page.click('#pause');
      await view.page.type('#find', 'flood 33');
      const answered = Date.now() - from;
      await view.state(['done'], 180_000);
      const { bytes } = await view.report();
      assert.equal(Number(bytes), TOTAL);
      assert.equal(await text(view, 'missing'), '0');

      const { slowest, shown, characters } = await view.page.evaluate(() => ({
        slowest: Math.round(Reflect.get(globalThis, 'slowest').frame),
        shown: document.querySelectorAll('#log > *').length,
        characters: document.querySelector('#log')?.textContent?.length ?? 0,
      }));
      assert.ok(shown <= ROWS && characters < 2_000_000, `${shown} rows of ${characters} characters`);
      const [, kept = ''] = /download: ([\d.]+) MB now/.exec(await text(view, 'log-note')) ?? [];
      assert.ok(Number(kept) * 1e6 <= KEPT && Number(kept) > 5, `${kept} MB are kept`);
      assert.match(await text(view, 'log-note'), /latest 50,000 chunks \(16\.0 MB\) .* older chunks \(.*\) are no longer kept\./);

      const session = await view.page.createCDPSession();
      await session.send('HeapProfiler.collectGarbage');
      const { usedSize, ...rest } = /** @type {any} */ (await session.send('Runtime.getHeapUsage'));
      const heap = usedSize + (rest.backingStorageSize ?? 0) + (rest.embedderHeapUsedSize ?? 0);
      console.log(`a flood of 200 MB: answered in ${answered} ms, slowest frame ${slowest} ms, heap ${(heap / 1e6).toFixed(1)} MB, ${kept} MB kept`);
      assert.ok(heap < HEAP, `${heap} bytes of heap`);
      assert.ok(answered < 5000, `a click and ten keys took ${answered} ms`);
      assert.ok(slowest < 1000, `the slowest frame took ${slowest} ms`);
      await view.assertClean();
    } finally {
      await browser.close();
      await server.stop();
      await rm(dir, { recursive: true });
    }
  });
});
