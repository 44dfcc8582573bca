// @ts-check
import { wireCopyButtons } from "./copy.mjs";
import { browserEnv } from "./env.mjs";
import { noWebTransport } from "./errors.mjs";
import { loadInfo } from "./info.mjs";
import { View } from "./view.mjs";
import { Viewer } from "./viewer.mjs";

/**
 * Brings a page to life that shows one transport by itself. The address may say `?feed=NAME` and
 * `?autostart=1`.
 *
 * @param {import("./types.mjs").Transport} transport
 */
export function startPage(transport) {
  const env = browserEnv();
  const query = new URL(env.href).searchParams;
  const feed = query.get("feed") || "default";
  const view = new View();
  /** @param {import("./info.mjs").Info} info */
  const showInfo = (info) => {
    const version = document.getElementById("version");
    if (version !== null) version.textContent = `h3cast ${info.version}`;
  };
  const viewer = new Viewer(env, { ...view.events, onInfo: showInfo });

  view.panel.start.addEventListener("click", () => viewer.start(transport, feed));
  view.panel.stop.addEventListener("click", () => viewer.stop());
  // A page kept for the Back button must not keep reading.
  addEventListener("pagehide", () => viewer.stop());
  view.panel.start.disabled = false;
  wireCopyButtons();

  noticeWebTransport(env);

  if (query.get("autostart") === "1") {
    viewer.start(transport, feed);
  } else {
    loadInfo(env).then(({ info }) => showInfo(info), (error) => view.panel.showError(error));
  }
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
