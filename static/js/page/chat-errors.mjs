// @ts-check
import { ClientError, asClientError } from "../client/errors.mjs";

const START = "Check that the server is still running; if not, start it with: cargo run --example chat";

/** The server serves this page, and nothing at /chat. */
export function noChat() {
  return new ClientError("This server has no chat. Start the example: cargo run --example chat.", [
    "Stop this server or choose other ports with --listen and --http, then open the address that the example prints.",
  ]);
}

/**
 * The lines ended before the visitor left.
 * @param {unknown} [cause] none: the server ended them in good order
 * @param {string} [reason] what the other side gave as its reason
 */
export function lost(cause, reason = "") {
  if (cause instanceof ClientError) return cause;
  const what = cause === undefined ? "The server has ended the chat" : "The connection to the chat was lost";
  return new ClientError(`${what}${reason === "" ? "" : ` (${reason})`}. New messages do not arrive here.`, [
    "Press Reconnect.", START,
  ], cause);
}

/**
 * @param {string} detail
 * @param {unknown} [cause]
 */
export function badLine(detail, cause) {
  return new ClientError(`The server sent a line that this page does not understand: ${detail}.`, [
    "Reload the page: it may be older than the server.",
  ], cause);
}

/**
 * A message that others do not get to read.
 * @param {unknown} cause
 */
export function notSent(cause) {
  const error = asClientError(cause);
  const said = cause instanceof ClientError ? [`${error.message}`, ...error.steps] : ["Send it again.", START];
  return new ClientError("The message was not sent.", said, error.cause);
}

/** @param {number} waiting */
export function tooMany(waiting) {
  return new ClientError(`${waiting} earlier messages are still on their way.`, ["Wait a moment, then send it again."]);
}
