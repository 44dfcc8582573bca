// The server as it is released, and viewers of it, as processes of their own. Everything is on loopback
// and has a deadline.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');
const TARGET = path.resolve(ROOT, process.env.CARGO_TARGET_DIR ?? 'target');
const H3CAST = path.resolve(ROOT, process.env.H3CAST_BIN ?? path.join(TARGET, 'release/h3cast'));

const READY_MS = 20_000;
const EXIT_MS = 20_000;
/** How often a state that gives no notice of itself is looked at. */
const LOOK_MS = 50;

/** What the tester's shell has set must not change what the program does, nor see notes of its servers. */
const environment = () => ({
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('H3CAST_'))),
  XDG_RUNTIME_DIR: path.join(TARGET, 'run'),
});

/** Starts the program. @param {string[]} args @param {import('node:child_process').StdioOptions} stdio */
export const start = (args, stdio) => spawn(H3CAST, args, { stdio, env: environment() });

/**
 * How a process ended, when all that it wrote has been read.
 * @param {import('node:child_process').ChildProcess} child
 */
export const ended = (child) =>
  new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal }));
  });

/**
 * Fails when an event does not come in time.
 * @template T
 * @param {Promise<T>} event
 * @param {number} ms
 * @param {string} what
 */
export async function within(event, ms, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${ms} ms: ${what}`)), ms);
  });
  try {
    return await Promise.race([event, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Waits until `holds` does: for what gives no notice of itself. */
export async function until(holds, ms, what) {
  const deadline = Date.now() + ms;
  for (;;) {
    const found = await holds();
    if (found) return found;
    assert.ok(Date.now() < deadline, `not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

/** A running server. */
export class Serving {
  #stderr = '';

  /** @param {import('node:child_process').ChildProcess} child @param {string} certs */
  constructor(child, certs) {
    this.child = child;
    this.certs = certs;
    this.ended = ended(child);
    this.ended.catch(() => {}); // whoever waits for it is told
    child.stderr.setEncoding('utf8').on('data', (text) => {
      this.#stderr = (this.#stderr + text).slice(-16_384);
    });
    child.stdin.on('error', () => {}); // the exit code tells
  }

  /** Starts one, and returns once it says that it is ready. @param {...string} args */
  static async start(...args) {
    const certs = await mkdtemp(path.join(tmpdir(), 'h3cast-load-'));
    const listen = ['--listen', 'localhost:0', '--http', 'localhost:0', '--certs', certs, '--log', 'warn'];
    const serving = new Serving(start(['serve', ...listen, ...args], ['pipe', 'pipe', 'pipe']), certs);
    try {
      await within(serving.#announced(), READY_MS, 'the server is ready');
      return serving;
    } catch (error) {
      serving.child.kill('SIGKILL');
      await rm(certs, { recursive: true, force: true });
      throw new Error(`${error}\n${serving.#stderr}`);
    }
  }

  #announced() {
    return new Promise((resolve, reject) => {
      let text = '';
      this.child.stdout.setEncoding('utf8').on('data', (more) => {
        text += more;
        const plain = text.match(/^ready (http:\S+)$/m)?.[1];
        const base = text.match(/over HTTP\/3 +(https:\S+)/)?.[1];
        if (base && plain) resolve(Object.assign(this, { base, plain }));
      });
      this.ended.then((how) => reject(new Error(`the server ended: ${JSON.stringify(how)}`)), reject);
    });
  }

  get certificate() {
    return readFileSync(path.join(this.certs, 'cert.pem'));
  }

  /** What /feeds says of a feed. */
  async feed(name = 'default') {
    const response = await fetch(`${this.plain}feeds`, { signal: AbortSignal.timeout(READY_MS) });
    const { feeds } = await response.json();
    return feeds.find((feed) => feed.name === name);
  }

  /** The most memory that it has held, in MiB; NaN where the system does not tell. */
  peakMemory() {
    try {
      return Number(readFileSync(`/proc/${this.child.pid}/status`, 'utf8').match(/VmHWM:\s+(\d+)/)?.[1]) >> 10;
    } catch {
      return NaN;
    }
  }

  /** Stops it, and requires that it ends in good order. */
  async stop() {
    this.child.kill('SIGTERM');
    try {
      const how = await within(this.ended, EXIT_MS, 'the server ends');
      assert.deepEqual(how, { code: 0, signal: null }, `the server did not stop well\n${this.#stderr}`);
      assert.doesNotMatch(this.#stderr, /panicked at/, 'the server panicked');
    } finally {
      this.child.kill('SIGKILL');
      await rm(this.certs, { recursive: true, force: true });
    }
  }
}
