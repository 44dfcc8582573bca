// Pseudo-random bytes and numbers that a seed gives again.
import { createCipheriv, createHash } from 'node:crypto';

const PIECE = Buffer.alloc(64 * 1024);

/** As many pseudo-random bytes as one likes: the key stream of AES in counter mode. */
export class Keystream {
  /** @param {string} seed */
  constructor(seed) {
    const hash = createHash('sha256').update(seed).digest();
    this.cipher = createCipheriv('aes-128-ctr', hash.subarray(0, 16), hash.subarray(16));
  }

  /** @param {number} size at most 64 KiB */
  bytes(size) {
    return this.cipher.update(PIECE.subarray(0, size));
  }

  /** A whole number below `limit`. @param {number} limit */
  below(limit) {
    return this.bytes(4).readUInt32LE() % limit;
  }
}

/** The seed of this run, shown so that the run can be done again with H3CAST_SEED. */
export const seed = process.env.H3CAST_SEED ?? String(Date.now());
