// @ts-check
import { environment } from "../client/environment.mjs";
import { orAbort } from "../client/or-abort.mjs";
import { Token } from "../client/token.mjs";

/** @typedef {(why: string, signal: AbortSignal) => Promise<string>} Ask */

/** Settles when the last question is over: there is one at a time. @type {Promise<unknown>} */
let before = Promise.resolve();

/** Asks the visitor for a token that reads. */
export const askForToken = asking("read");
/** Asks the visitor for a token that publishes. */
export const askForPublishToken = asking("publish");

/**
 * The page's surroundings with another token, for writing: one that writes is none for reading, and the page keeps its
 * own.
 * @param {import("../client/types.mjs").Env} env
 */
export function envForWriting(env) {
  const token = new Token({ fetch: globalThis.fetch.bind(globalThis), storage: undefined, href: env.href });
  token.set(env.token?.value ?? "");
  token.ask = askForPublishToken;
  return environment(env.href, token);
}

/**
 * Asks the visitor for a token, in a form above the place of errors. `signal` ends the question; the answer is "" then.
 * @param {string} purpose
 * @returns {Ask}
 */
function asking(purpose) {
  return (why, signal) => {
    const answer = before.then(() => (signal.aborted ? "" : question(purpose, why, signal)));
    before = answer;
    // One that waits for its turn ends as well.
    return orAbort(answer, signal).catch(() => "");
  };
}

/**
 * @param {string} purpose
 * @param {string} why
 * @param {AbortSignal} signal
 * @returns {Promise<string>} "" if there is no answer
 */
function question(purpose, why, signal) {
  const place = document.getElementById("error");
  if (place === null) return Promise.resolve("");
  const form = document.createElement("form");
  form.id = "token-form";
  form.className = "notice";
  const reason = document.createElement("p");
  reason.textContent = why;
  const label = document.createElement("label");
  label.htmlFor = "token";
  label.textContent = `Token to ${purpose} `;
  const input = document.createElement("input");
  Object.assign(input, { id: "token", type: "password", required: true, autocomplete: "off", spellcheck: false });
  const button = document.createElement("button");
  button.textContent = "Use it";
  form.append(reason, label, input, " ", button);
  place.before(form);
  return new Promise((resolve) => {
    const done = (/** @type {string} */ value) => {
      signal.removeEventListener("abort", none);
      form.remove();
      resolve(value);
    };
    const none = () => done("");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      done(input.value);
    });
    signal.addEventListener("abort", none);
  });
}
