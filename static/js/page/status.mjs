// @ts-check
import { browserEnv } from "./env.mjs";
import { dataUrl } from "./status-feeds.mjs";
import { StatusPoll } from "./status-poll.mjs";
import { StatusView, byId } from "./status-view.mjs";
import { askForToken } from "./token-form.mjs";

const env = browserEnv();
if (env.token !== undefined) env.token.ask = askForToken;
const view = new StatusView();
const find = /** @type {HTMLInputElement} */ (byId("find"));
const sort = /** @type {HTMLSelectElement} */ (byId("sort"));
const pause = byId("pause");
/** What is asked for; its answer is shown with it. */
let choice = { text: "", sort: sort.value };
let paused = false;
/** Whether a token is being asked for. */
let asking = false;

const poll = new StatusPoll(env, () => dataUrl(env.href, choice), {
  status(status) {
    view.error("");
    view.state("done", "Live: new numbers every 2 seconds.");
    view.show(status, choice);
  },
  trouble({ kind, text, otherToken }) {
    if (kind === "token") {
      view.state("idle", "A token is needed.");
      void token(text, otherToken);
    } else if (kind === "unreachable") {
      view.error("");
      view.state("error", "The server does not answer. Showing the last numbers received; this page keeps trying.");
    } else if (kind === "busy") {
      view.error("");
      view.state("error", `The server is busy (${text}). This page keeps trying.`);
    } else {
      view.state("error", "The server does not show its numbers.");
      view.error(text);
    }
  },
});

/**
 * @param {string} why
 * @param {boolean} otherToken
 */
async function token(why, otherToken) {
  if (asking || env.token === undefined) return;
  asking = true;
  const { signal } = new AbortController();
  const error = /** @type {import("../client/errors.mjs").ClientError} */ ({ message: why, otherToken });
  const given = await env.token.after(error, signal);
  asking = false;
  if (given) poll.now();
}

function look() {
  const seen = !document.hidden;
  if (paused) view.state("idle", "Paused.");
  poll.want(seen && !paused);
}

pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
  if (!paused) view.state("connecting", "Asking the server.");
  look();
});
for (const control of [find, sort]) {
  control.addEventListener("input", () => {
    choice = { text: find.value.trim(), sort: sort.value };
    poll.now();
  });
}
document.addEventListener("visibilitychange", look);
// A page kept for the Back button must not keep asking.
addEventListener("pagehide", () => poll.want(false));
addEventListener("pageshow", look);
const host = new URL(env.href).host;
byId("host").textContent = host;
document.title = `${host} · h3cast status`;
look();
