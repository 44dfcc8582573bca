// @ts-check
/** Numbers and times as the status page writes them. */
import { count, plural, size } from "../client/format.mjs";

const UNITS = /** @type {const} */ ([["day", 86_400], ["hour", 3600], ["minute", 60], ["second", 1]]);

/**
 * A time in its two largest units: "3 days 4 hours".
 * @param {number} seconds
 */
export function duration(seconds) {
  let left = Math.max(0, Math.floor(seconds));
  const first = UNITS.findIndex(([, length]) => left >= length);
  if (first === -1) return "0 seconds";
  const parts = [];
  for (const [name, length] of UNITS.slice(first, first + 2)) {
    const whole = Math.floor(left / length);
    left -= whole * length;
    if (whole > 0) parts.push(plural(whole, name));
  }
  return parts.join(" ");
}

/**
 * How far a moment is: "in 12 days 3 hours", "2 hours ago".
 * @param {number} at milliseconds since 1970
 * @param {number} now
 */
export function distance(at, now) {
  const seconds = Math.abs(at - now) / 1000;
  return at >= now ? `in ${duration(seconds)}` : `${duration(seconds)} ago`;
}

/**
 * A moment in the reader's time zone: "8 Dec 2026, 22:31".
 * @param {number} at milliseconds since 1970
 */
export function moment(at) {
  return new Date(at).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

/** @param {number} at milliseconds since 1970 */
export function clock(at) {
  return new Date(at).toLocaleTimeString("en-GB");
}

/**
 * A delay, as short as it may be.
 * @param {number} seconds
 */
export function delay(seconds) {
  if (seconds < 0.0005) return "0 ms";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  return seconds < 60 ? `${seconds.toFixed(1)} s` : duration(seconds);
}

/** @param {number} bytes in a second */
export function byteRate(bytes) {
  return `${size(Math.round(bytes))}/s`;
}

/**
 * A number of something in a second, which may be less than one.
 * @param {number} value
 */
export function perSecond(value) {
  if (value === 0) return "0/s";
  if (value < 0.1) return "< 0.1/s";
  return value < 10 ? `${value.toFixed(1)}/s` : `${count(Math.round(value))}/s`;
}

/**
 * @param {number} part
 * @param {number} whole
 */
export function percent(part, whole) {
  if (whole <= 0) return "–";
  const value = (part / whole) * 100;
  return value > 0 && value < 1 ? "< 1 %" : `${Math.round(value)} %`;
}
