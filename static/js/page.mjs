// @ts-check
import { wireCopyButtons } from "./copy.mjs";
import { browserEnv } from "./env.mjs";
import { noFeeds, noWebTransport } from "./errors.mjs";
import { chosenFeed, feedUrl, loadInfo } from "./info.mjs";
import { View } from "./view.mjs";
import { Viewer } from "./viewer.mjs";

/**
 * Brings a page to life that shows one transport by itself. The address may say `?feed=NAME` and
 * `?autostart=1`. Without a name it is the default feed, or else the first that there is.
 *
 * @param {import("./types.mjs").Transport} transport
 */
export function startPage(transport) {
  const env = browserEnv();
  const query = new URL(env.href).searchParams;
  const wanted = query.get("feed") ?? "";
  const view = new View();
  /** @param {import("./info.mjs").Info} info */
  const showInfo = (info) => {
    const version = document.getElementById("version");
    if (version !== null) version.textContent = `h3cast ${info.version}`;
    const feed = chosenFeed(info, wanted);
    if (feed !== "" && feed !== "default") showNamed(feed, new URL(feedUrl(info, feed, env.href)).pathname);
  };
  const viewer = new Viewer(env, { ...view.events, onInfo: showInfo });

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

/**
 * Makes the page speak of the feed that it reads, when that is not the default one.
 * @param {string} feed
 * @param {string} path
 */
function showNamed(feed, path) {
  const title = document.getElementById("panel-title");
  if (title !== null) {
    title.textContent = `Read the feed “${feed}”`;
    title.classList.remove("unseen");
  }
  const raw = document.querySelector('footer a[href="stream"]');
  if (raw !== null) raw.setAttribute("href", path);
  const snippet = document.getElementById("snippet");
  if (snippet?.textContent == null) return;
  snippet.textContent = snippet.textContent
    .replace('fetch("/stream"', () => `fetch(${JSON.stringify(path)}`)
    .replace("new WebTransport(url,", () => `new WebTransport(new URL(${JSON.stringify(path)}, url),`);
}

/**
 * Says so where the browser has no WebTransport.
 * @param {import("./types.mjs").Env} env
 */
export function noticeWebTransport(env) {
  const notice = document.getElementById("no-webtransport");
  if (notice === null || env.WebTransport !== undefined) return;
  const { message, steps } = noWebTransport(env.isSecureContext);
  notice.textContent = [message, ...steps].join(" ");
  notice.hidden = false;
}
