// The pages themselves, in Chromium: seen on a phone and on a desk, in light and dark, by keyboard,
// with axe-core as the judge of what a screen reader gets, and with a server that goes away.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { assertAccessible, assertFits } from './lib/accessible.mjs';
import { chromium, open } from './lib/browsers.mjs';
import { DEMO } from './lib/checks.mjs';
import { BY_HAND, Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };
const PAGES = { home: '/', fetch: '/fetch.html', webtransport: '/webtransport.html' };

/** A sentence for a person, not the name of an exception. @param {string} text */
function assertWords(text) {
  assert.match(text, /\w+ \w+ \w+/);
  assert.doesNotMatch(text, /^\w*(Error|Exception)\b/);
}

/** How light the page's background is, from 0 to 1. @param {import('./lib/view.mjs').View} view */
function lightness(view) {
  return view.page.evaluate(() => {
    const probe = document.createElement('div');
    probe.style.backgroundColor = 'Canvas';
    document.body.append(probe);
    const colours = [document.body, document.documentElement, probe].map((e) => getComputedStyle(e).backgroundColor);
    probe.remove();
    const context = /** @type {CanvasRenderingContext2D} */ (document.createElement('canvas').getContext('2d'));
    context.fillStyle = colours.find((colour) => !/^rgba\(.*, 0\)$/.test(colour)) ?? 'white';
    context.fillRect(0, 0, 1, 1);
    const [r = 0, g = 0, b = 0] = context.getImageData(0, 0, 1, 1).data;
    return (r * 0.2126 + g * 0.7152 + b * 0.0722) / 255;
  });
}

/** Presses Tab until `id` has the focus. @param {import('./lib/view.mjs').View} view @param {string} id */
async function tabTo(view, id) {
  for (let presses = 0; presses < 60; presses += 1) {
    await view.page.keyboard.press('Tab');
    const ring = await view.page.evaluate((wanted) => {
      const element = document.activeElement;
      if (element?.id !== wanted) return null;
      const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(element);
      return { outline: outlineStyle !== 'none' && outlineWidth !== '0px', boxShadow: boxShadow !== 'none' };
    }, id);
    if (ring) {
      assert.ok(ring.outline || ring.boxShadow, `#${id} shows that it has the focus`);
      return;
    }
  }
  assert.fail(`60 presses of Tab do not reach #${id}`);
}

describe('each page, at each width, in each colour scheme', () => {
  /** @type {Server} */ let server;
  /** @type {import('puppeteer-core').Browser} */ let browser;
  before(async () => {
    server = await Server.start();
    browser = await chromium({ trust: server });
  }, TEST);
  after(async () => {
    await browser?.close();
    await server?.stop();
  }, TEST);

  for (const [name, path] of Object.entries(PAGES)) {
    for (const width of [360, 1200]) {
      for (const dark of [false, true]) {
        const scheme = dark ? 'dark' : 'light';
        test(`${name}, ${width} px, ${scheme}`, TEST, async () => {
          const view = await open(browser, `${server.base}${path}`, { width, height: 800, dark });
          await view.until('Start', () => document.querySelector('#start:enabled'));
          await view.state(['idle']);
          await assertFits(view, 'before the stream');
          await assertAccessible(view, 'before the stream');
          await view.runToEnd();
          await assertFits(view, 'after the stream');
          await assertAccessible(view, 'after the stream');
          assert.equal((await lightness(view)) < 0.5, dark, 'the background follows the colour scheme');
          await view.shot(`${name}-${width}-${scheme}`);
          await view.assertClean();
          await view.close();
        });
      }
    }
  }
});

describe('the code that a page shows', () => {
  for (const [name, path] of [['fetch', '/fetch.html'], ['webtransport', '/webtransport.html']]) {
    test(`${name}: pasted into the console it prints the chunks`, TEST, async () => {
      const server = await Server.start();
      const browser = await chromium();
      try {
        const view = await open(browser, `${server.plain}${path}`);
        const code = await view.page.$eval('#snippet', (element) => element.textContent);
        const printed = await view.page.evaluate(`(async () => {
          const printed = [];
          const console = { log: (text) => printed.push(text) };
          ${code}
          return printed;
        })()`);
        // What comes while the page is busy comes in one piece: reads are not chunks.
        assert.equal(/** @type {string[]} */ (printed).join(''), DEMO.join(''));
        assert.ok(/** @type {string[]} */ (printed).length > 1, 'as it arrives');
        await view.assertClean();
      } finally {
        await browser.close();
        await server.stop();
      }
    });
  }
});

describe('by keyboard alone', () => {
  /** @type {Server} */ let server;
  /** @type {import('puppeteer-core').Browser} */ let browser;
  before(async () => {
    server = await Server.start({ args: ['--count', '0'] });
    browser = await chromium({ trust: server });
  }, TEST);
  after(async () => {
    await browser?.close();
    await server?.stop();
  }, TEST);

  for (const [name, path] of Object.entries(PAGES)) {
    test(`${name}: Start and Stop, over and over`, TEST, async () => {
      const view = await open(browser, `${server.base}${path}`);
      for (let round = 0; round < 2; round += 1) {
        await tabTo(view, 'start');
        await view.page.keyboard.press('Enter');
        await view.chunksShown(2);
        await view.state(['streaming']);
        await tabTo(view, 'stop');
        await view.page.keyboard.press('Enter');
        await view.state(['stopped']);
        assert.equal((await view.report()).error, '', 'to stop is no error');
      }
      await view.assertClean();
      await view.close();
    });

    if (name === 'home') {
      for (const [look, where] of /** @type {const} */ ([['demo', 'Auto'], ['log', 'log-title']])) {
        test(`${name}: Tab pressed before the page knows that it is a ${look} keeps its place`, TEST, async () => {
          const page = await browser.newPage();
          const isInfo = (/** @type {import('puppeteer-core').HTTPRequest} */ request) => new URL(request.url()).pathname === '/info';
          await page.setRequestInterception(true);
          page.on('request', (request) => void (isInfo(request) || request.continue()));
          const asked = page.waitForRequest(isInfo);
          await page.goto(`${server.base}${path}?view=${look}`, { waitUntil: 'domcontentloaded' });
          const info = await asked;
          for (const _ of ['brand', 'Auto']) await page.keyboard.press('Tab');
          const focus = () => page.evaluate(() => document.activeElement?.getAttribute('aria-labelledby') ?? document.activeElement?.textContent);
          assert.equal(await focus(), 'Auto');
          await info.continue();
          await page.waitForSelector(`[data-view="${look}"]`);
          assert.equal(await focus(), where);
          await page.close();
        });
      }
    }

    test(`${name}: Tab reaches everything`, TEST, async () => {
      const view = await open(browser, `${server.base}${path}`);
      // There is more in it once it knows whether it is a demo or a log.
      await view.page.waitForSelector('main:not([data-undecided])');
      const total = await view.page.evaluate(() => {
        const groups = new Set();
        const all = [...document.querySelectorAll('a[href], button, select, input, textarea, summary, [tabindex="0"]')]
          .filter((element) => element.checkVisibility() && !element.matches(':disabled'))
          .filter((element) => {
            // Tab enters a group of radio buttons once; the arrow keys move inside.
            if (!(element instanceof HTMLInputElement) || element.type !== 'radio') return true;
            return !groups.has(element.name) && Boolean(groups.add(element.name));
          });
        all.forEach((element) => element.setAttribute('data-to-reach', ''));
        return all.length;
      });
      assert.ok(total >= 1);
      for (let presses = 0; presses < total + 5; presses += 1) {
        await view.page.keyboard.press('Tab');
        await view.page.evaluate(() => {
          const active = document.activeElement;
          const name = active instanceof HTMLInputElement && active.type === 'radio' ? active.name : null;
          const met = name ? [...document.querySelectorAll('[data-to-reach]')].filter((e) => e.getAttribute('name') === name) : [active];
          for (const element of met) element?.removeAttribute('data-to-reach');
        });
      }
      const missed = await view.page.evaluate(() =>
        [...document.querySelectorAll('[data-to-reach]')].map((element) => element.outerHTML.slice(0, 120)));
      assert.deepEqual(missed, []);
      await view.close();
    });
  }
});

describe('when things go wrong', () => {
  // The start page does not give up: follow.test.mjs.
  for (const [name, path] of Object.entries(PAGES).filter(([name]) => name !== 'home')) {
    test(`${name}: a server that is gone is told in words, and Start works again`, TEST, async () => {
      const server = await Server.start();
      const browser = await chromium();
      try {
        const view = await open(browser, `${server.plain}${path}`);
        await view.state(['idle']);
        await server.stop();
        await view.start();
        await view.state(['error']);
        const { error, shown } = await view.report();
        assertWords(error);
        assert.equal(shown, 0);
        await assertAccessible(view, 'with an error shown');
        await assertFits(view, 'with an error shown');
        assert.equal(await view.page.$eval('#start', (button) => button.matches(':disabled')), false);
        await view.shot(`${name}-error`);
      } finally {
        await browser.close();
        await server.abandon();
      }
    });
  }

  test('a server that dies in the middle: what came stays, and it is not called done', TEST, async () => {
    const server = await Server.start({ program: BY_HAND });
    const browser = await chromium();
    try {
      const view = await open(browser, `${server.plain}/fetch.html`);
      await view.start();
      await server.line(/^viewer joined$/);
      server.write('the only one');
      await view.chunksShown(1);
      server.child.kill('SIGKILL');
      await view.state(['error', 'done', 'stopped']);
      const { state, error } = await view.report();
      assert.equal(state, 'error');
      assertWords(error);
      assert.deepEqual((await view.reads()).map((read) => read.text), ['the only one\n']);
    } finally {
      await browser.close();
      await server.abandon();
    }
  });

  for (const [name, path] of [['fetch over h3', '/fetch.html'], ['WebTransport', '/webtransport.html']]) {
    test(`a server that stops before ${name} has ended: it is not called done`, TEST, async () => {
      const server = await Server.start({ args: ['--count', '0', '--grace', '200ms'] });
      const browser = await chromium({ trust: server });
      try {
        const view = await open(browser, `${server.base}${path}`);
        await view.start();
        await view.chunksShown(1);
        await server.stop();
        // Far less than what a browser takes to find out by silence: the server must say that it closes.
        await view.state(['error', 'done', 'stopped'], 5_000);
        const { state, error } = await view.report();
        assert.equal(state, 'error');
        assertWords(error);
      } finally {
        await browser.close();
        await server.abandon();
      }
    });
  }
});
