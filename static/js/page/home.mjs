// @ts-check
import { wireCopyButtons } from "./copy.mjs";
import { browserEnv } from "./env.mjs";
import { asPageError, noneShown } from "../client/errors.mjs";
import { FeedPicker } from "./feed-picker.mjs";
import { FeedsPoll } from "../client/feeds.mjs";
import { FollowView } from "./follow-view.mjs";
import { Follower } from "../client/follow.mjs";
import { loadInfo } from "../client/info.mjs";
import { noticeWebTransport } from "./page.mjs";
import { byId } from "./panel.mjs";
import { Renewals } from "./renewals.mjs";
import { askForToken } from "./token-form.mjs";

const env = browserEnv();
if (env.token !== undefined) env.token.ask = askForToken;
const query = new URL(env.href).searchParams;
const transport = byId("transport", HTMLSelectElement);
const from = byId("from", HTMLSelectElement);
const view = new FollowView();
/** Settles when the reading that there is has ended. */
let running = Promise.resolve();
/** Another feed is read as soon as the one before has ended. */
let switching = false;
const follower = new Follower(env, { ...view.events, onInfo: showInfo });
const picker = new FeedPicker(query.get("feed") ?? "", () => void another());
const poll = new FeedsPoll(env, (feeds) => {
  picker.status(feeds);
  const feed = feeds.find(({ name }) => name === picker.feed);
  if (feed?.kind === "live" && feed.state === "open" && feed.chunks === 0) view.empty();
  view.behind(feed?.chunks === undefined ? undefined : follower.told(feed.chunks, feed.epoch));
});

for (const [name, select] of /** @type {const} */ ([["transport", transport], ["from", from]])) {
  const asked = query.get(name);
  if ([...select.options].some(({ value }) => value === asked)) select.value = asked ?? select.value;
  select.addEventListener("change", () => remember(name, select.value, select.options[0]?.value ?? ""));
}

view.panel.start.addEventListener("click", start);
view.panel.stop.addEventListener("click", () => follower.stop());
view.retry.onNow(() => follower.retryNow());
// A page kept for the Back button must not keep reading.
addEventListener("pagehide", () => {
  follower.stop();
  poll.see(false);
});
addEventListener("pageshow", () => poll.see(!document.hidden));
document.addEventListener("visibilitychange", () => poll.see(!document.hidden));
poll.see(!document.hidden);
view.panel.start.disabled = false;
wireCopyButtons();
noticeWebTransport(env);
if (query.get("autostart") === "1") start();
else look();

/** Asks the server what it has, and the visitor for a token if it shows nothing without one. */
async function look() {
  const over = new AbortController();
  const renewals = new Renewals(env);
  view.panel.start.addEventListener("click", () => over.abort(), { signal: over.signal });
  for (;;) {
    try {
      const { info } = await loadInfo(env);
      showInfo(info);
      if (info.feeds.length > 0 || info.auth === null || info.auth.token) return;
      if (!(await renewals.renew(noneShown(), over.signal))) return;
    } catch (cause) {
      const error = asPageError(cause);
      if ((error.needsToken || error.otherToken) && (await renewals.renew(error, over.signal))) continue;
      if (!over.signal.aborted) view.panel.showError(error);
      return;
    }
  }
}

function start() {
  view.feed = picker.feed;
  running = follower.start({
    choice: /** @type {import("../client/types.mjs").TransportChoice} */ (transport.value),
    feed: picker.feed,
    from: from.value === "start" ? "start" : "now",
  });
}

/** Another feed was chosen: it is read if the one before was. */
async function another() {
  remember("feed", picker.feed, "default");
  if (!follower.running || switching) return;
  switching = true;
  follower.stop();
  await running;
  switching = false;
  start();
}

/**
 * Keeps a choice in the address, so that a link or a reload shows the same.
 * @param {string} name
 * @param {string} value
 * @param {string} usual what needs no mention
 */
function remember(name, value, usual) {
  const url = new URL(location.href);
  if (value === usual) url.searchParams.delete(name);
  else url.searchParams.set(name, value);
  history.replaceState(null, "", url);
}

/** @param {import("../client/info.mjs").Info} info */
function showInfo({ version, feeds, chrome, status }) {
  byId("version", HTMLElement).textContent = `h3cast ${version}`;
  byId("status-page", HTMLElement).hidden = !status;
  picker.list(feeds);
  if (chrome !== "") byId("chrome-command", HTMLElement).textContent = chrome;
  byId("chrome", HTMLElement).hidden = chrome === "";
}
