// A command that fails, seen by Chromium on a busy machine: every line arrives, then the failure.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { after, before, describe, test } from 'node:test';
import { chromium, open } from './lib/browsers.mjs';
import { Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };
const RUNS = 50;
const PRINTED = `${Array.from({ length: 200 }, (_, line) => `${line + 1}\n`).join('')}error: the last line\n`;

/** Keeps every core busy until the function that it returns is called. */
function busyCores() {
  const spinning = Array.from({ length: availableParallelism() },
    () => spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' }));
  return () => spinning.forEach((child) => child.kill('SIGKILL'));
}

/**
 * In the page: reads feeds `f0`, `f1`, … by fetch or sessions, ten at once; what each gave, and whether
 * it broke off.
 * @param {{ runs: number, webtransport: boolean }} how
 */
async function readAll({ runs, webtransport }) {
  const decoder = new TextDecoder();
  /** @param {ReadableStream<Uint8Array>} stream */
  async function read(stream) {
    let text = '';
    try {
      for (const reader = stream.getReader(); ;) {
        const { done, value } = await reader.read();
        if (done) return { text, broken: false };
        text += decoder.decode(value, { stream: true });
      }
    } catch {
      return { text, broken: true };
    }
  }
  const info = await (await fetch('/info')).json();
  const hashes = info.webtransport.certificateHashes.map(
    (/** @type {{ algorithm: string, value: string }} */ { algorithm, value }) =>
      ({ algorithm, value: Uint8Array.from(atob(value), (char) => char.charCodeAt(0)) }));
  /** @param {number} number */
  async function one(number) {
    const url = `${location.origin}/stream/f${number}?from=start`;
    if (!webtransport) return read(/** @type {any} */ ((await fetch(url)).body));
    const session = new WebTransport(url, { serverCertificateHashes: hashes });
    session.closed.catch(() => {});
    await session.ready;
    const { value } = await session.incomingUnidirectionalStreams.getReader().read();
    return read(value);
  }
  const all = [];
  for (let first = 0; first < runs; first += 10) {
    const some = Array.from({ length: Math.min(10, runs - first) }, (_, index) => one(first + index));
    all.push(...await Promise.all(some));
  }
  return all;
}

for (const { name, quic, webtransport, protocol } of [
  { name: 'fetch over HTTP/3', quic: true, webtransport: false, protocol: 'h3' },
  { name: 'fetch over HTTP/2', quic: false, webtransport: false, protocol: 'h2' },
  { name: 'WebTransport', quic: true, webtransport: true, protocol: 'h3' },
]) {
  describe(name, () => {
    /** @type {Server} */ let server;
    /** @type {import('puppeteer-core').Browser} */ let browser;
    before(async () => {
      const command = `sleep 1; seq 200; echo 'error: the last line'; exit 1`;
      server = await Server.start({
        args: Array.from({ length: RUNS }, (_, number) => `f${number}=exec:${command}`),
      });
      browser = await chromium({ trust: server, quic });
    }, TEST);
    after(async () => {
      await browser?.close();
      await server?.stop();
    }, TEST);

    test('every line of a failed feed arrives before the failure', TEST, async () => {
      const view = await open(browser, `${server.base}/fetch.html`);
      assert.equal(await view.navigationProtocol(), protocol);
      const idle = busyCores();
      try {
        const all = await view.page.evaluate(readAll, { runs: RUNS, webtransport });
        const wrong = all.map(({ text, broken }, number) => ({ number, bytes: text.length, broken, whole: text === PRINTED }))
          .filter(({ whole, broken }) => !whole || !broken);
        assert.deepEqual(wrong, [], `${wrong.length} of ${RUNS}`);
      } finally {
        idle();
      }
      await view.close();
    });
  });
}

describe('a server that stops', () => {
  const LINES = Array.from({ length: 500 }, (_, line) => `line ${line}\n`).join('');

  test('every line that was published before arrives, in each format', TEST, async () => {
    const server = await Server.start({ args: ['-'] });
    const browser = await chromium({ trust: server });
    try {
      const view = await open(browser, `${server.base}/fetch.html`);
      // Kept in the page while the server goes away.
      await view.page.evaluate(() => {
        const page = /** @type {any} */ (window);
        page.begun = 0;
        /** @param {string} query */
        const read = async (query) => {
          const response = await fetch(`/stream?from=start${query}`);
          page.begun += 1;
          const reader = /** @type {any} */ (response.body).getReader();
          const decoder = new TextDecoder();
          let text = '';
          try {
            for (;;) {
              const { done, value } = await reader.read();
              if (done) return { text, broken: false };
              text += decoder.decode(value, { stream: true });
            }
          } catch {
            return { text, broken: true };
          }
        };
        page.raw = Array.from({ length: 5 }, () => read(''));
        page.events = Array.from({ length: 5 }, () => read('&format=sse'));
      });
      const idle = busyCores();
      try {
        server.child.stdin?.write(LINES);
        await view.page.waitForFunction(async () => {
          const { feeds } = await (await fetch('/feeds')).json();
          return feeds[0].chunks === 500 && /** @type {any} */ (window).begun === 10;
        }, { timeout: 60_000, polling: 100 });
        const stopped = server.stop();
        const { raw, events } = await view.page.evaluate(async () => {
          const page = /** @type {any} */ (window);
          return { raw: await Promise.all(page.raw), events: await Promise.all(page.events) };
        });
        await stopped;
        for (const { text, broken } of raw) assert.deepEqual({ whole: text === LINES, broken }, { whole: true, broken: true });
        for (const { text } of events) assert.equal(text.match(/^data: line/gm)?.length, 500);
      } finally {
        idle();
      }
    } finally {
      await browser.close();
      await server.abandon();
    }
  });
});
