// Feeds a server's standard input with pseudo-random bytes, no faster than it takes them.
import { createHash } from 'node:crypto';
import { once } from 'node:events';

import { Keystream } from './random.mjs';

/**
 * Writes `total` bytes and ends the feed; gives the SHA-256 of what was written.
 * @param {import('./program.mjs').Serving} serving
 * @param {{ total: number, seed: string, size: () => number, before?: (written: number) => Promise<void> | void }} how
 *   `size` is of the next piece, at most 64 KiB; `before` is waited for before each
 */
export async function feed(serving, { total, seed, size, before = () => {} }) {
  const stdin = serving.child.stdin;
  const stream = new Keystream(seed);
  const hash = createHash('sha256');
  for (let written = 0; written < total; ) {
    await before(written);
    const piece = stream.bytes(Math.min(size(), total - written));
    written += piece.length;
    hash.update(piece);
    if (!stdin.write(piece)) await Promise.race([once(stdin, 'drain'), gone(serving)]);
  }
  stdin.end();
  return hash.digest('hex');
}

/** @param {import('./program.mjs').Serving} serving */
async function gone(serving) {
  throw new Error(`the server ended: ${JSON.stringify(await serving.ended)}`);
}
