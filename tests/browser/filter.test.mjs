// A regular expression that would take for ever, typed or out of a link: it is stopped, and the log goes on.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { assertAccessible, assertFits } from './lib/accessible.mjs';
import { chromium, firefox, open } from './lib/browsers.mjs';
import { rows } from './lib/log.mjs';
import { Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };
const FOR_EVER = '/(a+)+$/';
/** What takes it for ever. */
const LINE = `${'a'.repeat(40)}!`;

describe('a filter that takes for ever', () => {
  for (const [name, launch] of /** @type {const} */ ([['Chromium', chromium], ['Firefox', firefox]])) {
    test(`${name}: it is stopped and the log goes on`, TEST, async () => {
      const browser = await launch();
      const server = await Server.start({ args: ['-'] });
      for (const line of ['a', 'bb', LINE, 'aaa']) server.write(line);
      try {
        const view = await open(browser, `${server.plain}/?from=start&transport=fetch&filter=${encodeURIComponent(FOR_EVER)}`, { width: 360 });
        const words = (/** @type {RegExp} */ wanted) =>
          view.until(`${wanted}`, (pattern) => new RegExp(pattern).test(document.querySelector('#filtered')?.textContent ?? ''), wanted.source);
        await words(/^Press Enter to apply$/);
        await view.chunksShown(4);
        await view.page.$eval('#log .seq', (number) => /** @type {HTMLElement} */ (number).click());
        await view.page.focus('#filter');
        await view.page.keyboard.press('Enter');
        // To the marked line, which has to wait for the filter, and back to type.
        await view.page.focus('#log');
        await view.page.keyboard.press(']');
        await view.page.keyboard.press('f');
        await words(/took too long and was stopped/);
        assert.equal(await view.page.evaluate(() => document.activeElement?.id), 'filter', 'the visitor is not taken away from there');
        assert.equal(await view.page.$eval('#filter', (input) => input.getAttribute('aria-invalid')), 'true');
        assert.equal(await view.page.$eval('#log-said', (element) => element.textContent), 'This expression took too long and was stopped. The log is not filtered.');
        assert.equal(new URL(view.page.url()).searchParams.get('filter'), null, 'and is in no link');
        assert.equal((await rows(view)).includes(`${LINE}\n`), true);
        // What is changed around it does not start it again.
        for (const lines of ['3', '0']) {
          const at = await view.page.$eval('#log-context', (context, value) => {
            /** @type {HTMLSelectElement} */ (context).value = value;
            context.dispatchEvent(new Event('change'));
            return [document.querySelector('#filter')?.getAttribute('aria-invalid'), new URL(location.href).searchParams.get('filter')];
          }, lines);
          assert.deepEqual(at, ['true', null]);
        }
        await words(/took too long and was stopped/);
        const kept = (await rows(view)).length;
        server.write('goes on');
        await view.chunksShown(kept + 1);
        await assertFits(view, 'when a filter was stopped');
        await assertAccessible(view, 'when a filter was stopped');
        // Another one runs in another worker.
        await view.page.keyboard.press('Escape');
        await view.page.keyboard.type('/^a+$/ -bb');
        await words(/^2 shown$/);
        assert.deepEqual(await rows(view), ['a\n', 'aaa\n']);
        server.write('aaaa');
        await words(/^3 shown$/);
        await view.assertClean();
        await view.close();
      } finally {
        await browser.close();
        await server.stop();
      }
    });
  }
});
