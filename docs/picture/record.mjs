// Records what README's picture shows: a server, `h3cast get` and the page in Chromium, all following one log.
// record.mjs FOLDER: leaves a frame every 200 ms there, or as often as the machine manages, as PNG. STATIC may have `--static FOLDER` for other pages.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';

const root = path.resolve(import.meta.dirname, '../..');
const puppeteer = createRequire(path.join(root, 'tests/browser/package.json'))('puppeteer-core');
const folder = process.argv[2];
const program = process.env.H3CAST_BIN ?? path.join(root, 'target/release/h3cast');
const EVERY_MS = 200;
/** The log of a shop that does not exist. It has a new line in every second frame, however busy the machine is. */
const LINES = /** @type {const} */ ([
  ['INFO ', 32, 'order # received: 3 items'],
  ['INFO ', 32, 'payment of order # authorised'],
  ['WARN ', 33, 'stock of "blue lamp" is low: 2 left'],
  ['INFO ', 32, 'order # packed'],
  ['ERROR', 31, 'printer 2 does not answer: retrying'],
  ['INFO ', 32, 'printer 2 is back'],
  ['INFO ', 32, 'order # shipped'],
]);

const home = await mkdtemp(path.join(tmpdir(), 'picture-'));
const run = (/** @type {string} */ line) =>
  spawn('sh', ['-c', line], { cwd: home, detached: true, env: { PATH: process.env.PATH, HOME: home } });
const children = [];
/** What the terminal shows. */
let screen = '';
const type = async (/** @type {string} */ text) => {
  for (const letters of text.match(/.{1,3}/g) ?? []) {
    screen += letters;
    await frame();
  }
  screen += '\n';
};

// Two browsers, because one draws only the tab in front.
const launch = () => puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--no-first-run', '--disable-background-networking', '--force-device-scale-factor=1'],
});
const browsers = await Promise.all([launch(), launch()]);
const [page, stage] = await Promise.all(browsers.map((browser) => browser.newPage()));
await page.setViewport({ width: 720, height: 480 });
// Half of a smooth scroll in a frame would only make the picture larger.
await page.emulateMediaFeatures([{ name: 'prefers-reduced-motion', value: 'reduce' }]);
await stage.setViewport({ width: 1200, height: 516 });
await stage.setContent(`<style>
  body { margin: 0; display: grid; grid-template-columns: 464px 720px; gap: 16px; background: #fff; height: 516px }
  figure { margin: 0; border-radius: 8px; overflow: hidden; border: 1px solid #8888; box-sizing: border-box }
  #terminal { background: #16181d; color: #dde1e8; font: 12px/18px monospace; padding: 10px 12px; white-space: pre-wrap;
    word-break: break-all }
  #bar { background: #e8eaee; font: 13px/35px sans-serif; height: 35px; padding: 0 16px; color: #444 }
  img { display: block; width: 718px; height: 480px }
</style><figure id="terminal"><div></div></figure><figure><div id="bar"></div><img alt=""></figure>`);

let frames = 0;
let shown = '';
/** @type {import('node:stream').Writable | undefined} */
let log;
let written = 0;
/** Writes the next line to the log, if its turn has come. */
function write() {
  if (!log || frames % 2) return;
  const [level, colour, text] = LINES[written % LINES.length];
  written += 1;
  log.write(`\x1b[${colour}m${level}\x1b[0m ${text.replace('#', `#${4100 + written}`)}\n`);
}
/** The letters of a terminal with its colours. */
const html = (/** @type {string} */ text) =>
  text
    .replace(/[&<]/g, (letter) => (letter === '&' ? '&amp;' : '&lt;'))
    .replace(/\x1b\[(\d*)m/g, (_, code) => {
      const colour = { 31: '#ff7b72', 32: '#7ee787', 33: '#e3b341' }[code];
      return colour ? `<span style="color:${colour}">` : '</span>';
    });
async function frame() {
  const started = Date.now();
  write();
  const picture = shown ? await page.screenshot({ encoding: 'base64' }) : '';
  await stage.evaluate(
    async (terminal, bar, data) => {
      document.querySelector('#terminal div').innerHTML = terminal;
      document.querySelector('#bar').textContent = bar;
      const image = document.querySelector('img');
      image.style.visibility = data ? 'visible' : 'hidden';
      if (data) {
        image.src = `data:image/png;base64,${data}`;
        await image.decode();
      }
    },
    html(screen.split('\n').slice(-27).join('\n')),
    shown,
    picture,
  );
  const file = path.join(folder, `frame-${String(frames).padStart(3, '0')}.png`);
  await writeFile(file, await stage.screenshot());
  frames += 1;
  const left = EVERY_MS - (Date.now() - started);
  if (left > 0) await new Promise((done) => setTimeout(done, left));
}

try {
  await type('$ ./app | h3cast serve log=-');
  const listen = '--listen localhost:0 --http localhost:0';
  const server = run(`${program} serve log=- ${listen} ${process.env.STATIC ?? ''}`);
  children.push(server);
  log = server.stdin;
  const lines = createInterface({ input: server.stdout });
  let plain = '';
  let https = '';
  for await (const line of lines) {
    plain ||= /ready (http:\S+)/.exec(line)?.[1] ?? '';
    https ||= /(https:\S+\/)/.exec(line)?.[1] ?? '';
    if (plain && https) break;
  }
  screen += 'ready http://localhost:8080/\n';
  await frame();
  // As with the default ports; the test's own are free ones.
  await page.goto(`${plain}?feed=log`);
  shown = 'http://localhost:8080/?feed=log';
  for (let count = 0; count < 8; count += 1) await frame();
  screen += '\n';
  await type('$ h3cast get https://localhost:4433/stream/log');
  const get = run(`${program} get '${https}stream/log?from=-1'`);
  children.push(get);
  get.stdout.on('data', (data) => (screen += data));
  for (let count = 0; count < 20; count += 1) await frame();
  for (const letter of 'level:warn') {
    await page.type('#filter', letter);
    await frame();
  }
  for (let count = 0; count < 14; count += 1) await frame();
} finally {
  await Promise.all(browsers.map((browser) => browser.close()));
  for (const child of children) {
    process.kill(-child.pid, 'SIGKILL');
    if (child.exitCode === null) await Promise.race([once(child, 'exit'), new Promise((done) => setTimeout(done, 1000))]);
  }
  await rm(home, { recursive: true, force: true });
}
