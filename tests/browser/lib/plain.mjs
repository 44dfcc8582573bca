// Starts examples/plain on a free port.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import path from 'node:path';
import { ROOT, TARGET } from './server.mjs';

const PLAIN = path.resolve(ROOT, process.env.H3CAST_PLAIN ?? path.join(TARGET, 'debug/plain'));
const START_MS = 15_000;

export class Plain {
  base = '';
  /** What the printed command gives to Chrome, without the profile. @type {string[]} */
  flags = [];
  stderr = '';

  /** @param {import('node:child_process').ChildProcessByStdio<null, import('node:stream').Readable, import('node:stream').Readable>} child */
  constructor(child) {
    this.child = child;
    this.exit = once(child, 'exit');
    child.stderr.setEncoding('utf8').on('data', (text) => { this.stderr += text; });
  }

  /** @param {string[]} feed how many chunks, and how many milliseconds there are between them */
  static async start(...feed) {
    const plain = new Plain(spawn(PLAIN, ['0', ...feed], { stdio: ['ignore', 'pipe', 'pipe'] }));
    const timer = setTimeout(() => plain.child.kill('SIGKILL'), START_MS);
    // Every line is read, so that the server never waits for it.
    const lines = createInterface({ input: plain.child.stdout });
    await new Promise((resolve, reject) => {
      lines.on('line', (line) => {
        plain.base ||= line.match(/^ready (https:\/\/localhost:\d+)\/$/)?.[1] ?? '';
        const command = line.match(/^ +google-chrome (--.*) (https:\S+)$/);
        if (command === null) return;
        assert.equal(command[2], `${plain.base}/`);
        plain.flags = (command[1] ?? '').split(' ').filter((flag) => !flag.startsWith('--user-data-dir='));
        resolve(undefined);
      });
      lines.on('close', () => reject(new Error(`plain ended or did not start in time: ${plain.stderr}`)));
    });
    clearTimeout(timer);
    return plain;
  }

  /** Ctrl-C, and in good order. */
  async stop() {
    this.child.kill('SIGINT');
    const timer = setTimeout(() => this.child.kill('SIGKILL'), START_MS);
    const [code, signal] = await this.exit;
    clearTimeout(timer);
    assert.deepEqual({ code, signal }, { code: 0, signal: null }, this.stderr);
    assert.equal(this.stderr, '');
  }
}
