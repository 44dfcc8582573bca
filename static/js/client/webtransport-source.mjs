// @ts-check
import { cutShort, inputOver, noStream, noWebTransport, sessionFailed, tokenExpired, tookNothing } from "./errors.mjs";
import { refusal } from "./info.mjs";
import { orAbort } from "./or-abort.mjs";

/** @typedef {import("./types.mjs").Env} Env */
/** @typedef {import("./types.mjs").Source} Source */
/** @typedef {import("./info.mjs").CertificateHash} CertificateHash */

/**
 * How long a session may take to open. Where UDP is blocked nothing ever comes back, and a
 * browser's own limit is longer than a visitor's patience.
 */
export const OPEN_TIMEOUT_MS = 8000;
/** How long the end of a session that its streams have reported may take to be reported itself. */
export const CLOSED_WAIT_MS = 1000;

/** The codes with which a server closes a session, or resets its stream (docs/protocol.md): its token has ended. */
const EXPIRED = 2;
/** The page took nothing for too long. */
const STALLED = 3;

/**
 * An open session.
 * @typedef {object} OpenSession
 * @property {WebTransport} session
 * @property {number} startedAt `performance.now()` just before the request left
 * @property {() => number} code with which the server closed it; 0 for none
 * @property {() => string} why how the server closed it, in words, or ""
 * @property {(cause: unknown) => Promise<void>} ended waits for both if a read failed because the session has ended:
 *   Firefox fails the session's streams first, and without a code
 * @property {() => void} close safe to repeat
 *
 * @typedef {{ url: string, certificateHashes: CertificateHash[], signal: AbortSignal, env: Env }} SessionOptions
 *   no hashes: the certificate has to be one that the browser trusts anyway
 */

/**
 * Opens a session. Ending it is up to `close`: once it is open, `signal` no longer does.
 *
 * @param {SessionOptions} options
 * @returns {Promise<OpenSession>}
 */
export async function openSession({ url, certificateHashes, signal, env }) {
  if (env.WebTransport === undefined) throw noWebTransport(env.isSecureContext);
  const { origin } = env;
  const byHash = certificateHashes.length > 0;
  const startedAt = env.performance.now();
  /** @type {WebTransport} */
  let session;
  try {
    session = new env.WebTransport(url, byHash ? { serverCertificateHashes: certificateHashes } : {});
  } catch (cause) {
    throw sessionFailed(url, origin, byHash, cause);
  }

  let why = "";
  let code = 0;
  const closed = session.closed.then(
    ({ closeCode, reason }) => {
      code = closeCode ?? 0;
      why = `the server closed the session with code ${code}${reason ? `: ${reason}` : ""}`;
    },
    () => {
      // Reported by whatever was waiting on the session.
    },
  );
  const close = () => {
    try {
      session.close();
    } catch {
      // It is closed already, or never opened.
    }
  };
  try {
    await orAbort(session.ready, signal, OPEN_TIMEOUT_MS);
  } catch (cause) {
    close();
    throw sessionFailed(url, origin, byHash, cause);
  }
  /** @param {unknown} cause */
  const ended = (cause) => new Promise((/** @type {(value: void) => void} */ resolve) => {
    if (!isOfSession(cause)) return resolve();
    const timer = env.setTimer(resolve, CLOSED_WAIT_MS);
    closed.then(() => {
      env.clearTimer(timer);
      resolve();
    });
  });
  return { session, startedAt, why: () => why, code: () => code, ended, close };
}

/**
 * Opens a session and waits for the one unidirectional stream that the server opens in it. The
 * server leaves the session open after the stream's end: closing it is up to `close`.
 *
 * @param {SessionOptions} options
 * @returns {Promise<Source>}
 */
export async function openWebTransport(options) {
  const { session, startedAt, why, code, ended, close } = await openSession(options);
  try {
    /** @type {ReadableStreamReadResult<ReadableStream<Uint8Array>>} */
    let first;
    const incoming = /** @type {ReadableStream<ReadableStream<Uint8Array>>} */ (session.incomingUnidirectionalStreams);
    const streams = incoming.getReader();
    try {
      first = await orAbort(streams.read(), options.signal);
    } catch (cause) {
      throw noStream(why(), cause);
    } finally {
      streams.releaseLock();
    }
    if (first.done) throw noStream(why());
    return {
      transport: "webtransport",
      startedAt,
      stream: first.value,
      // WebTransport sessions of today's browsers are HTTP/3 by definition.
      protocol: async () => "h3",
      failure: async (cause, bytes) => {
        await ended(cause);
        // The stream's code is there before the session's. One with a publisher stays open without its stream.
        switch (code() || streamCode(cause)) {
          case EXPIRED:
            return tokenExpired();
          case STALLED:
            return tookNothing(cause);
          default:
            return cutShort(bytes, cause, why());
        }
      },
      close,
      send: inputOf(session, options),
    };
  } catch (error) {
    close();
    throw error;
  }
}

/**
 * What sends input to the command behind a session: its first stream, opened when there is something to send.
 * @param {WebTransport} session
 * @param {SessionOptions} options
 * @returns {import("./types.mjs").SendInput}
 */
function inputOf(session, { url, env }) {
  /** @type {Promise<{ writer: WritableStreamDefaultWriter<Uint8Array>, answer: Promise<Response> }> | undefined} */
  let opened;
  const open = async () => {
    const { readable, writable } = await session.createBidirectionalStream();
    return { writer: writable.getWriter(), answer: answerOn(readable) };
  };
  return async (bytes, { onRefused }) => {
    const what = new URL(url).pathname;
    if (opened === undefined) {
      opened = open();
      // A refusal may come after the stream has taken something.
      const watched = opened.then(async ({ answer }) => {
        const response = await answer;
        if (!response.ok) onRefused(await refusal(what, response, env));
      });
      watched.catch(() => {});
    }
    try {
      const { writer } = await opened;
      if (bytes === null) await writer.close();
      else await writer.write(bytes);
    } catch (cause) {
      const response = await opened.then(({ answer }) => answer).catch(() => undefined);
      // For want of a token, `onRefused` has asked for it, and one question is enough.
      if (response?.status !== 401 && response?.status !== 403) throw inputOver(cause);
    }
  };
}

/**
 * What the server writes back on a stream, as the response that it would be: a problem has its status in it.
 * @param {ReadableStream<Uint8Array>} readable
 */
async function answerOn(readable) {
  const text = await new Response(readable).text();
  const { status } = JSON.parse(text);
  return new Response(text, { status: typeof status === "number" ? status : 200, headers: { "content-type": "application/problem+json" } });
}

/**
 * Whether a read failed because its session has ended.
 * @param {unknown} cause
 */
function isOfSession(cause) {
  const { source } = /** @type {{ source?: unknown }} */ (cause ?? {});
  return source === "session";
}

/**
 * The code with which a stream was reset; 0 for none.
 * @param {unknown} cause
 */
function streamCode(cause) {
  const { streamErrorCode } = /** @type {{ streamErrorCode?: unknown }} */ (cause ?? {});
  return typeof streamErrorCode === "number" ? streamErrorCode : 0;
}
