// A real nats-server with JetStream, for feeds that are kept there.
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

/** The server that tests/run has installed. */
const PROGRAM = path.join(process.env.VENV ?? path.resolve('target/foreign-venv'), 'bin/nats-server');

/** @returns {Promise<number>} a port that is free now */
function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject).listen(0, '127.0.0.1', () => {
      const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
      server.close(() => resolve(port));
    });
  });
}

export class Nats {
  /** @type {import('node:child_process').ChildProcess | undefined} */
  #child;

  /** @param {number} port @param {string} dir */
  constructor(port, dir) {
    this.port = port;
    this.dir = dir;
  }

  static async start() {
    const nats = new Nats(await freePort(), await mkdtemp(path.join(tmpdir(), 'h3cast-nats-')));
    await nats.run();
    return nats;
  }

  /** Starts it, also again: with what it kept. */
  async run() {
    const args = ['-js', '-a', '127.0.0.1', '-p', String(this.port), '-sd', this.dir];
    const child = spawn(PROGRAM, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#child = child;
    await new Promise((resolve, reject) => {
      let said = '';
      child.once('error', reject);
      child.once('exit', () => reject(new Error(`nats-server ended:\n${said}`)));
      child.stderr.setEncoding('utf8').on('data', (text) => {
        said += text;
        if (said.includes('Server is ready')) resolve(undefined);
      });
    });
  }

  async kill() {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
  }

  async stop() {
    await this.kill();
    await rm(this.dir, { recursive: true, force: true });
  }
}
