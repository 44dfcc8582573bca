// Starts the real server binaries on free ports and stops them again, everything with a deadline.
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');
export const TARGET = path.resolve(ROOT, process.env.CARGO_TARGET_DIR ?? 'target');

/** The server as it is released. */
export const H3CAST = path.resolve(ROOT, process.env.H3CAST_BIN ?? path.join(TARGET, 'release/h3cast'));
/** The same server with a feed that is driven line by line from stdin. */
export const BY_HAND = path.resolve(
  ROOT, process.env.H3CAST_BY_HAND ?? path.join(TARGET, 'debug/examples/by_hand'));
/** A server that answers every session by itself. */
export const WEBTRANSPORT = path.resolve(
  ROOT, process.env.H3CAST_WEBTRANSPORT ?? path.join(TARGET, 'debug/examples/webtransport'));
/** A server whose handlers get answers wrong: crates/transport/tests/parity. */
export const PARITY = path.resolve(ROOT, process.env.H3CAST_PARITY ?? path.join(TARGET, 'debug/examples/parity'));
/** A server with a chat. */
export const CHAT = path.resolve(ROOT, process.env.H3CAST_CHAT ?? path.join(TARGET, 'debug/examples/chat'));
/** Where screenshots go. */
export const ARTIFACTS = path.resolve(ROOT, process.env.H3CAST_ARTIFACTS ?? path.join(TARGET, 'artifacts'));

/**
 * The time between two chunks of the demo. A browser that gets no turn for so long joins two of them in
 * one read, so it is longer than the 100 ms that the demo has by itself: that each chunk leaves at once
 * is shown by the feed that is driven by hand.
 */
const INTERVAL_MS = 100;

const READY_MS = 60_000;
const EXIT_MS = 60_000;

/** @typedef {{ certificate: string, sha256: string, sha256_base64: string, spki_sha256_base64: string }} Identity */

/**
 * @typedef {object} StartOptions
 * @property {string} [program]
 * @property {string[]} [args]
 * @property {string} [host] where it listens
 * @property {number[]} [ports] over TLS, and of plain HTTP
 * @property {string} [certs] a folder that is there already
 */

/** A running server. */
export class Server {
  /** The port of HTTP/3, HTTP/2 and HTTP/1.1 over TLS. */
  port = 0;
  /** The origin there. */
  base = '';
  /** The origin of plain HTTP on loopback. */
  plain = '';
  /** @type {Identity | undefined} */
  identity;
  /** @type {string[]} lines of stdout that nobody has waited for yet */
  #lines = [];
  /** @type {Set<() => void>} */
  #waiting = new Set();
  #stderr = '';
  #exited = false;

  /**
   * @param {import('node:child_process').ChildProcess} child
   * @param {StartOptions & { certs: string }} options
   * @param {NodeJS.Signals} signal what asks it to stop
   */
  constructor(child, options, signal) {
    this.child = child;
    this.signal = signal;
    this.options = options;
    this.certs = options.certs;
    this.exit = new Promise((resolve) => {
      child.on('error', (error) => resolve({ code: null, signal: null, error }));
      child.on('exit', (code, signal) => resolve({ code, signal }));
    }).then((how) => {
      this.#exited = true;
      this.#wake();
      return how;
    });
    createInterface({ input: /** @type {any} */ (child.stdout) }).on('line', (line) => {
      this.#lines.push(line);
      this.#wake();
    });
    child.stderr?.setEncoding('utf8').on('data', (text) => {
      this.#stderr = (this.#stderr + text).slice(-16_384);
    });
    child.stdin?.on('error', () => {}); // the exit code tells
  }

  /**
   * Starts `program` and returns once it says that it is ready.
   * @param {StartOptions} [options]
   */
  static async start({ program = H3CAST, args = [], host = 'localhost', ports = [0, 0], certs: kept } = {}) {
    const certs = kept ?? await mkdtemp(path.join(tmpdir(), 'h3cast-certs-'));
    const listen = ['--listen', `${host}:${ports[0]}`, '--http', `${host}:${ports[1]}`, '--certs', certs];
    const pace = ['--interval', `${INTERVAL_MS}ms`];
    const words = program === H3CAST ? ['serve', ...listen, ...pace, ...args] : [...listen, ...args];
    // Its notes are not for the tester.
    const env = { ...process.env, XDG_RUNTIME_DIR: path.join(TARGET, 'run') };
    const child = spawn(program, words, { stdio: ['pipe', 'pipe', 'pipe'], env });
    // The server heeds both; the examples, which are kept short, only Ctrl-C.
    const server = new Server(child, { program, args, host, certs }, program === H3CAST ? 'SIGTERM' : 'SIGINT');
    try {
      // The program puts plain HTTP first, the examples put it second.
      for (let found = 0; found < 2; found += 1) {
        const [, scheme, port] = await server.line(/(https?):\/\/[^/]+:(\d+)\//, READY_MS);
        if (scheme === 'http') server.plain = `http://localhost:${port}`;
        else server.port = Number(port);
      }
      server.base = `https://localhost:${server.port}`;
      // One that an authority issues is known to `h3cast cert` as little as to its browsers.
      if (!args.includes('--acme')) server.identity = await identity(certs);
      return server;
    } catch (error) {
      child.kill('SIGKILL');
      await server.exit;
      await rm(certs, { recursive: true, force: true });
      throw error;
    }
  }

  /** Kills it, without a word to anybody. */
  async kill() {
    this.child.kill('SIGKILL');
    await this.exit;
  }

  /** The same server again, after its death: same ports, same certificate. */
  again() {
    return Server.start({ ...this.options, ports: [this.port, Number(new URL(this.plain).port)] });
  }

  #wake() {
    for (const wake of this.#waiting) wake();
  }

  /**
   * Takes the next line of stdout that matches; lines before it are dropped.
   * @param {RegExp} pattern
   * @param {number} [ms]
   * @returns {Promise<RegExpMatchArray>}
   */
  async line(pattern, ms = 60_000) {
    const seen = [];
    const deadline = Date.now() + ms;
    for (;;) {
      let line;
      while ((line = this.#lines.shift()) !== undefined) {
        const match = line.match(pattern);
        if (match) return match;
        seen.push(line);
      }
      const left = deadline - Date.now();
      if (this.#exited || left <= 0) {
        const why = this.#exited ? `the server ended: ${JSON.stringify(await this.exit)}` : `not within ${ms} ms`;
        throw new Error(`no line ${pattern} from the server (${why})\n${seen.join('\n')}\n${this.#stderr}`);
      }
      await new Promise((resolve) => {
        const wake = () => {
          clearTimeout(timer);
          this.#waiting.delete(wake);
          resolve(undefined);
        };
        const timer = setTimeout(wake, left);
        this.#waiting.add(wake);
      });
    }
  }

  /**
   * Waits until something that matches has been logged.
   * @param {RegExp} pattern
   * @param {number} [ms]
   */
  async logged(pattern, ms = 60_000) {
    const deadline = Date.now() + ms;
    while (!pattern.test(this.#stderr)) {
      const left = deadline - Date.now();
      if (this.#exited || left <= 0) throw new Error(`not logged within ${ms} ms: ${pattern}\n${this.#stderr}`);
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, left);
        this.child.stderr?.once('data', () => {
          clearTimeout(timer);
          resolve(undefined);
        });
      });
    }
  }

  /** Feeds one line to a server driven by hand. @param {string} line */
  write(line) {
    this.child.stdin?.write(`${line}\n`);
  }

  /** Ends the feed of a server driven by hand. */
  endFeed() {
    this.child.stdin?.end();
  }

  /** Clears up after a server that the test itself has killed. */
  async abandon() {
    this.child.kill('SIGKILL');
    await this.exit;
    await rm(this.certs, { recursive: true, force: true });
  }

  /** Asks the server to stop, and requires that it does so in good order. */
  async stop() {
    this.child.kill(this.signal);
    const timer = setTimeout(() => this.child.kill('SIGKILL'), EXIT_MS);
    const how = await this.exit;
    clearTimeout(timer);
    await rm(this.certs, { recursive: true, force: true });
    assert.deepEqual(how, { code: 0, signal: null }, `the server did not stop well\n${this.#stderr}`);
    assert.doesNotMatch(this.#stderr, /panicked at/, 'the server panicked');
  }
}

/**
 * What `h3cast cert --json` says of the certificate.
 * @param {string} certs
 * @returns {Promise<Identity>}
 */
async function identity(certs) {
  const { stdout } = await promisify(execFile)(H3CAST, ['cert', '--json', '--certs', certs], { timeout: 60_000 });
  return JSON.parse(stdout);
}
