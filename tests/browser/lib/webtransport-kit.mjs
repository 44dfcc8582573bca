// What the cases of webtransport-cases.mjs and webtransport-breaks.mjs have at hand. All of it runs in the page.

/** @typedef {Awaited<ReturnType<typeof kit>>} Kit */
/**
 * What not every browser has.
 *
 * - `protocols`: subprotocols
 * - `draining`: it says that the server asks for an end
 * - `wideCodes`: it reads stream codes above 255 (no page can write them)
 * - `bothWaysCodes`: it reads the code of a reset of a bidirectional stream
 * - `stopsInOrder`: it always tells the code of a stop of a unidirectional stream; without it, the
 *   page may learn that the stream is gone before it learns why
 * - `cancels`: it tells the server when the page cancels a stream
 * @typedef {'protocols' | 'draining' | 'wideCodes' | 'bothWaysCodes' | 'stopsInOrder' | 'cancels'} Feature
 */
/** @typedef {{ name: string, source: string | null, code: number | null }} Failure */

/**
 * @param {string} base the origin of the server over HTTP/3
 */
export async function kit(base) {
  const SOON_MS = 60_000;
  /** @type {{ algorithm: string, value: string }[]} */
  const hashes = await (await fetch('/hashes')).json();
  const serverCertificateHashes = hashes.map(({ algorithm, value }) => (
    { algorithm, value: Uint8Array.from(atob(value), (letter) => letter.charCodeAt(0)) }));

  /**
   * Bounds a wait.
   * @template T
   * @param {string} what
   * @param {Promise<T>} promise
   * @returns {Promise<T>}
   */
  function soon(what, promise) {
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`not within ${SOON_MS} ms: ${what}`)), SOON_MS);
    });
    return Promise.race([promise, /** @type {Promise<never>} */ (late)]).finally(() => clearTimeout(timer));
  }

  /** Asks for a session. @param {string} path @param {object} [options] */
  function connect(path, options) {
    const session = new WebTransport(base + path, { serverCertificateHashes, ...options });
    // Whoever cares looks at these; nobody else shall be told.
    session.ready.catch(() => {});
    session.closed.catch(() => {});
    return session;
  }

  /** Opens a session. @param {string} path @param {object} [options] */
  async function open(path, options) {
    const session = connect(path, options);
    await soon(`the session ${path}`, session.ready);
    return session;
  }

  /** How a session was closed. @param {WebTransport} session */
  async function closed(session) {
    const { closeCode, reason } = await soon('the close', session.closed);
    return { closeCode, reason };
  }

  /**
   * The next thing out of a stream, which stays free for others.
   * @template T
   * @param {ReadableStream<T>} stream
   * @returns {Promise<T>}
   */
  async function next(stream) {
    const reader = stream.getReader();
    try {
      const { value, done } = await soon('the next of a stream', reader.read());
      if (done) throw new Error('the stream has ended');
      return /** @type {T} */ (value);
    } finally {
      reader.releaseLock();
    }
  }

  /** The next bytes as text. @param {ReadableStream<Uint8Array>} stream */
  const piece = async (stream) => new TextDecoder().decode(await next(stream));

  /** Everything up to the end. @param {ReadableStream<Uint8Array>} stream @returns {Promise<Uint8Array>} */
  async function whole(stream) {
    return new Uint8Array(await soon('the end of a stream', new Response(stream).arrayBuffer()));
  }

  /** The same as text. @param {ReadableStream<Uint8Array>} stream */
  const text = async (stream) => new TextDecoder().decode(await whole(stream));

  /** Writes and leaves the stream open. @param {WritableStream} stream @param {string | Uint8Array} data */
  async function write(stream, data) {
    const writer = stream.getWriter();
    await soon('a write', writer.write(typeof data === 'string' ? new TextEncoder().encode(data) : data));
    writer.releaseLock();
  }

  /** Writes all that there is. @param {WritableStream} stream @param {string | Uint8Array} data */
  async function send(stream, data) {
    await write(stream, data);
    await soon('the end of a write', stream.close());
  }

  /** Ends a stream, unless the server has done so. @param {WritableStream} stream */
  const end = (stream) => soon('the end of a write', stream.close().catch(() => {}));

  /**
   * A bidirectional stream on which the server does as the word says.
   * @param {WebTransport} session
   * @param {string} word
   */
  async function command(session, word) {
    const stream = await soon('a stream', session.createBidirectionalStream());
    await write(stream.writable, word);
    const echo = await piece(stream.readable);
    if (echo !== word) throw new Error(`${word} came back as ${echo}`);
    return stream;
  }

  /** What a promise fails with. @param {Promise<unknown>} promise @returns {Promise<Failure>} */
  async function failure(promise) {
    try {
      await soon('a failure', promise);
    } catch (error) {
      const { name, source, streamErrorCode } = /** @type {Partial<WebTransportError>} */ (error);
      return { name: name ?? String(error), source: source ?? null, code: streamErrorCode ?? null };
    }
    throw new Error('it did not fail');
  }

  /** How reading a stream ends. @param {ReadableStream<Uint8Array>} stream */
  const broken = (stream) => failure(stream.getReader().read());

  /** How a stream ends on which this is written. @param {WritableStream} stream @param {string} text */
  function refused(stream, text) {
    const writer = stream.getWriter();
    // The end may be there before this is written.
    writer.write(new TextEncoder().encode(text)).catch(() => {});
    return failure(writer.closed);
  }

  /** What a page gives to abort() and cancel(). @param {number} streamErrorCode @returns {WebTransportError} */
  const reason = (streamErrorCode) => (
    new /** @type {any} */ (WebTransportError)({ message: 'on purpose', streamErrorCode }));

  /** Bytes that repeat with no period that a buffer has. @param {number} size */
  const pattern = (size) => Uint8Array.from({ length: size }, (_, at) => (at * 31 + (at >> 8) * 7) % 251);

  /** @param {Uint8Array} a @param {Uint8Array} b */
  const same = (a, b) => a.length === b.length && a.every((byte, at) => byte === b[at]);

  /** What the server's side of a session tells. @param {string} id */
  const report = async (id) => (await soon('a report', fetch(`/last?id=${id}`))).json();

  return {
    connect, open, closed, soon, next, piece, whole, text, write, send, end, command, failure, broken, refused, reason,
    pattern, same, report,
  };
}
