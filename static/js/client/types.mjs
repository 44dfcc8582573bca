// @ts-check
/**
 * The shapes that the client's modules hand to each other. Types only: this file has no code.
 *
 * @typedef {"fetch" | "webtransport"} Transport
 * @typedef {Transport | "auto"} TransportChoice
 * @typedef {"idle" | "connecting" | "streaming" | "reconnecting" | "done" | "stopped" | "error"} State
 *
 * Over what the bytes come. While a fetch runs the browser has not reported on it yet: then
 * `protocol` is what it reported for `/info` a moment ago, and `final` is false.
 * @typedef {{ transport: Transport, protocol: string, final: boolean }} Path
 *
 * The interfaces of the browser, or of another runtime, that the core uses, gathered so that a test can hand in its own.
 * @typedef {object} Env
 * @property {typeof globalThis.fetch} fetch
 * @property {import("./token.mjs").Token} [token] what `fetch` shows to a server that asks for it
 * @property {Pick<Performance, "now" | "getEntriesByType" | "timeOrigin">} performance
 * @property {typeof globalThis.PerformanceObserver | undefined} PerformanceObserver
 * @property {typeof globalThis.WebTransport | undefined} WebTransport undefined where the browser has none
 * @property {boolean} isSecureContext
 * @property {string} href the address that the server's own (`info`, `stream`) are relative to: the page's, if the server
 *   serves it
 * @property {string} origin of the page that asks; "" outside of a page
 * @property {(callback: () => void, ms: number) => number} setTimer
 * @property {(handle: number) => void} clearTimer
 * @property {() => number} random from 0 to 1
 * @property {(callback: () => void) => () => void} onOnline calls back when there is a network again;
 *   returns what ends that
 * @property {() => Promise<void>} breathe gives the page a turn to draw and to answer
 *
 * An open stream of bytes, whichever transport brings it.
 * @typedef {object} Source
 * @property {Transport} transport
 * @property {number} startedAt `performance.now()` just before the request left
 * @property {ReadableStream<Uint8Array>} stream
 * @property {(waitMs?: number) => Promise<string>} protocol what the browser reports for this
 *   very request: "h3", "h2", "http/1.1"; "unknown" if it has not said so within `waitMs`
 * @property {(cause: unknown, bytes: number) => import("./errors.mjs").ClientError | Promise<import("./errors.mjs").ClientError>} failure
 *   a failed read, in words
 * @property {() => void} close lets go of the request or closes the session; safe to repeat
 * @property {SendInput | undefined} [send] for a feed that takes input
 *
 * Sends input to the command behind a feed; null ends it. One at a time.
 * @callback SendInput
 * @param {Uint8Array<ArrayBuffer> | null} bytes
 * @param {{ fetch: typeof globalThis.fetch, onRefused: (error: import("./errors.mjs").ClientError) => void }} how `fetch`
 *   shows the token that may send; `onRefused` is called if a session's stream is refused, which may be after it took something
 * @returns {Promise<void>}
 *
 * One `read()` that brought bytes.
 * @typedef {object} ChunkRead
 * @property {number} index from 0
 * @property {number} at milliseconds from the source's start, taken when the read came back
 * @property {number | null} gap milliseconds since the read before; null for the first
 * @property {number} bytes
 * @property {string} text decoded as UTF-8 across reads: a character cut in two comes whole with
 *   the read that completes it
 *
 * @typedef {object} Summary
 * @property {"ended" | "stopped" | "failed"} outcome
 * @property {number} chunks
 * @property {number} bytes
 * @property {number | null} firstAt time to first chunk in milliseconds
 * @property {number} duration milliseconds from the source's start to its end
 * @property {string} tail what the decoder still held at the end: "\uFFFD" if a character was cut
 * @property {unknown} cause why it failed
 *
 * One way of reading that auto weighed.
 * @typedef {object} Verdict
 * @property {string} way for example "fetch over HTTP/3"
 * @property {"taken" | "not taken" | "not needed"} verdict
 * @property {string} reason a sentence
 */
export {};
