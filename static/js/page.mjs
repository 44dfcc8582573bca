// @ts-check
import { wireCopyButtons } from "./copy.mjs";
import { browserEnv } from "./env.mjs";
import { noWebTransport } from "./errors.mjs";
import { loadInfo } from "./info.mjs";
import { View } from "./view.mjs";
import { Viewer } from "./viewer.mjs";

/** @typedef {import("./types.mjs").TransportChoice} TransportChoice */

/**
 * Brings a page to life. The address may say `?feed=NAME` and `?autostart=1`.
 *
 * @param {object} options
 * @param {() => TransportChoice} options.choice which transport to use, asked at every start
 * @param {(info: import("./info.mjs").Info) => void} [options.onInfo]
 */
export function startPage({ choice, onInfo = () => {} }) {
  const env = browserEnv();
  const query = new URL(env.href).searchParams;
  const feed = query.get("feed") || "default";
  const view = new View();
  /** @param {import("./info.mjs").Info} info */
  const showInfo = (info) => {
    const version = document.getElementById("version");
    if (version !== null) version.textContent = `h3cast ${info.version}`;
    onInfo(info);
  };
  const viewer = new Viewer(env, { ...view.events, onInfo: showInfo });

  view.start.addEventListener("click", () => viewer.start(choice(), feed));
  view.stop.addEventListener("click", () => viewer.stop());
  // A page kept for the Back button must not keep reading.
  addEventListener("pagehide", () => viewer.stop());
  view.start.disabled = false;
  wireCopyButtons();

  const notice = document.getElementById("no-webtransport");
  if (notice !== null && env.WebTransport === undefined) {
    const { message, steps } = noWebTransport(env.isSecureContext);
    notice.textContent = [message, ...steps].join(" ");
    notice.hidden = false;
  }

  if (query.get("autostart") === "1") {
    viewer.start(choice(), feed);
  } else {
    loadInfo(env).then(({ info }) => showInfo(info), (error) => view.showError(error));
  }
}
