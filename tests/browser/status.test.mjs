// The status page in both browsers: on a desk and on a phone, in light and dark, with viewers that come and go, many
// feeds, a server that goes away, and who does not get to see it.
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import https from 'node:https';
import { networkInterfaces, tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { assertAccessible, assertFits } from './lib/accessible.mjs';
import { chromium, firefox, open } from './lib/browsers.mjs';
import { Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };
/** What browsers write into their console about a server that is gone. */
const GONE = /net::ERR_|Failed to load resource|NetworkError|WebTransport/;
/** Firefox has it from its start on: WebDriver BiDi cannot change it. */
const DARK = { 'layout.css.prefers-color-scheme.content-override': 0 };
const LOG = 'exec:while :; do echo "a line of the log"; sleep 0.05; done';
/** A few feeds as they may be, and as many as clients create. */
const FEW = [`build=${LOG}`, 'demo', 'deploy=exec:echo "no such host"; exit 3', 'chat.lobby=publish', 'chat.support=publish', `web.access=${LOG}`];
const MANY = ['room.*=publish', '--feeds-per-client', '200'];

/** The text of an element, without the spaces of its source. @param {import('./lib/view.mjs').View} view @param {string} selector */
function text(view, selector) {
  return view.page.$eval(selector, (element) => (element.textContent ?? '').replace(/\s+/g, ' ').trim());
}

/** Waits for the number of an element. @param {import('./lib/view.mjs').View} view @param {string} id @param {string} value */
function shows(view, id, value) {
  return view.until(`${id}: ${value}`, ([id, value]) => document.getElementById(id)?.textContent === value, [id, value]);
}

/** What the feeds' table shows of a feed. @param {import('./lib/view.mjs').View} view @param {string} name */
function row(view, name) {
  return view.page.$$eval('#feeds-rows tr', (rows, name) => {
    const found = rows.find((row) => row.querySelector('th > span')?.textContent === name);
    return found && [...found.children].map((cell) => cell.firstElementChild?.textContent);
  }, name);
}

/** Shows a page as if its browser preferred light pages. @param {import('./lib/view.mjs').View} view */
async function lighten(view) {
  await view.page.evaluate(() => {
    for (const rule of [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules])) {
      if (rule instanceof CSSMediaRule && /prefers-color-scheme: dark/.test(rule.conditionText)) rule.media.mediaText = 'not all';
    }
    document.documentElement.style.colorScheme = 'light';
  });
}

/**
 * The keyboard reaches everything, in the order in which it is read, and shows where it is.
 * @param {import('./lib/view.mjs').View} view @param {string[]} expected
 */
async function assertTabOrder(view, expected) {
  // What a browser says of elements that are shown.
  const reachable = await view.page.$$eval('a[href], button, input, select, textarea, summary, [tabindex]', (all) =>
    all.filter((element) => element.checkVisibility()).length);
  await view.page.evaluate(() => /** @type {HTMLElement} */ (document.activeElement)?.blur());
  const reached = [];
  for (const _ of expected) {
    await view.page.keyboard.press('Tab');
    reached.push(await view.page.evaluate(() => {
      const element = document.activeElement ?? document.body;
      const { outlineStyle, outlineWidth } = getComputedStyle(element);
      const name = element.id ? `#${element.id}` : element.textContent?.trim();
      return outlineStyle === 'none' || parseFloat(outlineWidth) < 1 ? `${name}, unseen` : name;
    }));
  }
  assert.deepEqual(reached, expected);
  assert.equal(reachable, expected.length, 'nothing is left out');
}

/** In colours that the user has chosen, as a high-contrast theme has them (Chromium alone can pretend that). @param {import('./lib/view.mjs').View} view */
async function assertForcedColors(view) {
  const session = await view.page.createCDPSession();
  await session.send('Emulation.setEmulatedMedia', { features: [{ name: 'forced-colors', value: 'active' }] });
  const colors = async () => view.page.evaluate(() => {
    /** @param {string} color */
    const system = (color) => {
      const probe = document.body.appendChild(document.createElement('i'));
      probe.style.cssText = `forced-color-adjust: none; background: ${color}`;
      const { backgroundColor } = getComputedStyle(probe);
      probe.remove();
      return backgroundColor;
    };
    /** @param {string} selector @param {string} [pseudo] */
    const style = (selector, pseudo) => getComputedStyle(/** @type {Element} */ (document.querySelector(selector)), pseudo);
    const { borderTopColor, borderTopStyle } = style('#feeds');
    return {
      active: matchMedia('(forced-colors: active)').matches,
      canvas: system('Canvas'), text: system('CanvasText'), highlight: system('Highlight'),
      page: style('body').backgroundColor, ink: style('#viewers').color, dot: style('#status', '::before').backgroundColor,
      pause: style('#pause').backgroundColor, card: borderTopStyle === 'none' ? '' : borderTopColor,
    };
  });
  const now = await colors();
  assert.equal(now.active, true);
  assert.deepEqual([now.page, now.ink], [now.canvas, now.text], 'the colours of the user');
  assert.notEqual(now.dot, now.canvas, 'the state has its dot');
  assert.ok(now.card !== '' && now.card !== now.canvas, 'a card has its edge');
  assert.notEqual(now.pause, now.highlight);
  await view.page.click('#pause');
  await view.state(['idle']);
  assert.equal((await colors()).pause, now.highlight, 'a button that is pressed looks like it');
  await assertFits(view, 'in forced colours');
  await assertAccessible(view, 'in forced colours');
  await view.shot('status-chromium-forced');
  await view.page.click('#pause');
  await view.state(['done']);
  await session.send('Emulation.setEmulatedMedia', { features: [] });
  await session.detach();
}

/** On a desk and on a phone. The picture in docs/images/status.png is status-chromium-light-1280.png of these. @param {import('./lib/view.mjs').View} view @param {string} how */
async function assertLooks(view, how) {
  for (const width of [1280, 360]) {
    await view.page.setViewport({ width, height: 800 });
    await assertFits(view, `${how}, ${width} px`);
    await assertAccessible(view, `${how}, ${width} px`);
    await view.shot(`status-${how}-${width}`.toLowerCase());
  }
}

/** Asks a server at any of its addresses. @param {string} url @returns {Promise<{ status: number | undefined, body: string }>} */
function ask(url) {
  return new Promise((resolve, reject) => {
    const request = https.get(url, { rejectUnauthorized: false, agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (more) => (body += more));
      response.on('end', () => resolve({ status: response.statusCode, body }));
    });
    request.on('error', reject);
  });
}

for (const [name, launch] of /** @type {const} */ ([['Chromium', chromium], ['Firefox', () => firefox({ prefs: DARK })]])) {
  describe(`the status page in ${name}`, () => {
    /** @type {import('puppeteer-core').Browser} */ let browser;
    /** @type {Server} */ let server;
    before(async () => {
      [browser, server] = await Promise.all([launch(), Server.start({ args: ['--count', '0', ...FEW, ...MANY] })]);
    }, TEST);
    after(async () => {
      await browser?.close();
      await server?.stop();
    }, TEST);

    test('shows viewers as they come and go, a few of many feeds, and fits', TEST, async () => {
      const view = await open(browser, `${server.plain}/status`, { width: 1280, height: 800 });
      await shows(view, 'viewers', '0');
      assert.equal(await text(view, '#feeds-note'), '');
      const viewers = await Promise.all(['fetch', 'webtransport'].map((transport) =>
        open(browser, `${server.plain}/?transport=${transport}&feed=build&autostart=1`)));
      await Promise.all(viewers.map((viewer) => viewer.chunksShown(2)));
      // It asks nothing while nobody sees it, and at once when it is seen again.
      assert.equal(await text(view, '#viewers'), '0');
      await view.page.bringToFront();
      await shows(view, 'viewers', '2');
      assert.equal(await view.page.$eval('#feeds-rows th span', (first) => first.textContent), 'build', 'the most viewers');
      assert.deepEqual(await view.page.$$eval('#transport-rows tr', (rows) =>
        rows.map((row) => [...row.children].map((cell) => cell.textContent)).filter(([, , viewers]) => viewers !== '0')
          .map(([over, , viewers]) => [over, viewers])), [['WebTransport sessions', '1'], ['HTTP/1.1 connections', '1']]);
      await view.until('what is sent', () => /^[1-9][\d.]* k?B\/s$/.test(document.getElementById('sent')?.textContent ?? ''));
      assert.match(await text(view, '#lag'), /^[\d.]+ m?s$/);
      const [, state, count, rate, , skipped] = (await row(view, 'build')) ?? [];
      assert.deepEqual([state, count, skipped], ['open', '2', '0']);
      assert.match(String(rate), /^[1-9][\d.]* k?B\/s$/);

      await assertTabOrder(view, ['h3cast', '#pause', '#find', '#sort', 'metrics for Prometheus', 'all feeds (JSON)', 'these numbers (JSON)']);
      if (name === 'Chromium') {
        await assertForcedColors(view);
        await assertLooks(view, 'Chromium-light');
        await view.page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'dark' }]);
      }
      assert.equal(await view.page.evaluate(() => matchMedia('(prefers-color-scheme: dark)').matches), true);
      await assertLooks(view, `${name}-dark`);
      if (name === 'Firefox') {
        await lighten(view);
        await assertLooks(view, 'Firefox-light');
      }

      await Promise.all(Array.from({ length: 10 }, async (_, ten) => {
        for (let one = 0; one < 10; one += 1) {
          await fetch(`${server.plain}/stream/room.${10 * ten + one}`, { method: 'POST', body: 'hello\n' });
        }
      }));
      await view.until('how many there are', () => /^The first 20 of 106, by viewers\./.test(document.querySelector('#feeds-note')?.textContent ?? ''));
      assert.equal(await view.page.$$eval('#feeds-rows tr', (rows) => rows.length), 20);
      await view.page.select('#sort', 'state');
      await view.until('what failed first', () => document.querySelector('#feeds-rows th span')?.textContent === 'deploy');
      assert.match(String((await row(view, 'deploy'))?.[1]), /^failed: .*3/);
      await view.page.type('#find', 'Room.7');
      await view.until('those of that name', () => document.querySelectorAll('#feeds-rows tr').length === 11);
      assert.equal(await text(view, '#feeds-note'), '11 feeds with “Room.7” in the name.');

      await viewers[0]?.close();
      await shows(view, 'viewers', '1');
      await viewers[1]?.close();
      await view.assertClean();
      await view.close();
    });

    test('says that the server does not answer, and is live again with it; pauses', TEST, async () => {
      const view = await open(browser, `${server.plain}/status`);
      await view.state(['done']);
      const said = await text(view, '#status');
      await server.kill();
      await view.state(['error']);
      assert.match(await text(view, '#status'), /^The server does not answer\./);
      assert.match(await text(view, '#feeds-states'), /open/, 'the last numbers stay');
      await assertAccessible(view, 'when the server is gone');
      await view.shot(`status-${name}-gone`.toLowerCase());
      server = await server.again();
      await view.state(['done']);
      assert.equal(await text(view, '#status'), said, 'the same words, so that a screen reader hears of turning points only');

      await view.page.focus('#pause');
      await view.page.keyboard.press('Enter');
      await view.state(['idle']);
      assert.equal(await view.page.$eval('#pause', (button) => button.getAttribute('aria-pressed')), 'true');
      await view.page.keyboard.press('Enter');
      await view.state(['done']);
      await view.assertClean(GONE);
      await view.close();
    });

    if (name === 'Chromium') return;
    test('with tokens those that may read all feeds; the start page links to it', TEST, async () => {
      const folder = await mkdtemp(path.join(tmpdir(), 'h3cast-tokens-'));
      const file = path.join(folder, 'tokens');
      await writeFile(file, 'read=build a-token-that-reads-build\nread=* a-token-that-reads-everything\n', { mode: 0o600 });
      const guarded = await Server.start({ args: ['--tokens', file, ...FEW] });
      try {
        const view = await open(browser, `${guarded.plain}/status`);
        const give = async (/** @type {string} */ token) => {
          await view.until('the question', () => document.querySelector('#token-form'));
          await view.page.type('#token', token);
          await view.page.keyboard.press('Enter');
        };
        await view.until('the question', () => document.querySelector('#token-form'));
        await assertAccessible(view, 'while it asks for a token');
        await view.shot('status-token');
        await give('a-token-that-reads-build');
        await view.until('why not', () => /may not read/.test(document.querySelector('#token-form')?.textContent ?? ''));
        await give('a-token-that-reads-everything');
        await view.state(['done']);
        await shows(view, 'viewers', '0');
        // Known in this tab.
        await view.page.goto(`${guarded.plain}/`);
        await view.until('the link', () => document.querySelector('#status-page:not([hidden])'));
        await Promise.all([view.page.waitForNavigation(), view.page.click('#status-page')]);
        await view.state(['done']);
        await view.assertClean(/401|403|Failed to load resource/);
        await view.close();
      } finally {
        await guarded.stop();
        await rm(folder, { recursive: true, force: true });
      }
    });
  });
}

describe('who may see the status page', () => {
  test('beyond loopback no one, unless it is public', TEST, async () => {
    const [address] = Object.values(networkInterfaces()).flat()
      .filter((one) => one?.family === 'IPv4' && !one.internal).map((one) => one?.address);
    assert.ok(address, 'this machine has an address that is not of loopback');
    for (const [status, due] of /** @type {const} */ ([['loopback', 403], ['public', 200], ['off', 404]])) {
      const server = await Server.start({ args: ['--listen', '0.0.0.0:0', '--status', status] });
      try {
        const [, port] = await server.line(/network\s+https:\/\/[\d.]+:(\d+)/);
        for (const path of ['/status', '/status/data', '/status/status.css']) {
          const { status, body } = await ask(`https://${address}:${port}${path}`);
          assert.equal(status, due, body);
          if (due === 403) assert.match(body, /this machine only.*`status`: `public`/);
        }
        const { body } = await ask(`https://${address}:${port}/info`);
        assert.equal('status' in JSON.parse(body), due === 200);
        const here = await fetch(`${server.plain}/status`);
        assert.equal(here.status, status === 'off' ? 404 : 200);
      } finally {
        await server.stop();
      }
    }
  });
});
