// The start page of a live feed: it follows at once, fills the window, and says in plain words how it stands.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { assertAccessible, assertFits } from './lib/accessible.mjs';
import { chromium, open } from './lib/browsers.mjs';
import { rows } from './lib/log.mjs';
import { Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };
const LEVELS = 'levels=exec:printf "INFO up\\nWARN the cache is cold\\n[error] upstream time out\\nDEBUG x\\nplain\\n{\\"level\\":\\"error\\"}\\n"; sleep 600';
const LINES = 'log=exec:i=0; while [ $i -lt 250 ]; do echo "line $i"; i=$((i+1)); done; sleep 600';

describe('a live feed', () => {
  /** @type {Server} */ let server;
  /** @type {import('puppeteer-core').Browser} */ let browser;
  before(async () => {
    server = await Server.start({ args: [LINES, LEVELS, 'bytes=exec:printf "a\\0b\\n"; sleep 600', 'colours=exec:printf "\\033[31mred\\033[0m alert\\n"; sleep 600', 'demo=demo', 'empty=publish', 'written=publish', 'old=exec:echo all'] });
    browser = await chromium();
  }, TEST);
  after(async () => {
    await browser?.close();
    await server?.stop();
  }, TEST);

  for (const [width, height] of /** @type {const} */ ([[1280, 800], [2560, 1440], [360, 740]])) {
    test(`nothing to press and nothing below the fold, ${width} × ${height}`, TEST, async () => {
      const view = await open(browser, `${server.plain}/?feed=log`, { width, height });
      /** Looks at the page in both themes. @param {string} name @param {string} when @param {boolean} [axe] */
      const look = async (name, when, axe = false) => {
        for (const scheme of /** @type {const} */ (['light', 'dark'])) {
          await view.page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
          await assertFits(view, when);
          // The rules are about what is there and its colours: one size for each theme has all of it.
          if (axe && width === (scheme === 'dark' ? 1280 : 360)) await assertAccessible(view, when);
          await view.shot(`${name}-${width}-${scheme}`);
        }
      };
      await view.chunksShown(100);
      assert.deepEqual(await rows(view), Array.from({ length: 100 }, (_, i) => `line ${150 + i}\n`), 'the last 100');
      const { log, bar, window, wide, lines } = await view.page.evaluate(() => {
        const last = document.querySelector('#log')?.lastElementChild?.getBoundingClientRect();
        return {
          log: document.querySelector('#log')?.getBoundingClientRect().toJSON(),
          bar: document.querySelector('.bar')?.getBoundingClientRect().height,
          window: { height: document.documentElement.scrollHeight, inner: innerHeight },
          wide: document.querySelector('#log')?.clientWidth, lines: (last?.bottom ?? 9e9) <= innerHeight + 1,
        };
      });
      assert.equal(window.height, height, 'the page does not scroll');
      assert.ok(Number(bar) < (width === 360 ? 80 : 42), `the bar is ${bar} pixels high`);
      assert.ok(log.bottom <= height && log.height > height * 0.8, `${log.height} of ${height} pixels are the log's`);
      assert.ok(Number(wide) > width * 0.95 && lines, 'the newest line is in sight');
      await look('first', 'with its log', true);
      await view.page.type('#find', 'line');
      // At once, as it is pasted: no part of it is a filter that hides what is found.
      await view.page.$eval('#filter', (element) => {
        /** @type {HTMLInputElement} */ (element).value = '/(/';
        element.dispatchEvent(new Event('input'));
      });
      await view.until('both answers', () => /expression/.test(document.querySelector('#filtered')?.textContent ?? '') && /found/.test(document.querySelector('#found')?.textContent ?? ''));
      const fields = await view.page.$$eval('#find, #filter', (all) => all.map((field) => field.getBoundingClientRect().width));
      assert.ok(fields.every((pixels) => pixels > 90), `${fields} pixels are left to type in`);
      await look('typed', 'while it filters and searches');
      await view.details();
      assert.equal(await view.page.$eval('#chunks', (element) => element.checkVisibility()), true);
      assert.match(await view.page.$eval('#lag-note', (element) => element.textContent ?? ''), /older than this connection/, 'the lag of history is none');
      await look('drawer', 'with its drawer', true);
      await view.assertClean();
      await view.close();
    });
  }

  test('menus open within the window, with one feed and with several, at any width', TEST, async () => {
    const single = await Server.start({ args: [LINES] });
    try {
      for (const url of [`${single.plain}/`, `${server.plain}/?feed=log`, `${server.plain}/?feed=demo`]) {
        const view = await open(browser, url);
        await view.until('what it shows', () => document.documentElement.dataset.view === 'log' || document.querySelector('#start')?.checkVisibility());
        for (const width of [360, 480, 639, 641, 767, 769, 1280]) {
          await view.page.setViewport({ width, height: 740 });
          const outside = await view.page.evaluate(() => [...document.querySelectorAll('.menu')].filter((menu) => menu.checkVisibility()).flatMap((menu) => {
            menu.toggleAttribute('open', true);
            const { left, right } = /** @type {Element} */ (menu.querySelector(':scope > div')).getBoundingClientRect();
            menu.toggleAttribute('open', false);
            return left < 0 || right > innerWidth ? [`${menu.id} from ${left} to ${right}`] : [];
          }));
          assert.deepEqual(outside, [], `${url} ${width} pixels wide`);
        }
        await view.close();
      }
    } finally {
      await single.stop();
    }
  });

  test('the demo keeps its page, and what was chosen is remembered and in the address', TEST, async () => {
    const view = await open(browser, `${server.plain}/?feed=demo`);
    const seen = (/** @type {string} */ query) => view.page.$eval(query, (element) => element.checkVisibility());
    await view.state(['idle']);
    await view.until('Start', () => !(/** @type {HTMLButtonElement | null} */ (document.querySelector('#start'))?.disabled));
    assert.deepEqual([await seen('.demos'), await seen('#plot'), await seen('#start')], [true, true, true]);
    await view.page.select('#feed', 'log');
    await view.chunksShown(100);
    assert.equal(await seen('.demos'), false);
    const titles = () => view.page.evaluate(() => [document.title, document.querySelector('h1')?.textContent]);
    assert.deepEqual(await titles(), ['log · h3cast', 'The feed log, live']);
    await view.details();
    await view.page.click('#view-switch');
    assert.equal(await seen('.demos'), true);
    assert.deepEqual(await titles(), ['h3cast: live bytes, in any browser', 'Live streams, as they happen']);
    assert.equal(new URL(view.page.url()).search, '?feed=log&view=demo');
    await view.page.goto(`${server.plain}/?feed=log`);
    await view.until('what was chosen', () => document.documentElement.dataset.view === 'demo');
    await view.state(['idle']);
    await view.page.goto(`${server.plain}/?feed=log&view=log`);
    await view.chunksShown(100);
    assert.equal(await seen('.demos'), false, 'the address says it all');
    await view.page.evaluate(() => localStorage.clear());
    await view.assertClean();
    await view.close();
  });

  test('filter, levels and columns: typed, in the address, and remembered', TEST, async () => {
    const view = await open(browser, `${server.plain}/?feed=levels&from=start`);
    await view.chunksShown(6);
    const levels = () => view.page.$$eval('#log .chunk', (all) => all.map((row) => /** @type {HTMLElement} */ (row).dataset.level ?? ''));
    assert.deepEqual(await levels(), ['info', 'warn', 'error', 'debug', '', 'error']);
    for (const dark of [false, true]) {
      await view.page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }]);
      await assertAccessible(view, 'with levels');
    }
    await view.page.type('#filter', '/time|cache/ -upstream');
    await view.until('one line', () => document.querySelector('#filtered')?.textContent === '1 shown' && document.querySelectorAll('#log .chunk').length === 1);
    assert.deepEqual(await rows(view), ['WARN the cache is cold\n']);
    assert.equal(new URL(view.page.url()).searchParams.get('filter'), '/time|cache/ -upstream');
    await view.page.click('#log-menu summary');
    await view.page.select('#log-context', '1');
    await view.until('the lines around it', () => document.querySelectorAll('#log .context').length === 2);
    await assertAccessible(view, 'while it filters, with the menu open');
    for (const name of ['wrap', 'number', 'interval']) await view.page.click(`#log-${name}`);
    const columns = () => view.page.$eval('#log .chunk', (row) => [...row.children].filter((cell) => cell.checkVisibility()).map((cell) => cell.className));
    assert.deepEqual(await columns(), ['time', 'text']);
    await view.shot('filter-1200');
    await view.page.reload();
    await view.until('the question', () => document.querySelector('#filtered')?.textContent === 'Press Enter to apply');
    await view.chunksShown(6);
    await view.page.focus('#filter');
    await view.page.keyboard.press('Enter');
    await view.until('the same lines', () => document.querySelectorAll('#log .chunk').length === 3);
    assert.deepEqual(await columns(), ['time', 'text']);
    await view.page.focus('#filter');
    await view.page.keyboard.type(' /(');
    await view.page.keyboard.type('/');
    await view.until('why it is none', () => /regular expression/i.test(document.querySelector('#filtered')?.textContent ?? ''));
    assert.equal(await view.page.$eval('#filter', (input) => input.getAttribute('aria-invalid')), 'true');
    await view.page.keyboard.press('Escape');
    await view.chunksShown(6);
    await view.page.evaluate(() => localStorage.clear());
    await view.assertClean();
    await view.close();
  });

  test('keys: the rows are one tab stop, End follows again, marks, copies, and the list of keys', TEST, async () => {
    const view = await open(browser, `${server.plain}/?feed=log`);
    const { keyboard } = view.page;
    await view.chunksShown(100);
    await view.page.focus('#log');
    const current = () => view.page.evaluate(() => /** @type {HTMLElement | null} */ (document.activeElement)?.dataset.text);
    await keyboard.press('ArrowUp');
    assert.equal(await current(), 'line 249\n');
    await keyboard.press('ArrowUp');
    assert.equal(await current(), 'line 248\n');
    await keyboard.press('m');
    assert.equal(await view.page.$eval('#log .marked', (row) => /** @type {HTMLElement} */ (row).dataset.seq), '248');
    await keyboard.press('Home');
    await view.until('the way back', () => document.querySelector('#jump')?.checkVisibility());
    await keyboard.press('End');
    await view.until('the end', () => !document.querySelector('#jump')?.checkVisibility());
    await keyboard.press('Home');
    await keyboard.press(']');
    assert.equal(await current(), 'line 248\n');
    await browser.defaultBrowserContext().overridePermissions(server.plain, ['clipboard-read', 'clipboard-write']);
    await view.page.evaluate(() => {
      Object.assign(globalThis, { copied: [] });
      navigator.clipboard.writeText = async (text) => { Reflect.get(globalThis, 'copied').push(text); };
    });
    await keyboard.press('c');
    await keyboard.press('C');
    await keyboard.press('Escape');
    assert.equal(await view.page.evaluate(() => document.activeElement?.id), 'log');
    await keyboard.press('c');
    const copied = await view.page.evaluate(() => Reflect.get(globalThis, 'copied'));
    assert.equal(copied[0], 'line 248\n');
    assert.match(copied[1], /^\d{4}-\d\d-\d\dT[\d:.]+Z line 248\n$/);
    assert.equal(copied[2], Array.from({ length: 100 }, (_, i) => `line ${150 + i}\n`).join(''));
    await view.page.$eval('#log-letters', (box) => /** @type {HTMLInputElement} */ (box).click());
    await keyboard.press('c');
    await keyboard.press('?');
    assert.equal(await view.page.evaluate(() => Reflect.get(globalThis, 'copied').length), 3, 'letters can be turned off');
    assert.equal(await view.page.$eval('#keys', (dialog) => dialog.checkVisibility()), false);
    await view.page.$eval('#log-letters', (box) => /** @type {HTMLInputElement} */ (box).click());
    await view.page.focus('#log');
    await keyboard.press('?');
    assert.equal(await view.page.$eval('#keys', (dialog) => dialog.checkVisibility()), true);
    await assertAccessible(view, 'with the list of keys');
    await view.shot('keys-1200');
    await keyboard.press('Escape');
    await view.page.focus('#log');
    await keyboard.press('ArrowDown');
    await keyboard.press('Tab');
    assert.equal(await view.page.evaluate(() => document.activeElement?.closest('#log') ?? null), null, 'one tab stop');
    await view.assertClean();
    await view.close();
  });

  test('each key of the list does what the list says', TEST, async () => {
    const view = await open(browser, `${server.plain}/?feed=levels&from=start`);
    const { page } = view;
    await view.chunksShown(6);
    await page.evaluate(() => {
      navigator.clipboard.writeText = async (text) => void Object.assign(globalThis, { copied: text });
    });
    const focus = () => page.evaluate(() => /** @type {HTMLElement | null} */ (document.activeElement)?.dataset.seq ?? document.activeElement?.id);
    const seen = (/** @type {string} */ query) => page.$eval(query, (element) => element.checkVisibility());
    const copied = () => page.waitForFunction(() => Reflect.get(globalThis, 'copied')).then((text) => text.jsonValue());
    /** In this order, each with what shows that it did it. @type {[list: string, keys: string[], shows: () => Promise<unknown>, wanted: unknown][]} */
    const keys = [
      ['↑', ['ArrowUp'], focus, '5'],
      ['Enter', ['Enter'], () => page.$$eval('#log details[open]', (all) => all.length), 1],
      ['M', ['m'], () => page.$$eval('#log .marked', (all) => all.length), 1],
      ['Home', ['Home'], () => seen('#jump'), true],
      ['[', ['Escape', '['], focus, '5'],
      [']', ['Escape', ']'], focus, '5'],
      ['C', ['c'], copied, '{"level":"error"}\n'],
      ['End', ['End'], () => seen('#jump'), false],
      ['↓', ['ArrowDown'], focus, '0'],
      ['Shift C', ['C'], async () => /Z INFO up\n$/.test(`${await copied()}`), true],
      ['P', ['p'], () => page.$eval('#pause', (button) => button.getAttribute('aria-pressed')), 'true'],
      ['W', ['w'], () => page.$eval('#log-wrap', (box) => /** @type {HTMLInputElement} */ (box).checked), false],
      ['T', ['t'], () => seen('#log .time'), false],
      ['S', ['s'], () => page.waitForFunction(() => document.fullscreenElement !== null).then(() => true), true],
      ['F', ['f'], focus, 'filter'],
      ['/', ['/'], focus, 'find'],
      ['?', ['?'], () => seen('#keys'), true],
    ];
    const listed = await page.$$eval('#keys dt', (all) => all.flatMap((dt) => {
      const each = [...dt.querySelectorAll('kbd')].map((key) => key.textContent ?? '');
      return dt.textContent?.includes('+') ? [each.join(' ').replace('+', ' ')] : each;
    }));
    assert.deepEqual(keys.map(([key]) => key).sort(), listed.sort(), 'the whole list');
    await page.focus('#log');
    for (const [name, pressed, shows, wanted] of keys) {
      for (const key of pressed) await page.keyboard.press(/** @type {import('puppeteer-core').KeyInput} */ (key));
      assert.deepEqual(await shows(), wanted, name);
      if (['C'].includes(name)) await page.evaluate(() => Object.assign(globalThis, { copied: '' }));
      if (['filter', 'find'].includes(`${await focus()}`)) await page.focus('#log');
    }
    await page.evaluate(() => localStorage.clear());
    await view.assertClean();
    await view.close();
  });

  test('a row that is chosen by keyboard stays: only End and the button follow again', TEST, async () => {
    const view = await open(browser, `${server.plain}/?feed=written`);
    const { keyboard } = view.page;
    const write = async (/** @type {string} */ line) => {
      const answer = await fetch(`${server.plain}/stream/written`, { method: 'POST', body: `${line}\n` });
      assert.equal(answer.status, 200);
      await view.until(line, (wanted) => document.querySelector('#chunks')?.textContent === wanted, line);
      // It is drawn by then: chunks are counted and shown in one go.
    };
    await view.state(['streaming']);
    // Fewer than the window holds: the end is always in sight.
    for (const line of ['1', '2', '3']) await write(line);
    await view.page.focus('#log');
    const at = () => view.page.evaluate(() => ({
      current: /** @type {HTMLElement | null} */ (document.activeElement)?.dataset.text ?? '', rows: document.querySelectorAll('#log .chunk').length,
      back: document.querySelector('#jump')?.checkVisibility(),
    }));
    await keyboard.press('ArrowUp');
    await write('4');
    assert.deepEqual(await at(), { current: '3\n', rows: 3, back: true });
    // Below the last row there is the next that came.
    await keyboard.press('ArrowDown');
    await keyboard.press('ArrowDown');
    await write('5');
    assert.deepEqual(await at(), { current: '4\n', rows: 4, back: true }, 'also at the last row');
    await keyboard.press('End');
    await write('6');
    assert.deepEqual(await at(), { current: '', rows: 6, back: false });
    await keyboard.press('ArrowUp');
    await view.page.click('#jump');
    await write('7');
    assert.deepEqual(await at(), { current: '', rows: 7, back: false });
    // More than the window holds: a page up is no choice of a row, and no less a wish.
    await view.page.setViewport({ width: 1280, height: 300 });
    for (let line = 8; line <= 20; line += 1) await write(String(line));
    await view.page.focus('#log');
    // Browsers scroll a page up smoothly: `moved` once it has begun, `rests` once it is over.
    const pageUp = async () => {
      const moves = await view.page.evaluateHandle(() => {
        const log = /** @type {HTMLElement} */ (document.querySelector('#log'));
        const from = log.scrollTop;
        return { moved: new Promise((resolve) => log.addEventListener('scroll', () => log.scrollTop < from - 1 && resolve(true))) };
      });
      await keyboard.press('PageUp');
      await moves.evaluate(({ moved }) => moved);
    };
    const rests = () => view.page.evaluate(async () => {
      const log = /** @type {HTMLElement} */ (document.querySelector('#log'));
      for (let still = 0, at = log.scrollTop; still < 20; still += 1) {
        await new Promise(requestAnimationFrame);
        if (log.scrollTop !== at) [still, at] = [0, log.scrollTop];
      }
    });
    await pageUp();
    await rests();
    await write('21');
    assert.equal((await at()).back, true);
    assert.ok(await view.page.$eval('#log', (log) => log.scrollHeight - log.scrollTop - log.clientHeight > 20), 'the view stays');
    await keyboard.press('End');
    await rests();
    await pageUp();
    // While the view still moves: the newest wish counts.
    await keyboard.press('End');
    await rests();
    const atEnd = () => view.page.waitForFunction(() => {
      const log = /** @type {HTMLElement} */ (document.querySelector('#log'));
      return log.scrollHeight - log.scrollTop - log.clientHeight < 2;
    });
    await atEnd();
    await view.page.setViewport({ width: 1280, height: 200 });
    await atEnd();
    assert.equal((await at()).back, false, 'a window of another size follows on');
    await view.assertClean();
    await view.close();
  });

  test('what is binary says so, and offers the download; what is read out has no escapes', TEST, async () => {
    const view = await open(browser, `${server.plain}/?feed=bytes&from=start`);
    await view.until('the words', () => document.querySelector('#binary')?.checkVisibility());
    await view.chunksShown(1);
    assert.match(await view.page.$eval('#log', (log) => log.textContent ?? ''), /of binary data/);
    const link = await view.page.$eval('#binary-link', (element) => /** @type {HTMLAnchorElement} */ (element).href);
    assert.equal(new URL(link).pathname + new URL(link).search, '/stream/bytes?from=start');
    await assertAccessible(view, 'of a binary feed');
    await view.page.select('#feed', 'colours');
    await view.chunksShown(1);
    assert.equal(await view.page.$eval('#binary', (element) => element.checkVisibility()), false);
    await view.page.type('#find', 'red');
    await view.page.keyboard.press('Enter');
    await view.until('what is said', () => /red alert/.test(document.querySelector('#find-said')?.textContent ?? ''));
    assert.doesNotMatch(await view.page.$eval('body', (body) => body.textContent ?? ''), /\x1b/);
    await view.close();
  });

  test('the state in plain words: empty, ended, and how it is opened with a number of lines', TEST, async () => {
    const view = await open(browser, `${server.plain}/?feed=empty`);
    await view.until('the words', () => /waiting for its first chunk/.test(document.querySelector('#status')?.textContent ?? ''));
    await view.page.select('#feed', 'old');
    await view.state(['done']);
    assert.match((await view.report()).status, /^The feed has ended: 1 chunk, 4 B/);
    await view.page.goto(`${server.plain}/?feed=log&from=-3`);
    await view.chunksShown(3);
    assert.deepEqual(await rows(view), [247, 248, 249].map((i) => `line ${i}\n`));
    await view.close();
  });
});
