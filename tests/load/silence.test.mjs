// A source that is silent for minutes: what came before it and what comes after it reach every viewer, whatever
// it speaks, and no connection is taken for dead.
import assert from 'node:assert/strict';
import http2 from 'node:http2';
import http from 'node:http';
import https from 'node:https';
import { test } from 'node:test';

import { FrameDecoder } from '../../static/js/client/frames.mjs';
import { Serving, ended, start, within } from './lib/program.mjs';

/** Longer than any idle time-out on the way, several times. */
const SILENCE_S = 130;
/** The server keeps a silent stream alive each 15 s; one may be under way at each end. */
const HEARTBEATS = Math.floor(SILENCE_S / 15) - 1;
const DEADLINE = (SILENCE_S + 60) * 1000;

/** What the program prints for a URL. */
async function got(serving, url, ...more) {
  const child = start(['get', '--certs', serving.certs, ...more, url], ['ignore', 'pipe', 'pipe']);
  const pieces = [];
  let said = '';
  child.stdout.on('data', (piece) => pieces.push(piece));
  child.stderr.setEncoding('utf8').on('data', (text) => (said += text));
  try {
    const how = await within(ended(child), DEADLINE, url);
    assert.deepEqual({ ...how, said }, { code: 0, signal: null, said: '' }, url);
  } finally {
    child.kill('SIGKILL');
  }
  return Buffer.concat(pieces);
}

/** The body of a response over HTTP/1.1. */
function bodyOf1(client, url, options) {
  return new Promise((resolve, reject) => {
    const request = client.get(url, { agent: false, ...options }, (response) => {
      const pieces = [];
      response.on('data', (piece) => pieces.push(piece));
      response.on('error', reject);
      response.on('end', () => resolve({ version: response.httpVersion, body: Buffer.concat(pieces) }));
    });
    request.on('error', reject);
  });
}

/** The body of a response over HTTP/2. */
function bodyOf2(base, path, options) {
  return new Promise((resolve, reject) => {
    const session = http2.connect(base, options);
    session.on('error', reject);
    const request = session.request({ ':path': path });
    const pieces = [];
    request.on('data', (piece) => pieces.push(piece));
    request.on('error', reject);
    request.on('end', () => {
      session.close();
      resolve({ version: session.alpnProtocol, body: Buffer.concat(pieces) });
    });
  });
}

/** The frames in what a viewer got. @param {Uint8Array} bytes */
function decoded(bytes) {
  const decoder = new FrameDecoder();
  decoder.push(bytes);
  const frames = [];
  for (let frame = decoder.pop(); frame !== undefined; frame = decoder.pop()) frames.push(frame);
  assert.ok(decoder.atBoundary);
  return frames;
}

test(`a source that is silent for ${SILENCE_S} s`, { timeout: DEADLINE + 30_000 }, async (t) => {
  const serving = await Serving.start(`exec:echo before; sleep ${SILENCE_S}; echo behind`);
  try {
    const url = (format) => `${serving.base}stream?from=start&format=${format}`;
    const ca = serving.certificate;
    const [get, session, sse, frames, one, tls, two] = await Promise.all([
      got(serving, url('raw')),
      got(serving, url('raw'), '--webtransport'),
      got(serving, url('sse')),
      got(serving, url('frames'), '--webtransport'),
      within(bodyOf1(http, `${serving.plain}stream?from=start`, {}), DEADLINE, 'HTTP/1.1'),
      within(bodyOf1(https, `${serving.base}stream?from=start`, { ca }), DEADLINE, 'HTTP/1.1 over TLS'),
      within(bodyOf2(serving.base, '/stream?from=start', { ca }), DEADLINE, 'HTTP/2'),
    ]);
    const expected = 'before\nbehind\n';
    assert.equal(get.toString(), expected);
    assert.equal(session.toString(), expected);
    assert.deepEqual([one.version, one.body.toString()], ['1.1', expected]);
    assert.deepEqual([tls.version, tls.body.toString()], ['1.1', expected]);
    assert.deepEqual([two.version, two.body.toString()], ['h2', expected]);

    const events = sse.toString();
    const comments = events.match(/^:$/gm)?.length ?? 0;
    const data = [...events.matchAll(/^data: (.*)$/gm)].map((match) => match[1]);
    assert.deepEqual(data, ['before', 'behind', '{}']);
    const read = decoded(frames);
    const text = read.filter((frame) => frame.type === 'chunk').map((frame) => Buffer.from(frame.bytes).toString());
    assert.deepEqual(text, ['before\n', 'behind\n']);
    assert.deepEqual([read.at(0)?.type, read.at(-1)?.type], ['begin', 'end']);
    const beats = read.filter((frame) => frame.type === 'heartbeat').length;
    t.diagnostic(`${comments} comments, ${beats} heartbeat frames in ${SILENCE_S} s`);
    assert.ok(comments >= HEARTBEATS, `${comments} comments`);
    assert.ok(beats >= HEARTBEATS, `${beats} heartbeat frames`);
  } finally {
    await serving.stop();
  }
});
