// What must hold for a viewer, whatever the browser and the transport.
import assert from 'node:assert/strict';

/** What the demo feed sends. */
export const DEMO = Array.from({ length: 10 }, (_, seq) => `data chunk #${seq}\n`);

/**
 * Ten chunks, byte for byte. A browser that the machine keeps waiting reads several at once; that each
 * comes before the next is made, `assertChunkByChunk` shows without a clock.
 * @param {import('./view.mjs').View} view
 */
export async function assertDemo(view) {
  const reads = await view.reads();
  assert.equal(reads.map((read) => read.text).join(''), DEMO.join(''), 'byte for byte');
  assert.equal(reads.reduce((sum, read) => sum + read.bytes, 0), 140);
  const at = reads.map((read) => read.at);
  assert.deepEqual(at, [...at].sort((a, b) => a - b), 'arrival times never go back');
  const { chunks, bytes } = await view.report();
  assert.equal(Number.parseInt(chunks, 10), reads.length, 'the page counts what it read');
  assert.match(bytes, /^140\b/, 'the page counts its bytes');
}

/**
 * Makes each chunk only once the page has shown the one before, so a chunk that waits for company
 * anywhere between source and page is a chunk that never comes.
 * @param {import('./view.mjs').View} view
 * @param {import('./server.mjs').Server} server
 */
export async function assertChunkByChunk(view, server) {
  await view.start();
  await server.line(/^viewer joined$/);
  await view.until('an empty log', () => !document.querySelector('#log .chunk'));
  const expected = [];
  for (let seq = 0; seq < 10; seq += 1) {
    const line = seq === 4 ? 'ünï — 🌊' : `by hand ${seq}`;
    server.write(line);
    expected.push(`${line}\n`);
    await view.chunksShown(seq + 1);
    assert.deepEqual((await view.reads()).map((read) => read.text), expected);
  }
  server.endFeed();
  await view.state(['done']);
  assert.deepEqual((await view.reads()).map((read) => read.text), expected);
}

/**
 * The stop button in the middle of a stream: the server sees the viewer go, though no chunk is due.
 * @param {import('./view.mjs').View} view
 * @param {import('./server.mjs').Server} server
 */
export async function assertStopIsSeen(view, server) {
  await view.start();
  await server.line(/^viewer joined$/);
  server.write('the only one');
  await view.chunksShown(1);
  await view.page.click('#stop');
  await view.state(['stopped']);
  await server.line(/^viewer left$/);
  assert.deepEqual((await view.reads()).map((read) => read.text), ['the only one\n']);
}
