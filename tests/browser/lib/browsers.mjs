// Starts Debian's own Chromium and Firefox, headless, on a fresh profile each time.
import { accessSync, constants } from 'node:fs';
import path from 'node:path';
import puppeteer from 'puppeteer-core';
import { View } from './view.mjs';

const LAUNCH_MS = 60_000;

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
 * Chromium. `trust` makes it use HTTP/3 with that server's self-signed certificate from the first
 * request, or over TCP if `quic` is false; `flags` are the same
 * as another program prints them. Without either, Chromium has no flag that touches certificates or QUIC.
 * @param {{ trust?: import('./server.mjs').Server, quic?: boolean, flags?: string[] }} [options]
 */
export function chromium({ trust, quic = true, flags: more = [] } = {}) {
  const quiet = ['--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
  const trusting = trust
    ? [
        ...(quic ? [`--origin-to-force-quic-on=localhost:${trust.port}`] : []),
        `--ignore-certificate-errors-spki-list=${trust.identity?.spki_sha256_base64}`,
      ]
    : [];
  return puppeteer.launch({
    browser: 'chrome',
    executablePath: find(process.env.CHROMIUM, ['chromium', 'google-chrome']),
    headless: true,
    timeout: LAUNCH_MS,
    protocolTimeout: LAUNCH_MS,
    // Chromium refuses its sandbox to root, which is who runs tests in a container.
    args: [...(process.getuid?.() === 0 ? ['--no-sandbox'] : []), ...quiet, ...trusting, ...more],
  });
}

/** Firefox over WebDriver BiDi. @param {{ prefs?: Record<string, unknown> }} [options] */
export function firefox({ prefs = {} } = {}) {
  return puppeteer.launch({
    browser: 'firefox',
    executablePath: find(process.env.FIREFOX, ['firefox-esr', 'firefox']),
    headless: true,
    timeout: LAUNCH_MS,
    protocolTimeout: LAUNCH_MS,
    extraPrefsFirefox: prefs,
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
  const response = await page.goto(url, { timeout: 20_000, waitUntil: 'load' });
  // 304 where the browser has the page from a tab before.
  const status = response?.status() ?? 0;
  if (status !== 200 && status !== 304) throw new Error(`${url}: status ${status}`);
  return view;
}
