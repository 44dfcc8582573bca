// The WebTransport API of the library against that of browsers as they are installed, with no flag:
// a page on plain http://localhost, and the certificate known by its hash.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { inspect } from 'node:util';
import { chromium, firefox, open } from './lib/browsers.mjs';
import { Server, WEBTRANSPORT } from './lib/server.mjs';
import { BREAKS } from './lib/webtransport-breaks.mjs';
import { CASES } from './lib/webtransport-cases.mjs';
import { kit } from './lib/webtransport-kit.mjs';

const TEST = { timeout: 240_000 };

/** @typedef {import('./lib/webtransport-kit.mjs').Feature} Feature */

/**
 * What each browser has of that which not all have. A test fails when a browser gets more.
 * @type {{ name: string, launch: () => ReturnType<typeof chromium>, has: Record<Feature, boolean> }[]}
 */
const BROWSERS = [
  {
    name: 'Chromium',
    launch: chromium,
    has: {
      protocols: true, draining: false, wideCodes: true, bothWaysCodes: true, stopsInOrder: false, cancels: true,
    },
  },
  {
    name: 'Firefox',
    launch: firefox,
    has: {
      protocols: false, draining: false, wideCodes: false, bothWaysCodes: false, stopsInOrder: true, cancels: false,
    },
  },
];

for (const { name, launch, has } of BROWSERS) {
  describe(`${name}'s WebTransport`, () => {
    /** @type {Server} */ let server;
    /** @type {import('puppeteer-core').Browser} */ let browser;
    /** @type {import('./lib/view.mjs').View} */ let view;
    before(async () => {
      server = await Server.start({ program: WEBTRANSPORT });
      browser = await launch();
      view = await open(browser, `${server.plain}/`);
      await view.page.evaluate(`(${kit})(${JSON.stringify(server.base)}).then((kit) => { globalThis.kit = kit; })`);
    }, TEST);
    after(async () => {
      await browser?.close();
      await server?.stop();
    }, TEST);

    test('it has the parts of the API that it is known to have, and no more', TEST, async () => {
      const found = await view.page.evaluate(() => ({
        protocols: 'protocol' in WebTransport.prototype,
        draining: 'draining' in WebTransport.prototype,
      }));
      assert.deepEqual(found, { protocols: has.protocols, draining: has.draining });
    });

    for (const { name, needs, run, expected, lacking } of [...CASES, ...BREAKS]) {
      const wanted = needs && !has[needs] ? lacking : expected;
      if (wanted === undefined) continue;
      test(name, TEST, async () => {
        const found = await view.page.evaluate(`(${run})(globalThis.kit)`);
        if (typeof wanted === 'function') assert.ok(wanted(found), inspect(found));
        else assert.deepEqual(found, wanted);
        // What a browser writes of sessions that fail is no fault of the page.
        assert.deepEqual(view.errors.filter((error) => error.startsWith('uncaught')), []);
      });
    }
  });
}
