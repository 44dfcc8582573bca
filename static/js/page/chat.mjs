// @ts-check
import { batch, browserClock } from "./batch.mjs";
import { Chat, wayName } from "./chat-client.mjs";
import { noChat } from "./chat-errors.mjs";
import { nameProblem, textProblem } from "./chat-lines.mjs";
import { hasChat } from "./chat-link.mjs";
import { wireCopyButtons } from "./copy.mjs";
import { browserEnv } from "./env.mjs";
import { asClientError } from "../client/errors.mjs";
import { noLonger, plural } from "../client/format.mjs";
import { loadInfo } from "../client/info.mjs";
import { Keep } from "./keep.mjs";
import { byId, fillError } from "./panel.mjs";

/** @typedef {import("./chat-lines.mjs").Line} Line */
/** @typedef {import("./chat-client.mjs").Way} Way */
/** @typedef {import("../client/types.mjs").State} State */

const env = browserEnv();
const query = new URL(env.href).searchParams;
const choice = query.get("transport") === "fetch" ? "fetch" : "auto";

const who = byId("who", HTMLFormElement);
const name = byId("name", HTMLInputElement);
const join = byId("join", HTMLButtonElement);
const leave = byId("leave", HTMLButtonElement);
const say = byId("say", HTMLFormElement);
const message = byId("message", HTMLInputElement);
const send = byId("send", HTMLButtonElement);
const status = byId("status", HTMLElement);
const error = byId("error", HTMLElement);
const protocol = byId("protocol", HTMLElement);
const why = byId("why", HTMLElement);
const log = byId("log", HTMLElement);
const note = byId("log-note", HTMLElement);

/** Under which name this page is in the chat. */
let me = "";
const keep = new Keep();
/** @type {Line[]} */
let pending = [];
const draw = batch(drawLines, browserClock());

const chat = new Chat(env, {
  onConnecting() {
    keep.clear();
    pending = [];
    log.replaceChildren();
    // What was said before is there to be read, not to be read out.
    log.setAttribute("aria-live", "off");
    note.hidden = true;
    error.hidden = true;
    showWay(undefined, "");
    setState("connecting", "Connecting…");
  },
  onOpen(way, reason) {
    showWay(way, reason);
    setState("streaming", `You are in the chat as ${me}.`);
    message.focus();
  },
  onWay: (way) => showWay(way, why.textContent ?? ""),
  onLine(line) {
    pending.push(line);
    draw.schedule();
    if (line.kind !== "joined" || line.name !== me) return;
    draw.flush();
    log.setAttribute("aria-live", "polite");
  },
  onLeft() {
    draw.flush();
    setState("stopped", "You have left the chat.");
  },
  onLost(problem) {
    draw.flush();
    join.textContent = "Reconnect";
    fillError(error, problem);
    setState("error", "Not connected: see below.");
  },
});

who.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!accepted(name, nameProblem(name.value))) return;
  me = name.value.trim();
  chat.join(me, choice);
});
say.addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = message.value;
  if (!accepted(message, textProblem(text))) return;
  message.value = "";
  error.hidden = true;
  try {
    await chat.send(text);
  } catch (cause) {
    // Not to be typed again, unless something else has been begun.
    if (message.value === "") message.value = text;
    fillError(error, asClientError(cause));
  }
});
leave.addEventListener("click", () => chat.leave());
for (const field of [name, message]) field.addEventListener("input", () => field.setCustomValidity(""));
// A page kept for the Back button must not stay in the chat.
addEventListener("pagehide", () => chat.leave());

name.value = query.get("name") ?? name.value;
const { origin, protocol: scheme } = new URL(env.href);
const curl = scheme === "https:" ? "curl --cacert certs/cert.pem" : "curl";
byId("terminal", HTMLElement).textContent =
  `${curl} -N "${origin}/chat?name=curl"\n${curl} -d "hello" "${origin}/chat?name=curl"`;
wireCopyButtons();
prepare();

/** Finds out whether there is a chat to join. */
async function prepare() {
  try {
    const [{ info }, found] = await Promise.all([loadInfo(env), hasChat(env)]);
    byId("version", HTMLElement).textContent = `h3cast ${info.version}`;
    if (!found) {
      fillError(error, noChat());
      status.textContent = "There is no chat here.";
      status.dataset.state = "error";
      return;
    }
    setState("idle", "Type a name and press Join.");
  } catch (cause) {
    fillError(error, asClientError(cause));
    setState("error", "The server does not answer: see below.");
  }
}

/**
 * Says what is wrong with a field, beside it.
 * @param {HTMLInputElement} field
 * @param {string} problem
 */
function accepted(field, problem) {
  field.setCustomValidity(problem);
  return field.reportValidity();
}

/**
 * @param {State} state
 * @param {string} text announced by screen readers
 */
function setState(state, text) {
  const joined = state === "streaming";
  const out = !joined && state !== "connecting";
  // The keyboard's place must not be lost with what it was on.
  const focused = document.activeElement;
  name.disabled = join.disabled = !out;
  leave.disabled = out;
  message.disabled = send.disabled = !joined;
  if ((focused === join || focused === name) && !out) leave.focus();
  if ((focused === leave || focused === message || focused === send) && out) join.focus();
  if (state === "stopped" || joined) join.textContent = "Join";
  status.textContent = text;
  status.dataset.state = state;
}

/**
 * @param {Way | undefined} way
 * @param {string} reason
 */
function showWay(way, reason) {
  protocol.textContent = way === undefined ? "–" : wayName(way);
  protocol.dataset.transport = way?.transport ?? "";
  protocol.dataset.protocol = way?.protocol ?? "";
  why.textContent = reason;
}

function drawLines() {
  const following = log.scrollHeight - log.scrollTop - log.clientHeight < 24;
  for (const line of pending) {
    const drop = keep.add(line.kind === "message" ? line.text.length : 0);
    log.append(row(line));
    for (let i = 0; i < drop; i += 1) log.firstElementChild?.remove();
  }
  pending = [];
  if (following) log.scrollTop = log.scrollHeight;
  note.hidden = keep.dropped === 0;
  note.textContent = `The latest ${plural(keep.rows, "line")}. ${noLonger(keep.dropped, "older one")}`;
}

/** @param {Line} line */
function row(line) {
  const element = document.createElement("div");
  element.className = "line";
  element.dataset.kind = line.kind;
  const time = document.createElement("time");
  const at = new Date(line.at);
  // No date at all has no ISO form.
  if (!Number.isNaN(at.getTime())) time.dateTime = at.toISOString();
  time.textContent = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  if (line.kind === "message") {
    element.dataset.from = line.from;
    element.dataset.text = line.text;
    element.dataset.own = String(line.from === me);
    element.append(part("bdi", "from", line.from), " ", time, " ", part("span", "text", line.text));
  } else if (line.kind === "missed") {
    element.dataset.lines = String(line.lines);
    element.append(time, ` ${plural(line.lines, "line")} missed here: this connection was too slow for the chat.`);
  } else {
    element.dataset.from = line.name;
    element.append(time, " ", part("bdi", "from", line.name), ` ${line.kind}.`);
  }
  return element;
}

/**
 * @param {string} tag
 * @param {string} className
 * @param {string} text whatever anybody wrote: shown, never interpreted
 */
function part(tag, className, text) {
  const element = document.createElement(tag);
  element.className = className;
  element.dir = "auto";
  element.textContent = text;
  return element;
}
