// Starts the short examples on free ports, each in a folder of its own.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { ROOT, TARGET } from './server.mjs';

const PLAIN = path.resolve(ROOT, process.env.H3CAST_PLAIN ?? path.join(TARGET, 'debug/plain'));
const EXAMPLES = path.resolve(ROOT, process.env.H3CAST_EXAMPLES ?? path.join(TARGET, 'debug/examples'));
const START_MS = 60_000;

export class Example {
  /** The origin over HTTP/3. */
  base = '';
  /** The origin of plain HTTP, if there is one. */
  plain = '';
  /** What the printed command gives to Chrome, without the profile. @type {string[]} */
  flags = [];
  stderr = '';

  /**
   * @param {import('node:child_process').ChildProcessByStdio<null, import('node:stream').Readable, import('node:stream').Readable>} child
   * @param {string} folder
   */
  constructor(child, folder) {
    this.child = child;
    this.folder = folder;
    this.exit = once(child, 'exit');
    child.stderr.setEncoding('utf8').on('data', (text) => { this.stderr += text; });
  }

  /** examples/plain. @param {string[]} feed how many chunks, and how many milliseconds there are between them */
  static plain(...feed) {
    return Example.#start(PLAIN, ['0', ...feed], ({ flags }) => flags.length > 0);
  }

  /** An example with a page over plain HTTP. @param {string} name */
  static withPage(name) {
    return Example.#start(path.join(EXAMPLES, name), ['localhost:0', 'localhost:0'], ({ plain }) => plain !== '');
  }

  /** @param {string} program @param {string[]} args @param {(example: Example) => boolean} ready */
  static async #start(program, args, ready) {
    const folder = await mkdtemp(path.join(tmpdir(), 'h3cast-example-'));
    const example = new Example(spawn(program, args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] }), folder);
    const timer = setTimeout(() => example.child.kill('SIGKILL'), START_MS);
    // Every line is read, so that the server never waits for it.
    const lines = createInterface({ input: example.child.stdout });
    await new Promise((resolve, reject) => {
      example.child.on('error', reject);
      lines.on('line', (line) => {
        example.base ||= line.match(/^ready (https:\/\/localhost:\d+)\/$/)?.[1] ?? '';
        example.plain ||= line.match(/ (http:\/\/localhost:\d+)\/$/)?.[1] ?? '';
        const command = line.match(/^ +google-chrome (--.*) (https:\S+)$/);
        if (command?.[2] === `${example.base}/`) {
          example.flags = (command[1] ?? '').split(' ').filter((flag) => !flag.startsWith('--user-data-dir='));
        }
        if (ready(example)) resolve(undefined);
      });
      lines.on('close', () => reject(new Error(`${program} did not start: ${example.stderr}`)));
    });
    clearTimeout(timer);
    return example;
  }

  /** Ctrl-C, and in good order. */
  async stop() {
    this.child.kill('SIGINT');
    const timer = setTimeout(() => this.child.kill('SIGKILL'), START_MS);
    const [code, signal] = await this.exit;
    clearTimeout(timer);
    await rm(this.folder, { recursive: true, force: true });
    assert.equal(this.stderr, '');
    return { code, signal };
  }
}
