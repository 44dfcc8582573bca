// The recipe for a phone on the same network: what is typed, the warning about the certificate, and the log.
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { chromium } from './lib/browsers.mjs';
import { ROOT, Server } from './lib/server.mjs';
import { View } from './lib/view.mjs';

const TEST = { timeout: 240_000 };

test('a phone follows a log as the recipe has it', TEST, async () => {
  const guide = await readFile(path.join(ROOT, 'docs/recipes.md'), 'utf8');
  const recipe = guide.split('\n## ').find((part) => part.startsWith('A phone on the same network')) ?? '';
  const command = /^h3cast serve (?<source>\S+) --listen :4433$/m.exec(recipe);
  const address = /`(?<url>https:\/\/[\d.]+:4433)`/.exec(recipe);
  assert.ok(command?.groups && address?.groups, recipe);
  const counted = `${command[0].length} characters on your machine, ${address.groups.url?.length} on the phone, and two taps`;
  assert.ok(recipe.includes(counted), `the guide should say: ${counted}`);

  const folder = await mkdtemp(path.join(tmpdir(), 'h3cast-phone-'));
  const [scheme, file] = (command.groups.source ?? '').split(':');
  const log = path.join(folder, file ?? '');
  await writeFile(log, 'first line\nsecond line\n');
  // An address that the certificate is not for, as those of a network are not.
  const server = await Server.start({ args: [`${scheme}:${log}`], host: '127.0.0.2' });
  const browser = await chromium();
  try {
    const view = new View(await browser.newPage());
    await view.page.setViewport({ width: 360, height: 740, isMobile: true, hasTouch: true });
    await assert.rejects(view.page.goto(`https://127.0.0.2:${server.port}`), /ERR_CERT_AUTHORITY_INVALID/);
    for (const button of ['#details-button', '#proceed-link']) {
      await (await view.page.waitForSelector(button, { visible: true, timeout: 60_000 }))?.tap();
    }
    await view.page.waitForSelector('#log .chunk', { timeout: 60_000 });
    await view.chunksShown(2);
    assert.match(await view.page.$eval('#log', (element) => element.textContent ?? ''), /first line.*second line/s);
    // Its own certificate's hash is enough for a page whose warning was accepted.
    assert.equal(await view.navigationProtocol(), 'h2');
    const { state, transport } = await view.report();
    assert.deepEqual({ state, transport }, { state: 'streaming', transport: 'webtransport' });
    const { words, fields } = await view.page.evaluate(() => ({
      words: getComputedStyle(/** @type {HTMLElement} */ (document.querySelector('#status')), '::after').content,
      fields: [...document.querySelectorAll('#filter, #find, #pause')].map((field) => Math.round(field.getBoundingClientRect().bottom)),
    }));
    assert.equal(words.replace(/ \/.*/, ''), '"Live"', 'the state is not cut');
    assert.ok(fields[0] === fields[1] && Number(fields[2]) < Number(fields[0]), `the buttons, then both fields: ${fields}`);
    await view.shot('phone');
  } finally {
    await browser.close();
    await server.stop();
    await rm(folder, { recursive: true });
  }
});
