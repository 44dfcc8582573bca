// @ts-check
import { wireCopyButtons } from "./copy.mjs";
import { carriedBy } from "./carried.mjs";
import { commandForPage } from "./chrome-command.mjs";
import { browserEnv } from "./env.mjs";
import { noFeeds, noWebTransport } from "../client/errors.mjs";
import { chosenFeed, feedUrl, loadInfo } from "../client/info.mjs";
import { byId } from "./panel.mjs";
import { Renewals } from "./renewals.mjs";
import { snippetFor } from "./snippet.mjs";
import { askForToken } from "./token-form.mjs";
import { View } from "./view.mjs";
import { Viewer } from "./viewer.mjs";

/**
 * Brings a page to life that shows one transport by itself. The address may say `?feed=NAME` and
 * `?autostart=1`. Without a name it is the default feed, or else the first that there is.
 *
 * @param {import("../client/types.mjs").Transport} transport
 */
export function startPage(transport) {
  const env = browserEnv();
  if (env.token !== undefined) env.token.ask = askForToken;
  const query = new URL(env.href).searchParams;
  const wanted = query.get("feed") ?? "";
  const view = new View();
  /** @param {import("../client/info.mjs").Info} info */
  const showInfo = (info) => {
    const version = document.getElementById("version");
    if (version !== null) version.textContent = `h3cast ${info.version}`;
    showCommand(commandForPage(info.chrome, `${transport}.html`));
    const feed = chosenFeed(info, wanted);
    if (feed === "") return;
    const isDefault = feed === "default";
    const path = new URL(feedUrl(info, feed, env.href)).pathname;
    showPaths({ feed: path, isDefault, info: new URL("info", env.href).pathname });
    if (!isDefault) showNamed(feed);
  };
  const renewals = new Renewals(env);
  const viewer = new Viewer(env, {
    ...view.events,
    onInfo: showInfo,
    onOpen: (path) => {
      view.events.onOpen(path);
      byId("carried", HTMLElement).textContent = carriedBy(path);
    },
    onPath: (path) => {
      view.events.onPath(path);
      byId("carried", HTMLElement).textContent = carriedBy(path);
    },
    onChunk: (chunk) => {
      renewals.reset();
      view.events.onChunk(chunk);
    },
    onDone: (summary) => {
      renewals.reset();
      view.events.onDone(summary);
    },
    onError: (error) => {
      view.events.onError(error);
      if (error.needsToken || error.otherToken) void again(error);
    },
  });
  /**
   * Starts once more with another token, if the visitor has one.
   * @param {import("../client/errors.mjs").ClientError} error
   */
  async function again(error) {
    const over = new AbortController();
    view.panel.start.addEventListener("click", () => over.abort(), { signal: over.signal });
    addEventListener("pagehide", () => over.abort(), { signal: over.signal });
    if (await renewals.renew(error, over.signal)) viewer.start(transport, wanted);
  }

  view.panel.start.addEventListener("click", () => viewer.start(transport, wanted));
  view.panel.stop.addEventListener("click", () => viewer.stop());
  // A page kept for the Back button must not keep reading.
  addEventListener("pagehide", () => viewer.stop());
  view.panel.start.disabled = false;
  wireCopyButtons();

  noticeWebTransport(env);

  if (query.get("autostart") === "1") {
    viewer.start(transport, wanted);
  } else {
    loadInfo(env).then(({ info }) => {
      showInfo(info);
      if (chosenFeed(info, wanted) === "") view.panel.showError(noFeeds());
    }, (error) => view.panel.showError(error));
  }
}

/** @param {string} command that starts Chrome with this page over HTTP/3, or "" */
function showCommand(command) {
  byId("chrome-command", HTMLElement).textContent = command;
  byId("chrome", HTMLElement).hidden = command === "";
}

/**
 * Names the feed that the page reads, when that is not the default one.
 * @param {string} feed
 */
function showNamed(feed) {
  const title = document.getElementById("panel-title");
  if (title === null) return;
  title.textContent = `Read the feed “${feed}”`;
  title.classList.remove("unseen");
}

/**
 * Puts the paths that hold here into links, text and code: of another feed, or of a server that has all of this
 * under a prefix.
 * @param {{ feed: string, isDefault: boolean, info: string }} here
 */
function showPaths(here) {
  document.querySelector('footer a[href="stream"]')?.setAttribute("href", here.feed);
  for (const element of document.querySelectorAll("[data-path]")) {
    element.textContent = element.getAttribute("data-path") === "info" ? here.info : here.feed;
  }
  const snippet = document.getElementById("snippet");
  if (snippet?.textContent == null) return;
  snippet.textContent = snippetFor(snippet.textContent, here);
}

/**
 * Says so where the browser has no WebTransport.
 * @param {import("../client/types.mjs").Env} env
 */
export function noticeWebTransport(env) {
  const notice = document.getElementById("no-webtransport");
  if (notice === null || env.WebTransport !== undefined) return;
  const { message, steps } = noWebTransport(env.isSecureContext);
  notice.textContent = [message, ...steps].join(" ");
  notice.hidden = false;
}
