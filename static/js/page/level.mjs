// @ts-check
/**
 * How bad a log line is, as the usual formats have it: JSON (`"level":"warn"`, pino's and bunyan's numbers), logfmt
 * (`level=warn`), syslog (`<4>`), glog (`W0312 …`), and words where loggers put them.
 *
 * @typedef {"trace" | "debug" | "info" | "warn" | "error" | "fatal"} Level
 */

/** From the mildest. @type {readonly Level[]} */
const ORDER = ["trace", "debug", "info", "warn", "error", "fatal"];

/** @type {Record<string, Level>} */
const NAMES = {
  trace: "trace", trc: "trace", verbose: "trace",
  debug: "debug", dbg: "debug", debu: "debug",
  info: "info", inf: "info", information: "info", notice: "info",
  warn: "warn", warning: "warn", wrn: "warn",
  error: "error", err: "error", eror: "error", severe: "error",
  fatal: "fatal", ftl: "fatal", critical: "fatal", crit: "fatal", panic: "fatal", alert: "fatal", emerg: "fatal", emergency: "fatal",
};

/** Where a line says its level, if it does: further on, a word is a word. */
const HEAD = 160;
const FIELD = /["']?\b(?:level|lvl|severity|log\.level|levelname)["']?\s*[=:]\s*["']?(\w+)/i;
/** Capitals, for “no error” is a sentence; or set off by brackets, or at the start of the line and followed by a colon. */
const WORD = /\b(TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|ERR|SEVERE|FATAL|CRITICAL|CRIT|PANIC|ALERT|EMERG)\b|[[(<](trace|debug|info|notice|warn|warning|error|err|fatal|critical|crit|panic)[\])>]|^\s*(?:\S+: )?([Dd]ebug|[Ii]nfo|[Nn]otice|[Ww]arning|[Ww]arn|[Ee]rror|[Ff]atal|[Pp]anic)(?::|\[)/;
const SYSLOG = /^<(\d{1,3})>/;
/** @type {readonly Level[]} */
const SYSLOG_LEVELS = ["fatal", "fatal", "fatal", "error", "warn", "info", "info", "debug"];
/** @type {Record<string, Level>} */
const GLOG_LEVELS = { I: "info", W: "warn", E: "error", F: "fatal" };
const GLOG = /^([IWEF])\d{4} \d\d:\d\d:\d\d/;

/**
 * @param {string} text without escapes
 * @returns {Level | undefined} undefined: it does not say
 */
export function levelOf(text) {
  const head = text.slice(0, HEAD);
  const field = FIELD.exec(text.startsWith("{") ? text.slice(0, 2000) : head);
  if (field !== null) {
    const found = levelNamed(field[1] ?? "");
    if (found !== undefined) return found;
  }
  const syslog = SYSLOG.exec(head);
  if (syslog !== null) return SYSLOG_LEVELS[Number(syslog[1]) % 8];
  const glog = GLOG.exec(head);
  if (glog !== null) return GLOG_LEVELS[glog[1] ?? ""];
  const word = WORD.exec(head);
  if (word === null) return undefined;
  return levelNamed(word[1] ?? word[2] ?? word[3] ?? "");
}

/**
 * @param {string} name
 * @returns {Level | undefined}
 */
export function levelNamed(name) {
  const number = Number(name);
  // pino and bunyan: 10 to 60.
  if (name !== "" && number >= 10 && number <= 60) return ORDER[Math.floor(number / 10) - 1];
  return Object.hasOwn(NAMES, name.toLowerCase()) ? NAMES[name.toLowerCase()] : undefined;
}

/**
 * @param {Level | undefined} level
 * @param {Level} least
 */
export function atLeast(level, least) {
  return level !== undefined && ORDER.indexOf(level) >= ORDER.indexOf(least);
}
