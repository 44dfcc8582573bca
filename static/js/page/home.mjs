// @ts-check
import { wireCopyButtons } from "./copy.mjs";
import { browserEnv } from "./env.mjs";
import { asClientError, noneShown } from "../client/errors.mjs";
import { FeedPicker } from "./feed-picker.mjs";
import { FeedsPoll, feedsNow, isEmptySoFar } from "../client/feeds.mjs";
import { FollowView } from "./follow-view.mjs";
import { plural } from "../client/format.mjs";
import { feedUrl, loadInfo } from "../client/info.mjs";
import { Group } from "./group.mjs";
import { InputForm } from "./input-form.mjs";
import { Layout } from "./layout.mjs";
import { noticeWebTransport } from "./page.mjs";
import { byId } from "./panel.mjs";
import { inAddress, listInAddress } from "./prefs.mjs";
import { PublishForm } from "./publish-form.mjs";
import { Renewals } from "./renewals.mjs";
import { askForToken } from "./token-form.mjs";

/** How many feeds are named, where one is not there. */
const NAMED = 10;
const READY = "Ready. Press Start.";

const env = browserEnv();
if (env.token !== undefined) env.token.ask = askForToken;
const query = new URL(env.href).searchParams;
const transport = byId("transport", HTMLSelectElement);
const from = byId("from", HTMLSelectElement);
const view = new FollowView();
const layout = new Layout(query.get("view"));
/** Settles when the reading that there is has ended. */
let running = Promise.resolve();
/** Another feed is read as soon as the one before has ended. */
let switching = false;
/** The page is only kept for the Back button. */
let away = false;
/** The feeds' kinds, as `/info` has them. @type {Map<string, string>} */
let kinds = new Map();
const group = new Group(env);
const picker = new FeedPicker(query.getAll("feed"), () => void another(), () => {
  view.arrange(picker.columns);
  arrangement();
});
/** The addresses of feeds, as `/info` has them. @type {(feed: string) => string} */
let addressOf = (feed) => feedUrl({ feeds: [] }, feed, env.href);
/** What `/feeds` said last. @type {import("../client/feeds.mjs").FeedStatus[]} */
let told = [];
const publish = new PublishForm(env, () => picker.feed, (feed) => addressOf(feed));
const input = new InputForm(env, () => group.send, () => again());
const poll = new FeedsPoll(env, (feeds) => {
  told = feeds;
  picker.status(feeds);
  showForm();
  picker.feeds.forEach((name, place) => {
    const feed = told.find((feed) => feed.name === name);
    view.told(place, {
      empty: feed !== undefined && isEmptySoFar(feed),
      behind: feed?.chunks === undefined ? undefined : group.told(place, feed.chunks, feed.epoch),
    });
  });
});

const last = query.get("from") ?? "";
if (/^-\d{1,9}$/.test(last) && last !== "-100") from.add(new Option(`last ${last.slice(1)}`, last));
for (const [name, select] of /** @type {const} */ ([["transport", transport], ["from", from]])) {
  const asked = query.get(name);
  if ([...select.options].some(({ value }) => value === asked)) select.value = asked ?? select.value;
  select.addEventListener("change", () => {
    inAddress(name, select.value, select.options[0]?.value ?? "");
    // Where there is no Start to press, what was chosen holds at once.
    if (layout.look === "log") void again();
  });
}

view.panel.start.addEventListener("click", start);
view.panel.stop.addEventListener("click", () => group.stop());
view.retry.onNow(() => group.retryNow());
// A page kept for the Back button must not keep reading.
addEventListener("pagehide", () => {
  away = true;
  group.stop();
  poll.see(false);
});
addEventListener("pageshow", () => {
  away = false;
  poll.see(!document.hidden);
});
document.addEventListener("visibilitychange", () => poll.see(!document.hidden));
poll.see(!document.hidden);
wireCopyButtons();
noticeWebTransport(env);
void look();

/**
 * Asks the server what it has, and the visitor for a token if it shows nothing without one. A feed that everybody sees
 * at the same time is followed at once.
 */
async function look() {
  const over = new AbortController();
  const renewals = new Renewals(env);
  const autostart = query.get("autostart") === "1";
  view.panel.start.addEventListener("click", () => over.abort(), { signal: over.signal });
  for (;;) {
    try {
      const { info } = await loadInfo(env);
      // Where the address leaves it open, a feed that works is chosen.
      showInfo(info, picker.isOpen && info.feeds.length > 1 ? await feedsNow(env) : []);
      if (autostart || info.feeds.length > 0 || info.auth === null || info.auth.token) break;
      ready();
      if (!(await renewals.renew(noneShown(), over.signal))) return;
    } catch (cause) {
      // Following tries again by itself.
      if (autostart || layout.logAsked) break;
      ready();
      const error = asClientError(cause);
      if ((error.needsToken || error.otherToken) && (await renewals.renew(error, over.signal))) continue;
      if (!over.signal.aborted) view.panel.showError(error);
      return;
    }
  }
  ready(await absence());
  if (!group.running && !away && (autostart || followed())) start();
}

/**
 * Whether the address names a feed that is not there.
 * @returns {Promise<string | undefined>} that in words, with those that there are
 */
async function absence() {
  const { feed, feeds } = picker;
  const names = [...kinds.keys()];
  if (feeds.length > 1 || names.length === 0 || kinds.has(feed) || (await asked(feed))?.status !== 404) return undefined;
  const more = names.length > NAMED ? ` and ${plural(names.length - NAMED, "other")}` : "";
  return `There is no feed “${feed}” here. Try one of these: ${names.slice(0, NAMED).join(", ")}${more}.`;
}

/**
 * The visitor may press Start.
 * @param {string} [words]
 */
function ready(words = READY) {
  if (layout.look === undefined) decide(layout.logAsked ? "live" : "");
  if (view.panel.state !== "idle" || !view.panel.start.disabled) return;
  view.panel.start.disabled = false;
  view.panel.setState("idle", words);
}

/** Several feeds are a log, whatever each of them is. */
function kind() {
  return picker.feeds.length > 1 ? "live" : kinds.get(picker.feed) ?? "";
}

/** @param {string} [unknown] what a feed is taken for that the server does not list */
function decide(unknown = "") {
  layout.decide(kind() || unknown, picker.feeds.join(", "));
}

/** Whether the feed is to be followed without a word of the visitor's. */
function followed() {
  return layout.look === "log" && (kind() === "live" || layout.logAsked);
}

function start() {
  const { feeds } = picker;
  arrangement();
  input.anew();
  const shown = view.show(feeds, picker.columns, kinds.get(picker.feed) === "on-demand" ? () => typeOf(picker.feed) : undefined, addressOf(picker.feed)).map((events) => ({
    ...events,
    onInfo: showInfo,
    onOpen: (/** @type {Parameters<typeof events.onOpen>} */ ...how) => {
      events.onOpen(...how);
      input.anew();
    },
  }));
  running = group.start(feeds.map((feed) => ({
    choice: /** @type {import("../client/types.mjs").TransportChoice} */ (transport.value),
    feed,
    from: kinds.get(feed) !== "on-demand" || from.value === "start" ? from.value : "now",
  })), shown);
}

/** What is published goes to the feed that is chosen. */
function showForm() {
  const feed = told.find(({ name }) => name === picker.feed);
  // Among several, none is the one that a line is for.
  input.show(feed?.input === true && picker.feeds.length === 1);
  publish.show(picker.feed, feed?.writable === true && feed.state === "open" && picker.feeds.length === 1);
}

/** Another feed was chosen: it is read if the one before was, or if it is followed anyway. */
async function another() {
  showForm();
  listInAddress("feed", picker.named);
  decide();
  if (group.running || followed()) await again();
  else if (view.panel.state === "idle") view.panel.setState("idle", READY);
}

/**
 * The server's answer about a feed, without its chunks.
 * @param {string} feed
 */
async function asked(feed) {
  try {
    return await env.fetch(addressOf(feed), { method: "HEAD", cache: "no-store" });
  } catch {
    return undefined;
  }
}

/**
 * What the server says that a feed is.
 * @param {string} feed
 */
async function typeOf(feed) {
  const answer = await asked(feed);
  return (answer?.ok ? answer.headers.get("content-type") : null) ?? "";
}

/** Keeps in the address how several feeds are shown. */
function arrangement() {
  inAddress("arrange", picker.feeds.length > 1 && picker.columns ? "columns" : "merged", "merged");
}

/** Reads what is chosen now. */
async function again() {
  if (switching) return;
  switching = true;
  group.stop();
  await running;
  switching = false;
  if (!away) start();
}

/**
 * @param {import("../client/info.mjs").Info} info
 * @param {import("../client/feeds.mjs").FeedStatus[]} [first] what `/feeds` says, if a feed is yet to be chosen
 */
function showInfo(info, first) {
  const { version, feeds, chrome, status } = info;
  addressOf = (feed) => feedUrl(info, feed, env.href);
  byId("version", HTMLElement).textContent = `h3cast ${version}`;
  byId("status-page", HTMLElement).hidden = !status;
  picker.list(feeds, first);
  kinds = new Map(feeds.map(({ name, kind }) => [name, kind]));
  if (feeds.length > 0 || layout.logAsked) decide();
  if (chrome !== "") byId("chrome-command", HTMLElement).textContent = chrome;
  byId("chrome", HTMLElement).hidden = chrome === "";
}
