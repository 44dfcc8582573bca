// Streams that are broken off, by either side, each with its code: more of webtransport-cases.mjs.

/** @typedef {import('./webtransport-kit.mjs').Kit} Kit */
/** @typedef {import('./webtransport-kit.mjs').Failure} Failure */
/** @typedef {import('./webtransport-cases.mjs').Case} Case */

// The first, the last that a page can write, and those around the first gap in HTTP/3's numbering.
const CODES = [0, 7, 29, 30, 31, 255];
const WIDE = [256, 65_536, 4_294_967_295];

/** @param {number} code */
const ofStream = (code) => ({ name: 'WebTransportError', source: 'stream', code });
const untold = { name: 'TypeError', source: null, code: null };

/**
 * `run` for each of the codes, in the page. Functions go there as their text.
 * @param {number[]} codes
 * @param {(kit: Kit, code: number) => Promise<unknown>} run
 * @returns {(kit: Kit) => Promise<unknown>}
 */
function each(codes, run) {
  const there = () => Promise.reject(new Error('this runs in the page'));
  there.toString = () => `async (kit) => {
    const all = [];
    for (const code of ${JSON.stringify(codes)}) all.push(await (${run})(kit, code));
    return all;
  }`;
  return there;
}

/** @param {Kit} kit @param {number} code */
async function resetUni({ open, command, next, piece, write, broken }, code) {
  const session = await open(`/reset?code=${code}`);
  const stream = await command(session, 'reset-uni');
  const uni = await next(session.incomingUnidirectionalStreams);
  await piece(uni);
  await write(stream.writable, 'go');
  const failure = await broken(uni);
  session.close();
  return failure;
}

/** @param {Kit} kit @param {number} code */
async function stop({ open, refused }, code) {
  const session = await open(`/reset?code=${code}`);
  const { writable } = await session.createBidirectionalStream();
  const failure = await refused(writable, 'stop');
  session.close();
  return failure;
}

/** @type {Case[]} */
export const BREAKS = [
  {
    name: 'the server resets a stream of its own',
    run: each(CODES, resetUni),
    expected: CODES.map(ofStream),
  },
  {
    name: 'the server resets a stream of its own with a code that needs more than a byte',
    needs: 'wideCodes',
    run: each(WIDE, resetUni),
    expected: WIDE.map(ofStream),
    lacking: WIDE.map(() => ofStream(0)),
  },
  {
    name: 'the server resets its half of a stream of the page',
    needs: 'bothWaysCodes',
    run: each(CODES, async ({ open, command, write, broken }, code) => {
      const session = await open(`/reset?code=${code}`);
      const stream = await command(session, 'reset');
      await write(stream.writable, 'go');
      const failure = await broken(stream.readable);
      session.close();
      return failure;
    }),
    expected: CODES.map(ofStream),
    lacking: CODES.map(() => untold),
  },
  {
    name: 'the server stops what the page writes on a bidirectional stream',
    run: each(CODES, stop),
    expected: CODES.map(ofStream),
  },
  {
    name: 'the server stops what the page writes with a code that needs more than a byte',
    needs: 'wideCodes',
    run: each(WIDE, stop),
    expected: WIDE.map(ofStream),
    lacking: WIDE.map(() => ofStream(0)),
  },
  {
    name: 'the server stops a unidirectional stream of the page',
    needs: 'stopsInOrder',
    run: each(CODES, async ({ open, command, refused }, code) => {
      const session = await open(`/reset?code=${code}`);
      await command(session, 'stop-uni');
      const failure = await refused(await session.createUnidirectionalStream(), 'unwanted');
      session.close();
      return failure;
    }),
    expected: CODES.map(ofStream),
    lacking: (/** @type {Failure[]} */ failures) => failures.length === CODES.length && failures.every(
      ({ name, code }, at) => name === 'NetworkError' || (name === 'WebTransportError' && code === CODES[at])),
  },
  {
    name: 'the page aborts what it writes',
    run: each(CODES, async ({ open, command, soon, reason, report }, code) => {
      const id = crypto.randomUUID();
      const session = await open(`/reset?id=${id}`);
      const { writable } = await command(session, 'abort');
      await soon('the abort', writable.abort(reason(code)));
      const told = await report(id);
      session.close();
      return told;
    }),
    expected: CODES.map((code) => ({ reset: code })),
  },
  {
    name: 'streams that the page opens and aborts at once, of both kinds, all reach the server with their code',
    run: async ({ open, soon, reason, report }) => {
      const ROUNDS = 5;
      const STREAMS = 20;
      const id = crypto.randomUUID();
      const session = await open(`/broken?id=${id}`);
      let told = { uni: [], bi: [] };
      for (let round = 1; round <= ROUNDS; round += 1) {
        const aborted = [];
        for (let stream = 0; stream < STREAMS; stream += 1) {
          aborted.push((await session.createUnidirectionalStream()).abort(reason(7)));
          aborted.push((await session.createBidirectionalStream()).writable.abort(reason(8)));
        }
        await soon('the aborts', Promise.all(aborted));
        const deadline = Date.now() + 3_000;
        do {
          await new Promise((resolve) => setTimeout(resolve, 20));
          told = await report(id);
        } while (told.uni.length + told.bi.length < 2 * STREAMS * round && Date.now() < deadline);
      }
      session.close();
      const count = (/** @type {number[]} */ codes, /** @type {number} */ code) => (
        codes.filter((found) => found === code).length);
      return { uni: count(told.uni, 7), bi: count(told.bi, 8) };
    },
    expected: { uni: 100, bi: 100 },
  },
  {
    name: 'the page cancels a stream of the server',
    needs: 'cancels',
    run: each(CODES, async ({ open, command, next, piece, soon, end, reason, report }, code) => {
      const id = crypto.randomUUID();
      const session = await open(`/reset?id=${id}`);
      const { writable } = await command(session, 'cancel-uni');
      const uni = await next(session.incomingUnidirectionalStreams);
      await piece(uni);
      await soon('the cancel', uni.cancel(reason(code)));
      await end(writable);
      const told = await report(id);
      session.close();
      return told;
    }),
    expected: CODES.map((code) => ({ stopped: code })),
    lacking: CODES.map(() => ({ stopped: null })),
  },
  {
    name: "the page cancels the server's half of a stream",
    needs: 'cancels',
    run: each(CODES, async ({ open, command, soon, end, reason, report }, code) => {
      const id = crypto.randomUUID();
      const session = await open(`/reset?id=${id}`);
      const { readable, writable } = await command(session, 'cancel');
      await soon('the cancel', readable.cancel(reason(code)));
      await end(writable);
      const told = await report(id);
      session.close();
      return told;
    }),
    expected: CODES.map((code) => ({ stopped: code })),
    lacking: CODES.map(() => ({ stopped: null })),
  },
  {
    name: 'a page can write no code above 255',
    run: async ({ reason }) => [256, 4_294_967_295].map((code) => reason(code).streamErrorCode),
    expected: [255, 255],
  },
];
