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

const TEST = { timeout: 240_000 };
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
   * A browser with a profile of its own, which `prepare` changes first.
   * @param {typeof chromium | typeof firefox} launch
   * @param {object} options
   * @param {(profile: Profile) => Promise<unknown>} prepare
   * @param {(browser: import('puppeteer-core').Browser, profile: Profile) => Promise<void>} act
   */
  async function within(launch, options, prepare, act) {
    const profile = await Profile.make();
    try {
      await prepare(profile);
      const browser = await launch({ profile, names: [NAME], ...options });
      try {
        await act(browser, profile);
      } finally {
        await browser.close();
      }
    } finally {
      await profile.remove();
    }
  }

  /** @param {Issued[]} of whose roots the user adds by hand */
  const importing = (...of) => async (/** @type {Profile} */ profile) => {
    for (const { pebble } of of) await profile.importRoot(pebble.root);
  };

  /**
   * Over HTTP/2, and over WebTransport only by the hash, which the page asks for.
   * @param {import('puppeteer-core').Browser} browser
   * @param {RegExp} [reason] why, as the page explains it
   */
  async function onlyByHash(browser, reason = /(?:)/) {
    assert.match(await refused(browser), /session/i);
    // After an attempt to follow Alt-Svc, too.
    for (let time = 0; time < 2; time += 1) {
      const { transport, protocol, why } = await read(browser, '/?transport=auto', { noise: REFUSED });
      assert.deepEqual({ transport, protocol }, { transport: 'fetch', protocol: 'h2' });
      assert.match(why, reason);
    }
    assert.equal((await read(browser, '/webtransport.html', { from: short })).protocol, 'h3');
  }

  /** @param {import('puppeteer-core').Browser} browser */
  async function byAltSvc(browser) {
    await overHttp3(browser);
    const { transport, protocol } = await read(browser, '/?transport=auto');
    assert.deepEqual({ transport, protocol }, { transport: 'fetch', protocol: 'h3' });
    assert.equal((await read(browser, '/webtransport.html')).protocol, 'h3');
  }

  /**
   * Why a session does not open.
   * @param {import('puppeteer-core').Browser} browser
   */
  async function refused(browser) {
    const view = await open(browser, `${issued.base}/webtransport.html`);
    await view.start();
    await view.state(['error']);
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
      for (const end = Date.now() + 60_000; protocol !== 'h3' && Date.now() < end;) {
        performance.clearResourceTimings();
        await (await fetch('/info', { cache: 'no-store' })).text();
        protocol = /** @type {PerformanceResourceTiming | undefined} */ (performance.getEntriesByType('resource')[0])?.nextHopProtocol ?? '';
      }
      return protocol;
    });
    await page.close();
    assert.equal(protocol, 'h3');
  }

  test('Chromium, as a root of its own: HTTP/3 by Alt-Svc and WebTransport, without a flag', TEST, () => {
    return within(chromium, {}, (profile) => profile.addKnownRoot(issued.pebble.root), async (browser, profile) => {
      await profile.known(browser, `${issued.base}/healthz`);
      await byAltSvc(browser);
    });
  });

  test('Chromium, as a root added by hand: HTTP/2, and WebTransport only by hash', TEST, () => {
    return within(chromium, {}, importing(issued, short), (browser) => onlyByHash(browser, /\/info was loaded over h2, not h3/));
  });

  for (const [flag, fetches] of /** @type {const} */ ([['--webtransport-developer-mode', 'h2'], ['--origin-to-force-quic-on', 'h3']])) {
    test(`Chromium, as a root added by hand, with ${flag}: WebTransport, and fetch over ${fetches}`, TEST, () => {
      const flags = [fetches === 'h3' ? `${flag}=${new URL(issued.base).host}` : flag];
      return within(chromium, { flags }, importing(issued), async (browser) => {
        assert.equal((await read(browser, '/webtransport.html')).protocol, 'h3');
        assert.equal((await read(browser, '/?transport=fetch')).protocol, fetches);
      });
    });
  }

  test('Firefox, as a root added by hand: HTTP/2, and WebTransport only by hash', TEST, () => {
    return within(firefox, {}, importing(issued, short), (browser) => onlyByHash(browser));
  });

  test('Firefox, as a root added by hand, with one preference: HTTP/3 by Alt-Svc and WebTransport', TEST, () => {
    const prefs = { 'network.http.http3.disable_when_third_party_roots_found': false };
    return within(firefox, { prefs }, importing(issued), byAltSvc);
  });
});
