// The npm package as somebody else gets it: packed, installed into an empty folder, type-checked and used from Node.
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { copyFile, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { ROOT, Server } from '../browser/lib/server.mjs';

const TEST = { timeout: 60_000 };
const HERE = path.join(ROOT, 'tests/package');
const TSC = path.join(ROOT, 'tests/browser/node_modules/.bin/tsc');
const run = promisify(execFile);
let folder;
let server;

before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'h3cast-package-'));
  const { stdout } = await run(path.join(ROOT, 'packaging/npm/pack'), [folder], TEST);
  await writeFile(path.join(folder, 'package.json'), '{ "private": true, "type": "module" }');
  await run('npm', ['install', '--offline', '--no-audit', '--no-fund', '--ignore-scripts', stdout.trim()], { cwd: folder, ...TEST });
  for (const name of ['user.ts', 'follow.mjs']) await copyFile(path.join(HERE, name), path.join(folder, name));
  await writeFile(path.join(folder, 'tokens'), 'read=secret a-token-of-some-length\n', { mode: 0o600 });
  server = await Server.start({
    args: [
      '--tokens', path.join(folder, 'tokens'), '--public', 'default,endless,broken',
      'demo', 'endless=exec:i=0; while echo $i; do i=$((i+1)); sleep 0.05; done', 'broken=exec:echo first; exit 3', 'secret=exec:echo hidden',
    ],
  });
}, TEST);
after(async () => {
  await server?.stop();
  await rm(folder, { recursive: true, force: true });
}, TEST);

/** A program in the folder, what it has printed as it comes, and its end. */
function start(args, env = {}) {
  const child = spawn(process.execPath, args, { cwd: folder, env: { ...process.env, ...env }, timeout: TEST.timeout });
  const told = [];
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text) => { stderr += text; });
  const lines = createInterface({ input: child.stdout });
  const waiting = new Set();
  lines.on('line', (line) => {
    told.push(line.startsWith('{') ? JSON.parse(line) : line);
    for (const check of waiting) check();
  });
  const exit = new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => (code === 0 ? resolve(told) : reject(new Error(`exit code ${code}: ${stderr}`))));
  });
  /** Resolves when something of that kind has come so often. */
  const seen = (kind, times) => Promise.race([exit, new Promise((resolve) => {
    const check = () => { if (told.filter((one) => one.kind === kind).length >= times) resolve(told); };
    waiting.add(check);
    check();
  })]);
  return { child, exit, seen, of: (kind) => told.filter((one) => one.kind === kind).map(({ value }) => value) };
}

const followed = (url, options, env) => start(['follow.mjs', url, JSON.stringify(options ?? {})], env);

test('a strict user of the types compiles', TEST, async () => {
  const args = ['--strict', '--noEmit', '--exactOptionalPropertyTypes', '--module', 'nodenext', '--target', 'es2022', '--lib', 'es2022,dom,dom.asynciterable', 'user.ts'];
  await run(TSC, args, { cwd: folder, ...TEST }).catch(({ stdout, message }) => assert.fail(stdout || message));
});

test('a feed is followed to its end, over plain HTTP and over TLS', TEST, async () => {
  const trusted = { NODE_EXTRA_CA_CERTS: path.join(server.certs, path.basename(server.identity.certificate)) };
  for (const base of [server.plain, server.base]) {
    const f = followed(`${base}/stream`, {}, trusted);
    await f.exit;
    assert.deepEqual(f.of('chunk').map(({ seq, text }) => [seq, text]), Array.from({ length: 10 }, (_, i) => [i, `data chunk #${i}\n`]));
    assert.deepEqual(f.of('state'), ['connecting', 'streaming fetch', 'ended']);
    const [{ outcome, chunks, cursor }] = f.of('done');
    assert.deepEqual({ outcome, chunks, cursor }, { outcome: 'ended', chunks: 10, cursor: f.of('chunk').at(-1).cursor });
    assert.ok(Math.abs(f.of('chunk')[0].time - Date.now()) < 60_000, 'when it was published');
  }
});

test('a failure, an abort and a transport that is not there come in words', TEST, async () => {
  const broken = followed(`${server.plain}/stream/broken`, { from: 'start' });
  await broken.exit;
  assert.deepEqual(broken.of('chunk').map(({ text }) => text), ['first\n']);
  assert.match(broken.of('failed')[0].message, /failed at its source: .*exited with status 3/);
  const endless = followed(`${server.plain}/stream/endless`);
  await endless.seen('chunk', 2);
  endless.child.stdin.write('stop\n');
  await endless.exit;
  assert.equal(endless.of('done')[0].outcome, 'stopped');
  const without = followed(`${server.plain}/stream`, { transport: 'webtransport' });
  await without.exit;
  assert.match(without.of('failed')[0].message, /WebTransport is not available here/);
  assert.doesNotMatch(JSON.stringify(without.of('failed')), /this page|Press/);
});

test('input for a command is sent in order, with its end, and refused in words', TEST, async () => {
  const taking = await Server.start({ args: ['--per-viewer', '--input', '--publish-token', 'a-token-to-send-with', 'exec:cat', 'other=demo'] });
  try {
    const f = followed(`${taking.plain}/stream`, { token: 'a-token-to-send-with', input: ['first\n', 'wörds\n', null] });
    await f.exit;
    assert.equal(f.of('chunk').map(({ text }) => text).join(''), 'first\nwörds\n');
    assert.deepEqual(f.of('sent'), ['first\n', 'wörds\n', null]);
    assert.equal(f.of('done')[0].outcome, 'ended');
    const refused = followed(`${taking.plain}/stream`, { input: ['x'] });
    await refused.seen('not sent', 1);
    refused.child.stdin.write('stop\n');
    await refused.exit;
    assert.match(refused.of('not sent')[0], /status 401/);
    const none = followed(`${taking.plain}/stream/other`, { input: ['x'] });
    await none.exit;
    assert.match(none.of('not sent')[0], /takes input/);
  } finally {
    await taking.stop();
  }
});

test('a token is shown, and its lack is told', TEST, async () => {
  const url = `${server.plain}/stream/secret`;
  const f = followed(url, { from: 'start', token: 'a-token-of-some-length' });
  await f.exit;
  assert.equal(f.of('chunk')[0].text, 'hidden\n');
  const refused = followed(url);
  await refused.exit;
  assert.match(refused.of('failed')[0].message, /token is needed/);
});

test('a server that is killed and started again: nothing lost, nothing twice', TEST, async () => {
  let mortal = await Server.start({ args: ['--count', '0', 'demo'] });
  try {
    const f = followed(`${mortal.plain}/stream`, { until: 12 });
    await f.seen('chunk', 3);
    await mortal.kill();
    await f.seen('state', 3);
    mortal = await mortal.again();
    await f.exit;
    const seqs = f.of('chunk').map(({ seq }) => seq);
    assert.deepEqual(seqs, Array.from({ length: 13 }, (_, i) => i));
    assert.equal(f.of('state')[2], 'reconnecting');
    assert.equal(f.of('gap').length, 0);
  } finally {
    await mortal.stop();
  }
});

test('what the guide shows for Node runs', TEST, async () => {
  const guide = await readFile(path.join(ROOT, 'docs/javascript.md'), 'utf8');
  const shown = [...guide.matchAll(/```js\n(import [^]*? from "h3cast";[^]*?)```/g)].map(([, code]) => code);
  assert.ok(shown.length >= 2);
  for (const [i, code] of shown.entries()) {
    assert.match(code, /http:\/\/localhost:8080\/stream"/);
    await writeFile(path.join(folder, `shown-${i}.mjs`), code.replace('http://localhost:8080', server.plain));
    const lines = await start([`shown-${i}.mjs`]).exit;
    assert.ok(lines.some((line) => /data chunk #9/.test(line)), lines.join('\n'));
  }
});

test('the guide has the size of it, and every option', TEST, async () => {
  const installed = path.join(folder, 'node_modules/h3cast');
  const modules = (await readdir(installed)).filter((name) => name.endsWith('.mjs') && !name.endsWith('.d.mts'));
  const sources = await Promise.all(modules.map((name) => readFile(path.join(installed, name))));
  const guide = await readFile(path.join(ROOT, 'docs/javascript.md'), 'utf8');
  const [, raw, zipped] = /\*\*(\d+) kB\*\*[^*]*\*\*(\d+) kB\*\* with gzip/.exec(guide) ?? [];
  for (const [said, is] of [
    [raw, sources.reduce((sum, { length }) => sum + length, 0)],
    [zipped, sources.reduce((sum, source) => sum + gzipSync(source).length, 0)],
  ]) {
    assert.ok(Math.abs(Number(said) - is / 1000) <= is / 10_000, `the guide says ${said} kB, and it is ${is} bytes`);
  }
  const index = sources[modules.indexOf('index.mjs')].toString();
  const options = [...index.matchAll(/@property \{.*\} \[(\w+)\]/g)].map(([, name]) => name);
  assert.ok(options.length >= 9);
  for (const name of options) assert.ok(guide.includes(`| \`${name}\` |`), name);
});
