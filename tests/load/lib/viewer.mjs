// A viewer as a process of its own, `h3cast get` with frames, and all that it must be.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';

import { FrameDecoder } from '../../../static/js/client/frames.mjs';
import { ended, start } from './program.mjs';

/** How much of what a viewer says on standard error is kept, in characters. */
const SAID = 4096;

/** One viewer's whole way through a feed, in one run of the program or in several. */
export class Viewer {
  hash = createHash('sha256');
  bytes = 0;
  chunks = 0;
  /** The seq of the chunk that must come next. */
  next = 0;
  epoch = undefined;
  /** The feed has ended cleanly. */
  done = false;
  heartbeats = 0;
  /** How often the program was killed in the middle of a frame. */
  torn = 0;

  /**
   * @param {import('./program.mjs').Serving} serving
   * @param {boolean} webtransport over a session, or by GET
   */
  constructor(serving, webtransport) {
    this.serving = serving;
    this.webtransport = webtransport;
  }

  /** Called after each piece that has come. */
  onprogress = () => {};

  /** Runs the program from where the viewer is to its end, and says how it ended. */
  async run() {
    const from = this.epoch === undefined || this.next === 0 ? 'start' : `${this.epoch}-${this.next - 1}`;
    const url = `${this.serving.base}stream?format=frames&from=${from}`;
    const transport = this.webtransport ? ['--webtransport'] : [];
    const child = start(['get', '--certs', this.serving.certs, ...transport, url], ['ignore', 'pipe', 'pipe']);
    this.child = child;
    const decoder = new FrameDecoder();
    let begun = false;
    let failed;
    let said = '';
    child.stderr.setEncoding('utf8').on('data', (text) => (said = (said + text).slice(-SAID)));
    child.stdout.on('data', (piece) => {
      if (failed) return;
      try {
        decoder.push(piece);
        for (let frame = decoder.pop(); frame !== undefined; frame = decoder.pop()) {
          this.#take(frame, begun);
          begun = true;
        }
        this.onprogress();
      } catch (error) {
        failed = error;
        child.kill('SIGKILL');
      }
    });
    const how = await ended(child);
    if (failed) throw failed;
    if (how.signal === null) {
      assert.deepEqual({ ...how, said }, { code: 0, signal: null, said: '' });
      assert.ok(decoder.atBoundary, 'the stream ended inside a frame');
      assert.ok(this.done, 'the stream ended without an end');
    }
    // What there is of a frame when the program was killed is gone with the decoder.
    if (!decoder.atBoundary) this.torn++;
    return how;
  }

  /** @param {import('../../../static/js/client/frames.mjs').Frame} frame @param {boolean} begun */
  #take(frame, begun) {
    assert.ok(!this.done, 'a frame behind the end');
    assert.equal(frame.type === 'begin', !begun, `the frame ${frame.type} where it may not be`);
    switch (frame.type) {
      case 'begin':
        this.epoch ??= frame.epoch;
        assert.equal(frame.epoch, this.epoch, 'the feed was not started again');
        return;
      case 'chunk':
        assert.equal(frame.seq, this.next, 'a chunk is missing or came twice');
        this.next++;
        this.chunks++;
        this.bytes += frame.bytes.length;
        this.hash.update(frame.bytes);
        return;
      case 'heartbeat':
        this.heartbeats++;
        return;
      case 'end':
        assert.deepEqual(frame, { type: 'end', failed: false, reason: '' });
        this.done = true;
        return;
      default:
        assert.fail(`a viewer that misses nothing got ${JSON.stringify(frame)}`);
    }
  }
}
