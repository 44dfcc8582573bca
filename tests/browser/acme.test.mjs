// A certificate from an authority that speaks ACME (Pebble), in browsers that were told to trust that authority and have
// no flag that touches certificates: as a root of the browser's own, which is what the root of a public authority is, and
// as one that was added by hand, which is what that of a private authority is.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { chromium, firefox, open } from './lib/browsers.mjs';
import { assertDemo } from './lib/checks.mjs';
import { Pebble, freePort } from './lib/pebble.mjs';
import { Profile } from './lib/profiles.mjs';
import { Server } from './lib/server.mjs';

const TEST = { timeout: 120_000 };
const NAME = 'cast.example.org';
/** What browsers write into their console when a session is refused. */
const REFUSED = /WebTransport|ERR_QUIC|ERR_CONNECTION|can’t establish a connection/;

/** A server, and the authority that has issued its certificate. */
class Issued {
  /** @param {Pebble} pebble @param {Server} server */
  constructor(pebble, server) {
    this.pebble = pebble;
    this.server = server;
    this.base = `https://${NAME}:${server.port}`;
  }

  /** @param {number} days for which the certificate is valid */
  static async start(days) {
    const port = await freePort();
    const pebble = await Pebble.start(port, days);
    try {
      const acme = ['--acme', NAME, '--acme-directory', pebble.directory, '--acme-ca', pebble.ca];
      const server = await Server.start({ host: '127.0.0.1', ports: [port, 0], args: acme });
      await server.logged(/the certificate was renewed/);
      return new Issued(pebble, server);
    } catch (error) {
      await pebble.stop();
      throw error;
    }
  }

  async stop() {
    await this.server.stop();
    await this.pebble.stop();
  }
}

describe('a certificate that an authority issued', () => {
  /** @type {Issued} */ let issued;
  /** @type {Issued} */ let short;
  before(async () => {
    // As most public ones do; and so few days that browsers take the certificate by its hash, too.
    [issued, short] = await Promise.all([Issued.start(90), Issued.start(7)]);
  }, TEST);
  after(async () => {
    await issued?.stop();
    await short?.stop();
  }, TEST);

  /**
   * Reads the demo on the page, and gives how it came. An error of the certificate would be one of the navigation.
   * @param {import('puppeteer-core').Browser} browser
   * @param {string} way the page, and what it asks for
   * @param {{ noise?: RegExp, from?: Issued }} [options]
   */
  async function read(browser, way, { noise, from = issued } = {}) {
    const view = await open(browser, `${from.base}${way}`);
    assert.equal(await view.page.evaluate(() => isSecureContext), true);
    await view.runToEnd();
    await assertDemo(view);
    const { transport, protocol, why } = await view.report();
    await view.assertClean(noise);
    await view.close();
    return { transport, protocol, why };
  }

  /**
   * Why a session does not open.
   * @param {import('puppeteer-core').Browser} browser
   */
  async function refused(browser) {
    const view = await open(browser, `${issued.base}/webtransport.html`);
    await view.start();
    await view.state(['error'], 30_000);
    const { error } = await view.report();
    await view.close();
    return error;
  }

  /**
   * Waits until the browser has followed Alt-Svc, as it does for a request some time after the first one.
   * @param {import('puppeteer-core').Browser} browser
   */
  async function overHttp3(browser) {
    const { page } = await open(browser, `${issued.base}/`);
    const protocol = await page.evaluate(async () => {
      let protocol = '';
      for (const end = Date.now() + 20_000; protocol !== 'h3' && Date.now() < end;) {
        performance.clearResourceTimings();
        await (await fetch('/info', { cache: 'no-store' })).text();
        protocol = /** @type {PerformanceResourceTiming | undefined} */ (performance.getEntriesByType('resource')[0])?.nextHopProtocol ?? '';
      }
      return protocol;
    });
    await page.close();
    assert.equal(protocol, 'h3');
  }

  test('Chromium, as a root of its own: HTTP/3 by Alt-Svc and WebTransport, without a flag', TEST, async () => {
    const profile = await Profile.make();
    await profile.addKnownRoot(issued.pebble.root);
    const browser = await chromium({ profile, names: [NAME] });
    try {
      await profile.known(browser, `${issued.base}/healthz`);
      await overHttp3(browser);
      const { transport, protocol } = await read(browser, '/?transport=auto');
      assert.deepEqual({ transport, protocol }, { transport: 'fetch', protocol: 'h3' });
      assert.equal((await read(browser, '/webtransport.html')).protocol, 'h3');
    } finally {
      await browser.close();
      await profile.remove();
    }
  });

  test('Chromium, as a root added by hand: HTTP/2, and WebTransport only by hash', TEST, async () => {
    const profile = await Profile.make();
    for (const { pebble } of [issued, short]) await profile.importRoot(pebble.root);
    const browser = await chromium({ profile, names: [NAME] });
    try {
      assert.match(await refused(browser), /session/i);
      // After an attempt to follow Alt-Svc, too.
      for (let time = 0; time < 2; time += 1) {
        const { transport, protocol, why } = await read(browser, '/?transport=auto', { noise: REFUSED });
        assert.deepEqual({ transport, protocol }, { transport: 'fetch', protocol: 'h2' });
        assert.match(why, /reports h2 for \/info, not h3/);
      }
      // By the hash, which the page asks for.
      assert.equal((await read(browser, '/webtransport.html', { from: short })).protocol, 'h3');
    } finally {
      await browser.close();
      await profile.remove();
    }
  });

  for (const [flag, fetches] of /** @type {const} */ ([['--webtransport-developer-mode', 'h2'], ['--origin-to-force-quic-on', 'h3']])) {
    test(`Chromium, as a root added by hand, with ${flag}: WebTransport, and fetch over ${fetches}`, TEST, async () => {
      const profile = await Profile.make();
      await profile.importRoot(issued.pebble.root);
      const flags = [fetches === 'h3' ? `${flag}=${new URL(issued.base).host}` : flag];
      const browser = await chromium({ profile, names: [NAME], flags });
      try {
        assert.equal((await read(browser, '/webtransport.html')).protocol, 'h3');
        assert.equal((await read(browser, '/?transport=fetch')).protocol, fetches);
      } finally {
        await browser.close();
        await profile.remove();
      }
    });
  }

  test('Firefox, as a root added by hand: HTTP/2, and WebTransport only by hash', TEST, async () => {
    const profile = await Profile.make();
    for (const { pebble } of [issued, short]) await profile.importRoot(pebble.root);
    const browser = await firefox({ profile, names: [NAME] });
    try {
      assert.match(await refused(browser), /session/i);
      for (let time = 0; time < 2; time += 1) {
        const { transport, protocol } = await read(browser, '/?transport=auto', { noise: REFUSED });
        assert.deepEqual({ transport, protocol }, { transport: 'fetch', protocol: 'h2' });
      }
      // By the hash, which the page asks for.
      assert.equal((await read(browser, '/webtransport.html', { from: short })).protocol, 'h3');
    } finally {
      await browser.close();
      await profile.remove();
    }
  });

  test('Firefox, as a root added by hand, with one preference: HTTP/3 by Alt-Svc and WebTransport', TEST, async () => {
    const profile = await Profile.make();
    await profile.importRoot(issued.pebble.root);
    const prefs = { 'network.http.http3.disable_when_third_party_roots_found': false };
    const browser = await firefox({ profile, names: [NAME], prefs });
    try {
      await overHttp3(browser);
      const { transport, protocol } = await read(browser, '/?transport=auto');
      assert.deepEqual({ transport, protocol }, { transport: 'fetch', protocol: 'h3' });
      assert.equal((await read(browser, '/webtransport.html')).protocol, 'h3');
    } finally {
      await browser.close();
      await profile.remove();
    }
  });
});
