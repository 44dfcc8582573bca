// What every browser's WebTransport must do with examples/webtransport.rs. Each `run` runs in the
// page, and what it returns is compared with `expected` by the test.

/** @typedef {import('./webtransport-kit.mjs').Kit} Kit */
/** @typedef {import('./webtransport-kit.mjs').Feature} Feature */
/**
 * `lacking` is what a browser gives that lacks what the case needs, or tells whether it is that; without
 * it, the case is not run there.
 * @typedef {{ name: string, run: (kit: Kit) => Promise<unknown>, expected: unknown,
 *   needs?: Feature, lacking?: unknown }} Case
 */


const rejected = { name: 'WebTransportError', source: 'session', code: null };

/** @type {Case[]} */
export const CASES = [
  {
    name: 'a bidirectional stream of the page comes back on itself',
    run: async ({ open, send, text }) => {
      const session = await open('/echo');
      const stream = await session.createBidirectionalStream();
      await send(stream.writable, 'ünï — 🌊');
      const echo = await text(stream.readable);
      session.close();
      return echo;
    },
    expected: 'ünï — 🌊',
  },
  {
    name: '1 MiB is written to its end before anything is read, and comes back byte for byte',
    run: async ({ open, send, whole, pattern, same }) => {
      const session = await open('/echo');
      const stream = await session.createBidirectionalStream();
      const bytes = pattern(1 << 20);
      await send(stream.writable, bytes);
      const echo = await whole(stream.readable);
      session.close();
      return [echo.length, same(echo, bytes)];
    },
    expected: [1 << 20, true],
  },
  {
    name: 'a unidirectional stream of the page comes back on one of the server',
    run: async ({ open, send, next, whole, pattern, same }) => {
      const session = await open('/echo');
      const bytes = pattern(1 << 20);
      await send(await session.createUnidirectionalStream(), bytes);
      const echo = await whole(await next(session.incomingUnidirectionalStreams));
      session.close();
      return [echo.length, same(echo, bytes)];
    },
    expected: [1 << 20, true],
  },
  {
    name: 'fifty streams of each kind at once',
    run: async ({ open, send, next, text }) => {
      const session = await open('/echo');
      const numbers = Array.from({ length: 50 }, (_, number) => number);
      const there = await Promise.all(numbers.map(async (number) => {
        const stream = await session.createBidirectionalStream();
        await send(stream.writable, `bidirectional ${number}`);
        return text(stream.readable);
      }));
      const sent = numbers.map(async (number) => send(await session.createUnidirectionalStream(), `${number}`));
      const back = [];
      for (const _ of numbers) back.push(text(await next(session.incomingUnidirectionalStreams)));
      await Promise.all(sent);
      const came = (await Promise.all(back)).map(Number).sort((a, b) => a - b);
      session.close();
      return [there.every((echo, number) => echo === `bidirectional ${number}`), came.join()];
    },
    expected: [true, Array.from({ length: 50 }, (_, number) => number).join()],
  },
  {
    name: 'streams that the server opens, both kinds, and its datagrams',
    run: async ({ open, send, next, text, piece }) => {
      const session = await open('/push');
      const uni = await text(await next(session.incomingUnidirectionalStreams));
      const both = await next(session.incomingBidirectionalStreams);
      const pushed = await text(both.readable);
      await send(both.writable, 'back as a datagram');
      const datagram = await piece(session.datagrams.readable);
      session.close();
      return { uni, pushed, datagram };
    },
    expected: { uni: "a stream of the server's", pushed: 'one for both', datagram: 'back as a datagram' },
  },
  {
    name: 'datagrams come back',
    run: async ({ open, write, next, pattern, same }) => {
      const session = await open('/echo');
      const results = [];
      // Chromium loses an empty one.
      for (const size of [1, 1000]) {
        const bytes = pattern(size);
        await write(session.datagrams.writable, bytes);
        results.push(same(await next(session.datagrams.readable), bytes));
      }
      const fits = session.datagrams.maxDatagramSize >= 1000;
      session.close();
      return { results, fits };
    },
    expected: { results: [true, true], fits: true },
  },
  {
    name: 'the server closes: code and reason',
    run: async ({ open, closed }) => {
      const all = [];
      for (const [code, reason] of [[0, ''], [7, 'bye'], [4_294_967_295, 'ünï — 🌊'], [1, '漢'.repeat(400)]]) {
        all.push(await closed(await open(`/close?code=${code}&reason=${encodeURIComponent(reason)}`)));
      }
      return all;
    },
    expected: [
      { closeCode: 0, reason: '' },
      { closeCode: 7, reason: 'bye' },
      { closeCode: 4_294_967_295, reason: 'ünï — 🌊' },
      // 1,024 bytes hold 341 of these and a third.
      { closeCode: 1, reason: '漢'.repeat(341) },
    ],
  },
  {
    name: 'the page closes: code and reason',
    run: async ({ open, closed, report }) => {
      const all = [];
      const infos = [
        undefined, { closeCode: 7, reason: 'bye' }, { closeCode: 4_294_967_295, reason: 'ünï — 🌊' },
        { closeCode: 1, reason: '漢'.repeat(400) },
      ];
      for (const info of infos) {
        const id = crypto.randomUUID();
        const session = await open(`/closed?id=${id}`);
        session.close(info);
        await closed(session);
        all.push(await report(id));
      }
      return all;
    },
    expected: [
      { code: 0, reason: '', byPeer: true },
      { code: 7, reason: 'bye', byPeer: true },
      { code: 4_294_967_295, reason: 'ünï — 🌊', byPeer: true },
      { code: 1, reason: '漢'.repeat(341), byPeer: true },
    ],
  },
  {
    name: 'what waits on a session ends with it',
    run: async ({ open, write, piece, failure }) => {
      const session = await open('/echo');
      const { readable, writable } = await session.createBidirectionalStream();
      await write(writable, 'here');
      await piece(readable);
      const reading = failure(readable.getReader().read());
      const writing = failure(writable.getWriter().closed);
      session.close();
      return [(await reading).source, (await writing).source];
    },
    expected: ['session', 'session'],
  },
  {
    name: 'the server chooses among the subprotocols that the page offers',
    needs: 'protocols',
    run: async ({ open }) => {
      const all = [];
      for (const protocols of [['chat-v3', 'chat-v1', 'chat-v2'], ['chat-v2'], ['chat-v3'], []]) {
        const session = await open('/protocols', { protocols });
        all.push(/** @type {any} */ (session).protocol);
        session.close();
      }
      return all;
    },
    expected: ['chat-v1', 'chat-v2', '', ''],
  },
  {
    name: 'the server asks for an end',
    needs: 'draining',
    run: async ({ open, soon }) => {
      const session = await open('/drain');
      await soon('draining', /** @type {any} */ (session).draining);
      session.close();
      return 'draining';
    },
    expected: 'draining',
  },
  {
    name: 'a session that is to end goes on until it does',
    run: async ({ open, send, text }) => {
      const session = await open('/drain');
      const all = [];
      for (const word of ['one', 'two']) {
        const stream = await session.createBidirectionalStream();
        await send(stream.writable, word);
        all.push(await text(stream.readable));
      }
      session.close();
      return all;
    },
    expected: ['one', 'two'],
  },
  {
    name: 'a session that is refused, whatever the status',
    run: async ({ connect, failure }) => {
      const all = [];
      for (const path of ['/reject?status=403', '/reject?status=429', '/reject?status=503', '/nothing/here']) {
        const session = connect(path);
        all.push(await failure(session.ready), await failure(session.closed));
      }
      return all;
    },
    expected: Array(8).fill(rejected),
  },
  {
    name: 'any status of success opens a session',
    run: async ({ open, send, text }) => {
      const all = [];
      for (const status of [200, 201, 202, 204, 299]) {
        const session = await open(`/status/${status}`);
        const stream = await session.createBidirectionalStream();
        await send(stream.writable, `${status}`);
        all.push(await text(stream.readable));
        session.close();
      }
      return all;
    },
    expected: ['200', '201', '202', '204', '299'],
  },
  {
    name: 'the server closes the connection: the session is lost, without code or reason',
    run: async ({ open, failure, soon }) => {
      const session = await open('/lost');
      const writer = session.datagrams.writable.getWriter();
      await soon('a datagram', writer.write(new Uint8Array(1)));
      return failure(session.closed);
    },
    expected: rejected,
  },
  {
    name: 'two sessions at once on one origin, and a fetch beside them',
    run: async ({ open, send, text, closed }) => {
      const sessions = await Promise.all([open('/echo'), open('/headers'), open('/echo')]);
      const all = [];
      for (const [at, session] of [sessions[0], sessions[2]].entries()) {
        const stream = await session.createBidirectionalStream();
        await send(stream.writable, `session ${at}`);
        all.push(await text(stream.readable), (await fetch('/hashes')).status);
      }
      sessions[0].close({ closeCode: 1, reason: 'the first' });
      const stream = await sessions[2].createBidirectionalStream();
      await send(stream.writable, 'alone');
      all.push(await text(stream.readable), (await closed(sessions[0])).reason);
      sessions[1].close();
      sessions[2].close();
      return all;
    },
    expected: ['session 0', 200, 'session 1', 200, 'alone', 'the first'],
  },
];
