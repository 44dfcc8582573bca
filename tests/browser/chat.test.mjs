// The chat example and its page: Chromium and Firefox in one room, by either way in.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { assertAccessible, assertFits } from './lib/accessible.mjs';
import { chromium, firefox, open } from './lib/browsers.mjs';
import { CHAT, Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };

/** @typedef {import('./lib/view.mjs').View} View */
/** @typedef {import('puppeteer-core').Browser} Browser */

/** Types a name, presses Enter, and waits to be in. @param {View} view @param {string} name */
async function join(view, name) {
  await view.state(['idle']);
  await view.page.bringToFront();
  await view.page.type('#name', name);
  await view.page.keyboard.press('Enter');
  await view.state(['streaming', 'error']);
  assert.equal((await view.report()).error, '');
}

/** @param {View} view @param {string} text */
async function say(view, text) {
  await view.page.bringToFront();
  await view.page.focus('#message');
  await view.page.$eval('#message', (field, value) => { /** @type {HTMLInputElement} */ (field).value = value; }, text);
  await view.page.keyboard.press('Enter');
}

/** Everything in the log, in order, in short. @param {View} view @returns {Promise<string[]>} */
function shown(view) {
  return view.page.evaluate(() => [...document.querySelectorAll('#log .line')].map((line) => {
    const { kind, from, text } = /** @type {HTMLElement} */ (line).dataset;
    return kind === 'message' ? `${from}: ${text}` : `${from} ${kind}`;
  }));
}

/** Waits for a line. @param {View} view @param {string} line */
async function hears(view, line) {
  await view.until(`the line ${line}`, (wanted) => [...document.querySelectorAll('#log .line')].some((element) => {
    const { kind, from, text } = /** @type {HTMLElement} */ (element).dataset;
    return (kind === 'message' ? `${from}: ${text}` : `${from} ${kind}`) === wanted;
  }), line);
}

/** Says something without a browser. @param {Server} server @param {string} name @param {BodyInit} body */
async function post(server, name, body) {
  const response = await fetch(`${server.plain}/chat?name=${encodeURIComponent(name)}`, { method: 'POST', body });
  return response.status;
}

describe('Chromium and Firefox in one room', () => {
  /** @type {Server} */ let server;
  /** @type {Browser} */ let chrome;
  /** @type {Browser} */ let fox;
  before(async () => {
    server = await Server.start({ program: CHAT });
    chrome = await chromium();
    fox = await firefox();
  }, TEST);
  after(async () => {
    await chrome?.close();
    await fox?.close();
    await server?.stop();
  }, TEST);

  test('everybody hears everybody, in order and to the byte, and who comes and goes', TEST, async () => {
    const page = `${server.plain}/chat.html`;
    const ann = await open(chrome, page);
    await join(ann, 'Ann');
    const ben = await open(chrome, `${page}?transport=fetch`);
    await join(ben, 'Ben');
    const cleo = await open(fox, page);
    await join(cleo, 'Cleo & co. <b>');
    const everybody = [ann, ben, cleo];
    for (const view of everybody) await hears(view, 'Cleo & co. <b> joined');

    const [over, byPost, inFirefox] = await Promise.all(everybody.map((view) => view.report()));
    assert.equal(over.protocolText, 'WebTransport over HTTP/3, one bidirectional stream');
    assert.match(over.why, /recognised the server's certificate by its hash/);
    assert.equal(byPost.protocolText, 'POST + fetch stream over http/1.1');
    assert.match(byPost.why, /\?transport=fetch/);
    assert.equal(inFirefox.protocolText, over.protocolText);

    const said = [];
    const texts = [
      'hello', '  spaces  kept  ', 'ünï — 🌊👩‍👩‍👧 é e\u0301', 'שלום abc مرحبا', '"quoted" \\n \u0007 {"at":1}',
      '<img src=x onerror="document.title=\'no\'"> <b>&amp;</b>', '🌊'.repeat(1024), 'x', '\u{feff}after a byte order mark',
    ];
    for (const [i, text] of texts.entries()) {
      const speaker = i % everybody.length;
      const line = `${['Ann', 'Ben', 'Cleo & co. <b>'][speaker]}: ${text}`;
      said.push(line);
      await say(/** @type {View} */ (everybody[speaker]), text);
      for (const view of everybody) await hears(view, line);
    }
    const joined = ['Ann joined', 'Ben joined', 'Cleo & co. <b> joined'];
    assert.deepEqual(await shown(ann), [...joined, ...said]);
    assert.deepEqual(await shown(ben), [...joined.slice(1), ...said]);
    assert.deepEqual(await shown(cleo), [...joined.slice(2), ...said]);
    for (const view of everybody) {
      const rendered = await view.page.$$eval('#log .line .text', (texts) => texts.map((text) => text.textContent));
      assert.deepEqual(rendered, texts);
      assert.equal(await view.page.$$eval('#log :is(img, b, script)', (found) => found.length), 0, 'text stays text');
      assert.equal(await view.page.title(), 'Chat · h3cast');
      await view.assertClean();
    }
    await cleo.shot('chat-firefox-1200');

    await cleo.close();
    await hears(ann, 'Cleo & co. <b> left');
    await hears(ben, 'Cleo & co. <b> left');
    await ben.close();
    await hears(ann, 'Ben left');
    await ann.page.click('#leave');
    await ann.state(['stopped']);
    assert.equal((await ann.report()).error, '');
    await ann.close();
  });

  test('who joins gets the last fifty messages, by either way', TEST, async () => {
    for (let seq = 0; seq < 60; seq += 1) assert.equal(await post(server, 'Poster', `message ${seq}`), 204);
    const last = Array.from({ length: 50 }, (_, i) => `Poster: message ${i + 10}`);
    for (const [browser, query, name] of /** @type {const} */ ([[chrome, '', 'A'], [chrome, '?transport=fetch', 'B'], [fox, '', 'C']])) {
      const view = await open(browser, `${server.plain}/chat.html${query}`);
      await join(view, name);
      await hears(view, `${name} joined`);
      assert.deepEqual((await shown(view)).filter((line) => line.includes(':')), last);
      assert.equal(await view.page.$eval('#log', (log) => log.getAttribute('aria-live')), 'polite');
      await view.assertClean();
      await view.close();
    }
  });

  for (const [what, bytes, code] of /** @type {const} */ ([
    ['a message that is too long', [...Buffer.alloc(4097, 'x')], 1],
    ['a message that is no UTF-8', [0xff, 0x0a], 2],
  ])) {
    test(`${what} stops its stream with code ${code}`, TEST, async () => {
      for (const browser of [chrome, fox]) {
        const view = await open(browser, `${server.plain}/chat.html`);
        const got = await view.page.evaluate(`(async () => {
          const { webtransport } = await (await fetch('/info')).json();
          const serverCertificateHashes = webtransport.certificateHashes.map(({ algorithm, value }) =>
            ({ algorithm, value: Uint8Array.from(atob(value), (c) => c.charCodeAt(0)) }));
          const session = new WebTransport(webtransport.url.replace('/stream', '/chat?name=Long'), { serverCertificateHashes });
          await session.ready;
          const { writable } = await session.createBidirectionalStream();
          const writer = writable.getWriter();
          const stopped = writer.closed.catch((error) => error.streamErrorCode);
          writer.write(new Uint8Array(${JSON.stringify(bytes)})).catch(() => {});
          const code = await stopped;
          session.close();
          return code;
        })()`);
        assert.equal(got, code);
        await view.close();
      }
    });
  }
});

describe('the chat page', () => {
  /** @type {Server} */ let server;
  /** @type {Browser} */ let browser;
  before(async () => {
    server = await Server.start({ program: CHAT });
    browser = await chromium({ trust: server });
    for (const [name, text] of [['Ann', 'Is this over HTTP/3?'], ['Ben', 'Mine is: one stream, both ways. 🌊'], ['مريم', 'مرحبا'], ['Ann', 'long '.repeat(60)], ['x'.repeat(64), 'y'.repeat(300)]]) {
      assert.equal(await post(server, String(name), String(text)), 204);
    }
  }, TEST);
  after(async () => {
    await browser?.close();
    await server?.stop();
  }, TEST);

  for (const width of [360, 1200]) {
    for (const dark of [false, true]) {
      const scheme = dark ? 'dark' : 'light';
      test(`${width} px, ${scheme}`, TEST, async () => {
        const view = await open(browser, `${server.base}/chat.html`, { width, height: 800, dark });
        await view.state(['idle']);
        await assertFits(view, 'before joining');
        await assertAccessible(view, 'before joining');
        await join(view, 'Ann');
        await say(view, `I see you on ${width} px, ${scheme}.`);
        await hears(view, `Ann: I see you on ${width} px, ${scheme}.`);
        await assertFits(view, 'in the chat');
        await assertAccessible(view, 'in the chat');
        await view.shot(`chat-${width}-${scheme}`);
        await view.assertClean();
        await view.close();
      });
    }
  }

  test('by keyboard alone: name, message, and the focus is where the next key belongs', TEST, async () => {
    const view = await open(browser, `${server.base}/chat.html?transport=fetch`);
    const focused = () => view.page.evaluate(() => document.activeElement?.id);
    await view.state(['idle']);
    for (let presses = 0; await focused() !== 'name'; presses += 1) {
      assert.ok(presses < 20, 'Tab reaches the name');
      await view.page.keyboard.press('Tab');
    }
    await view.page.keyboard.press('Enter');
    assert.match(await view.page.$eval('#name', (field) => /** @type {HTMLInputElement} */ (field).validationMessage), /name/);
    await view.page.keyboard.type('Keys');
    await view.page.keyboard.press('Enter');
    await view.state(['streaming']);
    assert.equal(await focused(), 'message');
    await view.page.keyboard.type('typed by hand');
    await view.page.keyboard.press('Enter');
    await hears(view, 'Keys: typed by hand');
    assert.equal(await focused(), 'message');
    assert.equal((await view.report()).protocolText, 'POST + fetch stream over h3');
    await view.page.$eval('#message', (field) => { /** @type {HTMLInputElement} */ (field).value = '🌊'.repeat(1025); });
    await view.page.keyboard.press('Enter');
    assert.match(await view.page.$eval('#message', (field) => /** @type {HTMLInputElement} */ (field).validationMessage), /4,100 bytes/);
    for (const id of ['send', 'leave']) {
      for (let presses = 0; await focused() !== id; presses += 1) {
        assert.ok(presses < 20, `Tab reaches #${id}`);
        await view.page.keyboard.press('Tab');
      }
    }
    await view.page.keyboard.press('Enter');
    await view.state(['stopped']);
    assert.equal(await focused(), 'join');
    await view.assertClean();
    await view.close();
  });
});

describe('when there is no chat any more, or none at all', () => {
  for (const [name, query] of [['WebTransport', ''], ['the fallback', '?transport=fetch']]) {
    test(`${name}: a server that stops is a connection lost, and Reconnect has the focus`, TEST, async () => {
      const server = await Server.start({ program: CHAT });
      const browser = await chromium();
      try {
        const view = await open(browser, `${server.plain}/chat.html${query}`);
        await join(view, 'Ann');
        await say(view, 'still here');
        await hears(view, 'Ann: still here');
        await server.stop();
        await view.state(['error']);
        const { error } = await view.report();
        assert.match(error, /The server has ended the chat.*Reconnect.*cargo run --example chat/);
        assert.equal(await view.page.evaluate(() => document.activeElement?.textContent), 'Reconnect');
        assert.deepEqual(await shown(view), ['Ann joined', 'Ann: still here'], 'what was said stays');
        await assertFits(view, 'with an error shown');
        await assertAccessible(view, 'with an error shown');
        await view.page.keyboard.press('Enter');
        await view.until('the next error', () => /did not answer/.test(document.querySelector('#error')?.textContent ?? ''));
      } finally {
        await browser.close();
        await server.abandon();
      }
    });
  }

  test('a server without a chat: the page says where there is one', TEST, async () => {
    const server = await Server.start();
    const browser = await chromium();
    try {
      const view = await open(browser, `${server.plain}/chat.html`);
      await view.state(['error']);
      assert.match((await view.report()).error, /This server has no chat\. Start the example: cargo run --example chat/);
      assert.equal(await view.page.$eval('#join', (button) => button.matches(':disabled')), true);
      await assertFits(view, 'without a chat');
      await assertAccessible(view, 'without a chat');
      await view.shot('chat-none');
    } finally {
      await browser.close();
      await server.stop();
    }
  });

  test('Firefox without WebTransport falls back and says so', TEST, async () => {
    const server = await Server.start({ program: CHAT });
    const browser = await firefox({ prefs: { 'network.webtransport.enabled': false } });
    try {
      const view = await open(browser, `${server.plain}/chat.html`);
      await join(view, 'Fox');
      await say(view, 'by POST');
      await hears(view, 'Fox: by POST');
      const { protocolText, why } = await view.report();
      assert.equal(protocolText, 'POST + fetch stream over http/1.1');
      assert.match(why, /WebTransport is not available here/);
      await view.assertClean();
    } finally {
      await browser.close();
      await server.stop();
    }
  });
});
