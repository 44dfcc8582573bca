// @ts-check
import { asClientError, feedFailed, noWebTransport, noneShown, noFeeds, notOffered, ClientError, tokenNeeded } from "../client/errors.mjs";
import { failureOf } from "../client/feeds.mjs";
import { askFirst } from "../client/fetch-source.mjs";
import { plural } from "../client/format.mjs";
import { chosenFeed, feedUrl, loadInfo, sessionUrl, withQuery } from "../client/info.mjs";
import { shown } from "../client/open-feed.mjs";
import { commandForHere } from "./chrome-command.mjs";
import { Lane } from "./compare-lane.mjs";
import { SharedPlot, WINDOW_MS } from "./compare-plot.mjs";
import { byDatagrams, byEvents, byFetch, byStream } from "./compare-runs.mjs";
import { chooseWays, named, probe, whyNoHttp3 } from "./compare-ways.mjs";
import { wireCopyButtons } from "./copy.mjs";
import { browserEnv } from "./env.mjs";
import { byId, fillError } from "./panel.mjs";
import { inAddress } from "./prefs.mjs";
import { Renewals } from "./renewals.mjs";
import { askForToken } from "./token-form.mjs";

/** @typedef {import("../client/info.mjs").Info} Info */
/** @typedef {import("./compare-ways.mjs").Way} Way */
/** @typedef {{ run: (run: import("./compare-runs.mjs").Run) => Promise<void>, url: string, way: Way | null }} Plan */

const DRAW_MS = 100;
const SETTINGS = ["rate", "size", "burst"];
/** The most chunks that a viewer may ask a demo feed for. */
const MOST = 1_000_000;

const env = browserEnv();
if (env.token !== undefined) env.token.ask = askForToken;
const renewals = new Renewals(env);
const query = new URL(env.href).searchParams;
const start = byId("start", HTMLButtonElement);
const stop = byId("stop", HTMLButtonElement);
const status = byId("status", HTMLElement);
const errorBox = byId("error", HTMLElement);
const form = byId("settings", HTMLFormElement);
const seconds = byId("seconds", HTMLSelectElement);
const canvas = byId("axis", HTMLCanvasElement);
const plot = new SharedPlot(canvas, byId("scale", HTMLElement));
const template = byId("lane", HTMLTemplateElement);
const list = byId("lanes", HTMLElement);
const lane = (/** @type {string} */ id, /** @type {string} */ name) => new Lane(template, list, id, name);
const lanes = {
  h3: lane("fetch-h3", "fetch over HTTP/3"),
  tcp: lane("fetch-tcp", "fetch over HTTP/2 or 1.1"),
  events: lane("eventsource", "EventSource"),
  stream: lane("wt-stream", "WebTransport stream"),
  datagrams: lane("wt-datagrams", "WebTransport datagrams"),
};
const all = Object.values(lanes);
/** @type {AbortController | undefined} */
let running;
/** Whether anything has been started since the page was opened. */
let started = false;
let startedAt = 0;

for (const id of [...SETTINGS, "seconds"]) {
  const control = /** @type {HTMLInputElement | HTMLSelectElement} */ (form.elements.namedItem(id));
  const usual = control.value;
  const asked = query.get(id);
  // A link may ask for any time.
  if (id === "seconds" && Number(asked) > 0) withTime(asked ?? "");
  if (asked !== null) control.value = asked;
  if (control.value === "") control.value = usual;
  control.addEventListener("change", () => inAddress(id, control.value, usual));
}
form.addEventListener("submit", (event) => {
  event.preventDefault();
  void startAll();
});
stop.addEventListener("click", () => running?.abort());
// A page kept for the Back button must not keep reading.
addEventListener("pagehide", () => running?.abort());
wireCopyButtons();
start.disabled = false;
say("idle", "Ready. Press Start all.");
draw();
if (query.get("autostart") === "1") void startAll();
else void look();

/** Has the list of times include another. @param {string} time in seconds */
function withTime(time) {
  if (![...seconds.options].some(({ value }) => value === time)) seconds.add(new Option(plural(Number(time), "second"), time));
}

/** What can run here is known before anything is started. */
async function look() {
  try {
    const { info, protocol } = await loadInfo(env);
    if (started) return;
    showInfo(info);
    const probed = await probe(env, info, protocol);
    // What runs, or has run, says more.
    if (started) return;
    plans(info, probed);
    draw();
  } catch (cause) {
    if (started) return;
    const error = asClientError(cause);
    fillError(errorBox, error, "Press Start all to try again.");
    await renewed(error);
  }
}

async function startAll() {
  if (running !== undefined) return;
  const { signal } = (running = new AbortController());
  started = true;
  /** @type {ClientError | undefined} */
  let failed;
  errorBox.hidden = true;
  toggle(true);
  say("connecting", "Connecting…");
  for (const each of all) each.set("idle");
  const timer = setInterval(draw, DRAW_MS);
  try {
    const { info, protocol } = await loadInfo(env, signal);
    showInfo(info);
    const feed = chosenFeed(info, query.get("feed") ?? "");
    // One answer in words is better than five.
    if (feed !== "" && !info.feeds.some(({ name }) => name === feed)) await askFirst({ url: feedUrl(info, feed, env.href), signal, env });
    const probed = await probe(env, info, protocol);
    signal.throwIfAborted();
    const planned = plans(info, probed);
    renewals.reset();
    startedAt = env.performance.now();
    say("streaming", `Running: ${planned.length} of ${all.length} transports.`);
    await Promise.all(planned.map((begin) => begin(signal)));
    say(...summary(signal));
  } catch (cause) {
    if (signal.aborted) {
      say("stopped", "Stopped.");
    } else {
      failed = asClientError(cause);
      fillError(errorBox, failed, "Press Start all to try again.");
      say("error", "Failed: see below.");
    }
  } finally {
    clearInterval(timer);
    draw();
    running = undefined;
    toggle(false);
  }
  if (failed !== undefined) await renewed(failed);
}

/**
 * Starts once more with another token, if that is what was missing and the visitor has one.
 * @param {ClientError} error
 */
async function renewed(error) {
  if (!error.needsToken && !error.otherToken) return;
  const over = new AbortController();
  start.addEventListener("click", () => over.abort(), { signal: over.signal });
  if (await renewals.renew(error, over.signal)) await startAll();
}

/**
 * How each transport would be read here. Those that cannot run say so.
 * @param {Info} info
 * @param {{ own: Way, other: Way | null }} probed
 * @returns {((signal: AbortSignal) => Promise<void>)[]}
 */
function plans(info, probed) {
  const feed = chosenFeed(info, query.get("feed") ?? "");
  if (info.auth !== null && !info.auth.token && info.feeds.length === 0) throw noneShown();
  if (feed === "") throw noFeeds();
  const known = info.feeds.find(({ name }) => name === feed);
  if (known === undefined && info.auth !== null && !info.auth.token) throw tokenNeeded(feed);
  const adjustable = known?.settings.includes("rate") ?? false;
  form.toggleAttribute("data-fixed", !adjustable);
  const settings = adjustable ? asked() : {};
  const base = known?.kind === "on-demand" ? 0 : null;
  const ways = chooseWays(probed);
  const path = new URL(feedUrl(info, feed, env.href));
  /** @param {Way} way @param {string} format */
  const url = (way, format) => withQuery(way.origin + path.pathname + path.search, { ...settings, format });
  /** @type {((signal: AbortSignal) => Promise<void>)[]} */
  const found = [];
  /**
   * @param {Lane} on
   * @param {Way | null} way null: a session
   * @param {(run: import("./compare-runs.mjs").Run) => Promise<void>} run
   * @param {(signal: AbortSignal) => Promise<string>} where
   */
  const add = (on, way, run, where) => {
    if (way === null) on.showProtocol("–", "the browser reports none; a session always runs on HTTP/3");
    else on.showProtocol(named(way.protocol), `until this request ends, as for /info from ${new URL(way.origin).host}`);
    on.set("idle");
    found.push((signal) => race(on, run, where, { feed, base, stamped: adjustable, signal }));
  };

  if (ways.h3 === null) lanes.h3.refuse(noHttp3(whyNoHttp3(probed), info.chrome !== ""));
  else add(lanes.h3, ways.h3, byFetch, at(url(ways.h3, "frames")));
  if (ways.tcp === null) lanes.tcp.refuse(noTcp(probed.own));
  else add(lanes.tcp, ways.tcp, byFetch, at(url(ways.tcp, "frames")));
  if ((env.token?.value ?? "") !== "") lanes.events.refuse(new ClientError("EventSource cannot send a token.", []));
  else add(lanes.events, ways.best, (run) => byEvents({ ...run, EventSource }), at(url(ways.best, "sse")));

  const { webtransport } = info;
  for (const on of [lanes.stream, lanes.datagrams]) {
    if (env.WebTransport === undefined) on.refuse(noWebTransport(env.isSecureContext));
    else if (webtransport === null) on.refuse(notOffered());
    else {
      const { certificateHashes } = webtransport;
      const bare = sessionUrl({ ...info, webtransport }, feed, env.href);
      const more = on === lanes.stream ? { format: "frames" } : { delivery: "datagrams" };
      const onTooLong = (/** @type {number} */ chunks) => on.showTooLong(chunks);
      add(
        on, null,
        (run) => (on === lanes.stream ? byStream({ ...run, certificateHashes }) : byDatagrams({ ...run, certificateHashes, onTooLong })),
        (signal) => shown(env, info, withQuery(bare, { ...settings, ...more }), signal),
      );
    }
  }
  const command = byId("chrome", HTMLElement);
  command.hidden = info.chrome === "" || ways.h3 !== null;
  byId("chrome-command", HTMLElement).textContent = commandForHere(info.chrome, env.href);
  return found;
}

/** @param {string} url */
function at(url) {
  return async () => url;
}

/**
 * Runs one of them. Never rejects.
 * @param {Lane} on
 * @param {(run: import("./compare-runs.mjs").Run) => Promise<void>} run
 * @param {(signal: AbortSignal) => Promise<string>} where
 * @param {{ feed: string, base: number | null, stamped: boolean, signal: AbortSignal }} options
 */
async function race(on, run, where, { feed, base, stamped, signal }) {
  const tally = on.begin(base);
  try {
    await run({
      env, signal, tally, stamped,
      url: await where(signal),
      onOpen: () => on.set("running"),
      onProtocol: (protocol) => on.showProtocol(protocol, "as the browser reports it for this request"),
    });
    on.set(signal.aborted ? "stopped" : "done");
  } catch (cause) {
    if (signal.aborted) return on.set("stopped");
    const error = asClientError(cause);
    // The feed's own failure in place of what the transport made of it.
    const reason = error.answered || error.permanent ? undefined : await failureOf(env, feed);
    on.fail(reason === undefined ? error : feedFailed(reason));
  }
}

/** What a demo feed is asked for. @returns {Record<string, string>} */
function asked() {
  const value = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ (form.elements.namedItem(id)).value;
  const set = Object.fromEntries(SETTINGS.map((id) => [id, value(id)]).filter(([, text]) => text !== ""));
  const count = Math.min(MOST, Number(seconds.value) * Number(set.rate ?? 10));
  return { ...set, count: String(Math.round(count) || 0) };
}

/**
 * @param {string} why
 * @param {boolean} command
 */
function noHttp3(why, command) {
  return new ClientError(why, [
    ...(command ? ["Start Chrome with the command that is shown here: it accepts the server's key and uses HTTP/3 from the first request."] : []),
    "With a trusted certificate, browsers switch to HTTP/3 on their own: reload the page once.",
  ]);
}

/** @param {Way} own */
function noTcp(own) {
  return new ClientError(`The browser reports ${named(own.protocol)} for ${own.origin}, where this page comes from, and uses one version of HTTP for each origin.`, [
    "Open this page over plain HTTP, at the http://localhost address that the server prints, with /compare.html: there, both can run.",
  ]);
}

/** @param {AbortSignal} signal @returns {[string, string]} */
function summary(signal) {
  if (signal.aborted) return ["stopped", "Stopped."];
  const done = all.filter(({ state }) => state === "done").length;
  const failed = all.filter(({ state }) => state === "failed").length;
  const not = all.length - done - failed;
  const parts = [`${done} of ${all.length} transports delivered the whole feed`];
  if (failed > 0) parts.push(`${failed} failed`);
  if (not > 0) parts.push(`${not} cannot run here`);
  return [failed > 0 ? "error" : "done", `${parts.join(", ")}.`];
}

function draw() {
  const rows = all.map(({ name, tally, state }) => ({ name, tally, idle: state === "unavailable" ? "cannot run here" : "nothing yet" }));
  const at = env.performance.now();
  // What has ended stays as it was.
  const last = Math.max(0, ...all.map(({ tally }) => tally?.points.at(-1)?.at ?? 0));
  plot.draw(rows, startedAt, running === undefined ? Math.max(last, startedAt) : at, Math.min(WINDOW_MS, Number(seconds.value) * 1000 || WINDOW_MS));
  for (const each of all) each.draw();
  canvas.setAttribute("aria-label", `Arrivals over time, for each transport. ${all.map((each) => each.words()).join(" ")}`);
}

/**
 * @param {string} state
 * @param {string} text announced by screen readers, so only at turning points
 */
function say(state, text) {
  status.textContent = text;
  status.dataset.state = state;
}

/** @param {boolean} isRunning */
function toggle(isRunning) {
  const focused = document.activeElement;
  start.disabled = isRunning;
  stop.disabled = !isRunning;
  if (focused === start && isRunning) stop.focus();
  if (focused === stop && !isRunning) start.focus();
}

/** @param {Info} info */
function showInfo({ version }) {
  byId("version", HTMLElement).textContent = `h3cast ${version}`;
}
