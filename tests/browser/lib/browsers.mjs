// Starts Debian's own Chromium and Firefox, headless, on a fresh profile each time.
import { accessSync, constants } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import puppeteer from 'puppeteer-core';
import { View } from './view.mjs';

const LAUNCH_MS = 120_000;
/** Longer than a test takes, so that it says itself what it waited for. */
const PROTOCOL_MS = 300_000;
/** Once in a while a browser that is asked to close does not, however long one waits: then it is killed. */
const CLOSE_MS = 60_000;
/** Without components Chromium has nothing to update, and not what is in its profile. */
const COMPONENTS = '--disable-component-update';

/** @param {string | undefined} chosen @param {string[]} names */
function find(chosen, names) {
  const folders = (process.env.PATH ?? '').split(path.delimiter);
  const candidates = chosen ? [chosen] : names.flatMap((name) => folders.map((folder) => path.join(folder, name)));
  for (const candidate of candidates) {
    try {
      accessSync(candidate, constants.X_OK);
      return candidate;
    } catch {}
  }
  throw new Error(`no browser found: ${chosen ?? names.join(' or ')}; tests/run installs it`);
}

/**
 * A browser that is gone once it is closed, and its profile with it unless that is the test's.
 * @param {import('puppeteer-core').LaunchOptions} options
 */
async function launch(options) {
  const folder = options.userDataDir ?? await mkdtemp(path.join(tmpdir(), 'h3cast-browser-'));
  // What it has started may write for a moment longer, and longer on a busy machine than puppeteer waits.
  const remove = async () => {
    if (!options.userDataDir) await rm(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
  };
  const launched = { timeout: LAUNCH_MS, protocolTimeout: PROTOCOL_MS, headless: true, ...options, userDataDir: folder };
  const browser = await puppeteer.launch(launched).catch(async (error) => {
    await remove();
    throw error;
  });
  const close = browser.close.bind(browser);
  browser.close = async () => {
    const { pid } = browser.process() ?? {};
    // With all that it has started.
    const timer = setTimeout(() => {
      try {
        if (pid) process.kill(-pid, 'SIGKILL');
      } catch {} // it is gone by now
    }, CLOSE_MS);
    try {
      await close();
    } finally {
      clearTimeout(timer);
      await remove();
    }
  };
  return browser;
}

/**
 * Chromium. `trust` makes it use HTTP/3 with that server's self-signed certificate from the first
 * request, or over TCP if `quic` is false; `flags` are the same
 * as another program prints them. Without either, Chromium has no flag that touches certificates or QUIC. `names` lead to
 * this machine.
 * @param {{ trust?: import('./server.mjs').Server, quic?: boolean, flags?: string[], profile?: import('./profiles.mjs').Profile, names?: string[] }} [options]
 */
export function chromium({ trust, quic = true, flags: more = [], profile, names = [] } = {}) {
  const quiet = ['--no-first-run', '--disable-background-networking', ...(profile?.components ? [] : [COMPONENTS]), '--disable-sync'];
  const trusting = trust
    ? [
        ...(quic ? [`--origin-to-force-quic-on=localhost:${trust.port}`] : []),
        `--ignore-certificate-errors-spki-list=${trust.identity?.spki_sha256_base64}`,
      ]
    : [];
  const resolving = names.length > 0 ? [`--host-resolver-rules=${names.map((name) => `MAP ${name} 127.0.0.1`).join(',')}`] : [];
  return launch({
    browser: 'chrome',
    executablePath: find(process.env.CHROMIUM, ['chromium', 'google-chrome']),
    // Chromium refuses its sandbox to root, which is who runs tests in a container.
    args: [...(process.getuid?.() === 0 ? ['--no-sandbox'] : []), ...quiet, ...trusting, ...more, ...resolving],
    ...(profile && { userDataDir: profile.folder, env: { ...process.env, HOME: profile.folder } }),
    ...(profile?.components && { ignoreDefaultArgs: [COMPONENTS] }),
  });
}

/**
 * Firefox over WebDriver BiDi. `names` lead to this machine.
 * @param {{ prefs?: Record<string, unknown>, profile?: import('./profiles.mjs').Profile, names?: string[] }} [options]
 */
export function firefox({ prefs = {}, profile, names = [] } = {}) {
  return launch({
    browser: 'firefox',
    executablePath: find(process.env.FIREFOX, ['firefox-esr', 'firefox']),
    extraPrefsFirefox: { ...(names.length > 0 && { 'network.dns.localDomains': names.join(',') }), ...prefs },
    ...(profile && { userDataDir: profile.folder }),
  });
}

/**
 * Opens a fresh tab at `url` and hands over its view. The tab is watched from before its first script.
 * @param {import('puppeteer-core').Browser} browser
 * @param {string} url
 * @param {{ width?: number, height?: number, dark?: boolean }} [options]
 */
export async function open(browser, url, { width = 1200, height = 900, dark } = {}) {
  const page = await browser.newPage();
  const view = new View(page);
  await page.setViewport({ width, height });
  if (dark !== undefined) {
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }]);
  }
  await view.watch();
  const response = await page.goto(url, { timeout: 60_000, waitUntil: 'load' });
  // 304 where the browser has the page from a tab before.
  const status = response?.status() ?? 0;
  if (status !== 200 && status !== 304) throw new Error(`${url}: status ${status}`);
  return view;
}
