// `serve --open`: a browser on a fresh profile that loads the page itself over HTTP/3.
//
// What is opened is the real browser, by a script of the name that is looked for first: it adds only
// what a machine without a screen needs, and writes down the browser's process id.
import assert from 'node:assert/strict';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { Server } from './lib/server.mjs';

/** The Chromium and the Firefox of this machine, and what each needs without a screen and as root. */
const BROWSERS = {
  chrome: {
    name: 'google-chrome',
    command: 'chromium --headless --no-sandbox --disable-background-networking --disable-component-update --disable-sync',
  },
  firefox: { name: 'firefox', command: 'firefox-esr --headless' },
};

for (const [browser, { name, command }] of Object.entries(BROWSERS)) {
  test(`--open ${browser} loads the page over HTTP/3`, { timeout: 240_000 }, async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'h3cast-open-'));
    const script = path.join(folder, name);
    const pid = path.join(folder, 'pid');
    const usual = process.env.PATH;
    await writeFile(script, `#!/bin/sh\necho $$ > ${pid}\nHOME=${folder} PATH='${usual}' exec ${command} "$@"\n`);
    await chmod(script, 0o755);
    process.env.PATH = `${folder}${path.delimiter}${usual}`;
    const server = await Server.start({ args: ['--open', browser, '--log', 'h3cast=debug'] });
    process.env.PATH = usual;
    try {
      await server.logged(/version=HTTP\/3\.0 method=GET path="\/"/, 60_000);
      await server.logged(/version=HTTP\/3\.0 method=GET path="\/js\/page\/home\.mjs"/, 60_000);
    } finally {
      const opened = Number(await readFile(pid, 'utf8'));
      assert.ok(opened > 1);
      process.kill(opened, 'SIGKILL');
      await server.stop();
      await rm(folder, { recursive: true, force: true, maxRetries: 20 });
    }
  });
}
