// @ts-check
import { lost, noChat } from "./chat-errors.mjs";
import { unreachable } from "../client/errors.mjs";
import { refusal } from "../client/info.mjs";
import { orAbort } from "../client/or-abort.mjs";
import { UNKNOWN, watchProtocol } from "../client/timing.mjs";
import { openSession } from "../client/webtransport-source.mjs";

/** @typedef {import("../client/types.mjs").Env} Env */
/** @typedef {import("../client/info.mjs").CertificateHash} CertificateHash */

/**
 * An open way into the chat, and out of it.
 * @typedef {object} Link
 * @property {import("../client/types.mjs").Transport} transport
 * @property {ReadableStream<Uint8Array>} stream the lines that the server tells
 * @property {(text: string) => Promise<void>} send resolves when the message is on its way
 * @property {(cause: unknown) => import("../client/errors.mjs").ClientError | Promise<import("../client/errors.mjs").ClientError>} failure
 *   a failed read, in words
 * @property {() => void} close leaves; safe to repeat
 */

/** Next to the page, and to the feeds. */
const CHAT = "chat";

/**
 * The chat's address on a server, under a name.
 * @param {string} base the address of the page, or of the default feed
 * @param {string} name
 */
export function chatUrl(base, name) {
  const url = new URL(CHAT, base);
  url.searchParams.set("name", name);
  return url.href;
}

/**
 * Whether the server has a chat. Nobody joins by asking.
 * @param {Env} env
 */
export async function hasChat(env) {
  const response = await env.fetch(new URL(CHAT, env.href).href, { method: "HEAD", cache: "no-store" });
  return response.status !== 404;
}

/**
 * Over WebTransport: one bidirectional stream, a message a line.
 *
 * @param {{ url: string, certificateHashes: CertificateHash[], signal: AbortSignal, env: Env }} options
 * @returns {Promise<Link>}
 */
export async function linkByWebTransport(options) {
  const { session, why, ended, close } = await openSession(options);
  try {
    const { readable, writable } = await orAbort(session.createBidirectionalStream(), options.signal);
    /** @type {WritableStreamDefaultWriter<Uint8Array>} */
    const writer = writable.getWriter();
    const encoder = new TextEncoder();
    // Waits until the stream has room, not until the server has read it.
    const write = async (/** @type {string} */ line) => {
      await writer.ready;
      await writer.write(encoder.encode(line));
    };
    /** @type {import("../client/errors.mjs").ClientError | undefined} */
    let stopped;
    writer.closed.catch((/** @type {WebTransportError} */ cause) => {
      // The end of the whole session is told by the reading half.
      if (cause.source !== "stream") return;
      stopped = lost(cause, `the server takes no more messages: code ${cause.streamErrorCode}`);
      close();
    });
    // The server learns of a stream by its first bytes, and an empty line says nothing.
    await orAbort(write("\n"), options.signal);
    return {
      transport: "webtransport",
      stream: readable,
      send: (text) => write(`${text}\n`),
      failure: async (cause) => {
        await ended(cause);
        return stopped ?? lost(cause, why());
      },
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}

/**
 * Over any HTTP: a response that brings the lines, and a POST for each message.
 *
 * @param {{ name: string, signal: AbortSignal, env: Env, onProtocol: (protocol: string) => void }} options
 *   `onProtocol` gets what the browser reports for a POST; for the response it reports at its end
 * @returns {Promise<Link>}
 */
export async function linkByFetch({ name, signal, env, onProtocol }) {
  const url = chatUrl(env.href, name);
  const path = new URL(url).pathname;
  const gone = new AbortController();
  const either = AbortSignal.any([signal, gone.signal]);
  /** @param {RequestInit} [init] */
  const request = async (init) => {
    /** @type {Response} */
    let response;
    try {
      response = await env.fetch(url, { cache: "no-store", signal: either, ...init });
    } catch (cause) {
      throw unreachable(path, cause);
    }
    if (response.status === 404) throw noChat();
    if (!response.ok) throw await refusal(path, response, env);
    return response;
  };
  const response = await request();
  if (response.body === null) throw lost();
  return {
    transport: "fetch",
    stream: response.body,
    async send(text) {
      const timing = watchProtocol(url, env);
      try {
        await request({ method: "POST", body: text });
      } catch (error) {
        timing.stop();
        throw error;
      }
      // The message is taken; the browser's report may come a little later.
      timing.protocol().then((protocol) => {
        timing.stop();
        if (protocol !== UNKNOWN) onProtocol(protocol);
      });
    },
    failure: (cause) => lost(cause),
    close: () => gone.abort(),
  };
}
