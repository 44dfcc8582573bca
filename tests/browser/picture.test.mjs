// The start page with feeds that are images or documents: shown by type, and none of their scripts runs.
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { assertAccessible, assertFits } from './lib/accessible.mjs';
import { chromium, firefox, open } from './lib/browsers.mjs';
import { Server } from './lib/server.mjs';

const TEST = { timeout: 240_000 };

const GIF = Buffer.from('R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7', 'base64');
const AVIF = Buffer.from(
  'AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAADybWV0YQAAAAAAAAAoaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAGxpYmF2aWYAAAAADnBpdG0AAAAAAAEA' +
  'AAAeaWxvYwAAAABEAAABAAEAAAABAAABGgAAAB0AAAAoaWluZgAAAAAAAQAAABppbmZlAgAAAAABAABhdjAxQ29sb3IAAAAAamlwcnAAAABLaXBjbwAAABRpc3BlAAAAAAAA' +
  'AAIAAAACAAAAEHBpeGkAAAAAAwgICAAAAAxhdjFDgQ0MAAAAABNjb2xybmNseAACAAIAAYAAAAAXaXBtYQAAAAAAAAABAAEEAQKDBAAAACVtZGF0EgAKCBgANogQEAwgMg8f' +
  '8D///8WfhwB8+ErK42A=', 'base64');
const RUN = 'top.ran = parent.ran = window.ran = true';
/** @type {Record<string, string | Buffer>} */
const FILES = {
  'a.gif': GIF,
  'a.avif': AVIF,
  'a.svg': `<svg xmlns="http://www.w3.org/2000/svg" width="300" height="200" onload="${RUN}">\n<script>${RUN}</script><image href="/info"/><circle r="90"/></svg>\n`,
  'a.json': '{"name": "Żaneta",\n"list": [1, {"two": 2}]}\n',
  'a.html': `<!doctype html><script>${RUN}</script><img src=x onerror="${RUN}"><b>bold</b>\n`,
  'a.md': `# Title\n<img src=x onerror="${RUN}">\n[link](javascript:${RUN})\n`,
  'a.ndjson': '{"a": 1}\n{"a": 2}\n',
  'log': `<svg xmlns="http://www.w3.org/2000/svg"><script>${RUN}</script></svg>\n`,
  'broken.png': Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), Buffer.alloc(100, 7)]),
  'large.png': Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), Buffer.alloc(17_000_000)]),
};

for (const [browserName, launch] of /** @type {const} */ ([['Chromium', chromium], ['Firefox', firefox]])) {
  describe(`a feed by its type in ${browserName}`, () => {
    /** @type {Server} */ let server;
    /** @type {import('puppeteer-core').Browser} */ let browser;
    /** @type {string} */ let dir;
    /** @type {Buffer} */ let jpeg;
    before(async () => {
      browser = await launch();
      dir = await mkdtemp(path.join(tmpdir(), 'h3cast-types-'));
      // Images as the browser itself writes them.
      const page = await browser.newPage();
      const made = await page.evaluate(() => ['png', 'jpeg', 'webp'].map((type) => {
        const canvas = document.createElement('canvas');
        [canvas.width, canvas.height] = [640, 400];
        const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'));
        for (let i = 0; i < 40; i += 1) {
          context.fillStyle = `hsl(${i * 9} 80% 50%)`;
          context.fillRect(i * 16, i * 7, 30, 90);
        }
        return [type, canvas.toDataURL(`image/${type}`).split(',')[1] ?? ''];
      }));
      await page.close();
      for (const [type, base64] of made) FILES[`a.${type}`] = Buffer.from(String(base64), 'base64');
      jpeg = /** @type {Buffer} */ (FILES['a.jpeg']);
      for (const [name, content] of Object.entries(FILES)) await writeFile(path.join(dir, name), content);
      server = await Server.start({ args: ['camera=publish', ...Object.keys(FILES).map((name) => `${name}=file:${path.join(dir, name)}`)] });
    }, TEST);
    after(async () => {
      await browser?.close();
      await server?.stop();
      await rm(dir, { recursive: true, force: true });
    }, TEST);

    /** What is in place of the log, in words. @param {import('./lib/view.mjs').View} view @param {RegExp} wanted */
    const about = (view, wanted) => view.until(`words like ${wanted}`, (source) =>
      new RegExp(String(source)).test(document.querySelector('#picture:not([hidden]) #picture-about')?.textContent ?? ''), wanted.source);
    const look = (/** @type {import('./lib/view.mjs').View} */ view) => view.page.evaluate(() => ({
      ran: Reflect.get(globalThis, 'ran') ?? false,
      alt: document.querySelector('#picture img')?.getAttribute('alt') ?? '',
      log: document.querySelector('#log')?.checkVisibility(),
      notice: document.querySelector('#binary')?.checkVisibility(),
      parsed: document.querySelector('#log :is(b, img, svg, script)') !== null,
    }));

    test('an image, with its size, in place of its bytes; no script of an SVG runs', TEST, async () => {
      const view = await open(browser, `${server.plain}/?feed=a.png&view=log`, { width: 1280, height: 800 });
      for (const [name, words] of /** @type {const} */ ([
        ['a.png', 'PNG, 640 × 400 pixels'], ['a.jpeg', 'JPEG, 640 × 400 pixels'], ['a.webp', browserName === 'Chromium' ? 'WebP, 640 × 400 pixels' : '(WebP|PNG), 640 × 400 pixels'],
        ['a.gif', 'GIF, 1 × 1 pixels, 42 B'], ['a.avif', 'AVIF, 2 × 2 pixels, 311 B'], ['a.svg', 'SVG, 300 × 200 pixels'],
      ])) {
        await view.page.goto(`${server.plain}/?feed=${name}&view=log`);
        await about(view, new RegExp(`^${words}`));
        const { alt, ...rest } = await look(view);
        assert.match(alt, new RegExp(`^Image from the feed ${name}: ${words}`));
        assert.deepEqual(rest, { ran: false, log: false, notice: false, parsed: false }, name);
      }
      await assertFits(view, 'with an image');
      await assertAccessible(view, 'with an image');
      await view.page.click('#picture-switch');
      assert.deepEqual(await look(view).then(({ log, parsed }) => ({ log, parsed })), { log: true, parsed: false }, 'an SVG as text');
      await view.page.goto(`${server.plain}/?feed=broken.png&view=log`);
      await about(view, /^The browser cannot show this PNG image/);
      assert.equal((await look(view)).log, true);
      await view.assertClean();
      await view.close();
    });

    test('text by its type: JSON is set out, HTML and Markdown stay text', TEST, async () => {
      const view = await open(browser, `${server.plain}/?feed=a.json&view=log`, { width: 360, height: 740 });
      await about(view, /^JSON, 4\d B$/);
      assert.equal(await view.page.$eval('#picture pre', (text) => text.textContent), JSON.stringify(JSON.parse(String(FILES['a.json'])), null, 2));
      await assertFits(view, 'with JSON');
      await assertAccessible(view, 'with JSON');
      // What comes late of a reading is not shown in the next.
      const late = await view.page.evaluate(async () => {
        const start = /** @type {HTMLElement} */ (document.querySelector('#start'));
        const { text } = Blob.prototype;
        let go = () => {};
        const asked = new Promise((resolve) => {
          Blob.prototype.text = async function () {
            Blob.prototype.text = () => new Promise(() => {});
            const read = await text.call(this);
            resolve(undefined);
            await new Promise((held) => { go = () => held(undefined); });
            return read;
          };
        });
        start.click();
        await asked;
        start.click();
        go();
        await new Promise((resolve) => setTimeout(resolve));
        return document.querySelector('#picture pre');
      });
      assert.equal(late, null);
      for (const name of ['a.html', 'a.md', 'a.ndjson', 'log']) {
        await view.page.goto(`${server.plain}/?feed=${name}&view=log`);
        await view.state(['done']);
        const lines = String(FILES[name]).split(/(?<=\n)/).filter((line) => line !== '');
        await view.chunksShown(lines.length);
        assert.equal((await view.reads()).map(({ text }) => text).join(''), String(FILES[name]));
        // The answer to what it is comes after the end.
        await view.until('the question to the server', (name) => name === 'a.md' || performance.getEntriesByType('resource').some((entry) => entry.name.endsWith(`/stream/${name}`)), name);
        assert.deepEqual(await look(view), { ran: false, alt: '', log: true, notice: false, parsed: false }, name);
      }
      await view.page.goto(`${server.plain}/?feed=a.ndjson&view=log`);
      await view.chunksShown(2);
      await view.page.$eval('#log-folded', (box) => /** @type {HTMLInputElement} */ (box).click());
      await view.until('lines of JSON unfolded', () => [...document.querySelectorAll('#log pre')].map((text) => text.textContent).join() === '{\n  "a": 1\n},{\n  "a": 2\n}');
      assert.equal(await view.page.$eval('#jump', (button) => button.checkVisibility()), false, 'it still follows');
      await view.page.$eval('#log-folded', (box) => /** @type {HTMLInputElement} */ (box).click());
      await view.until('and folded', () => document.querySelector('#log pre') === null);
      await view.assertClean();
      await view.close();
    });

    test('the newest of a live feed of images', TEST, async () => {
      const publish = async (/** @type {Buffer} */ image) => {
        const response = await fetch(`${server.plain}/stream/camera`, { method: 'POST', body: new Uint8Array(image) });
        assert.equal(response.status, 200);
      };
      await publish(GIF);
      const view = await open(browser, `${server.plain}/?feed=camera`);
      await about(view, /^GIF, 1 × 1 pixels, 42 B$/);
      await publish(jpeg);
      await about(view, /^Newest of 2 images: JPEG, 640 × 400 pixels/);
      await publish(AVIF);
      await about(view, /^Newest of 3 images: AVIF, 2 × 2 pixels/);
      assert.equal(await view.page.$$eval('#picture img', (all) => all.length), 1);
      const noImage = Buffer.concat([/** @type {Buffer} */ (FILES['broken.png']), Buffer.from('\0\0\0\0IEND\xaeB\x60\x82', 'latin1')]);
      // Whole by its bytes, and none that a browser can show; then one that broke off.
      await publish(noImage);
      await about(view, /^Newest of 3 images: AVIF, .* 1 image could not be shown\.$/);
      assert.equal((await look(view)).log, false, 'the one before stays');
      await publish(jpeg.subarray(0, 500));
      await publish(jpeg);
      await about(view, /^Newest of 5 images: JPEG, 640 × 400 pixels, .* 2 images could not be shown\.$/);
      assert.equal((await look(view)).log, false);
      await view.close();
      await publish(noImage);
      const again = await open(browser, `${server.plain}/?feed=camera&from=-1`);
      await about(again, /^The browser cannot show this PNG image/);
      await publish(GIF);
      await about(again, /^Newest of 2 images: GIF, 1 × 1 pixels, 42 B\. 1 image could not be shown\.$/);
      assert.equal((await look(again)).log, false, 'the first that can be shown is');
      await again.assertClean();
      await again.close();
    });

    if (browserName === 'Firefox') return;

    test('no image larger than is said', TEST, async () => {
      const view = await open(browser, `${server.plain}/?feed=large.png&view=log`);
      await about(view, /^This PNG image is larger than 16\.0 MB, so it is not shown here\.$/);
      assert.equal(await view.page.$eval('#picture-link', (link) => link.getAttribute('href')), `${server.plain}/stream/large.png`);
      assert.equal(await view.page.$eval('#picture-switch', (button) => button.checkVisibility()), false);
      await view.assertClean();
      await view.close();
    });
  });
}
