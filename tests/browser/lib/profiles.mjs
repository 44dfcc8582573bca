// Fresh profiles of browsers that trust another root.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);
const KNOWN_MS = 60_000;
/** Newer than any that Chromium has compiled in. */
const VERSION = 1_000_000;

/** A folder that is a browser's home, and its profile. */
export class Profile {
  /** It holds a component of Chromium's. */
  components = false;
  #roots = 0;

  /** @param {string} folder */
  constructor(folder) {
    this.folder = folder;
  }

  static async make() {
    return new Profile(await mkdtemp(path.join(tmpdir(), 'h3cast-profile-')));
  }

  remove() {
    return rm(this.folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  }

  /**
   * Adds a root as an administrator does, to the database in which Firefox looks (its profile) and to that in which
   * Chromium does (its home).
   * @param {string} root a file of it
   */
  async importRoot(root) {
    for (const folder of [this.folder, path.join(this.folder, '.pki/nssdb')]) {
      await mkdir(folder, { recursive: true });
      if (this.#roots === 0) await run('certutil', ['-d', `sql:${folder}`, '-N', '--empty-password']);
      await run('certutil', ['-d', `sql:${folder}`, '-A', '-n', `a private CA ${this.#roots}`, '-t', 'C,,', '-i', root]);
    }
    this.#roots += 1;
  }

  /**
   * Gives Chromium a root store of its own in which this is the one root, as a component that it takes for an update of
   * the store that it came with: for QUIC it only trusts what is in there.
   * @param {string} root a file of it
   */
  async addKnownRoot(root) {
    const der = Buffer.from((await readFile(root, 'utf8')).replace(/-----[^-]+-----/g, ''), 'base64');
    // chrome_root_store.RootStore (net/cert/root_store.proto): trust_anchors = 1, of which der = 1; version_major = 2.
    const store = Buffer.concat([field(1, field(1, der)), varint((2 << 3) | 0), varint(VERSION)]);
    this.components = true;
    const component = path.join(this.folder, 'PKIMetadata', `${VERSION}`);
    await mkdir(component, { recursive: true });
    await writeFile(path.join(component, 'crs.pb'), store);
    await writeFile(path.join(component, 'manifest.json'), JSON.stringify({ manifest_version: 2, name: 'pkiMetadata', version: `${VERSION}` }));
  }

  /**
   * Waits until Chromium has read its root store, which it does after it has started.
   * @param {import('puppeteer-core').Browser} browser
   * @param {string} url at a server of that root
   */
  async known(browser, url) {
    const page = await browser.newPage();
    for (const end = Date.now() + KNOWN_MS; ;) {
      if (await page.evaluate((url) => fetch(url, { mode: 'no-cors' }).then(() => true, () => false), url)) break;
      await setTimeout(100);
      assert.ok(Date.now() < end, 'Chromium does not take the root for one of its own');
    }
    await page.close();
  }
}

/** A varint of a protocol buffer. @param {number} value */
function varint(value) {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value & 127) | 128);
  return Buffer.from([...bytes, value]);
}

/** A field of bytes. @param {number} number @param {Buffer} bytes */
function field(number, bytes) {
  return Buffer.concat([varint((number << 3) | 2), varint(bytes.length), bytes]);
}
