// @ts-check
import { badLine } from "./chat-errors.mjs";
import { count } from "../client/format.mjs";

/** The longest message and the longest name that the server takes, in bytes of UTF-8. */
export const MAX_TEXT = 4096;
export const MAX_NAME = 64;

/** The longest line that is read, in characters: a message of control characters, each six in JSON, and its frame. */
const MAX_LINE = 8 * MAX_TEXT;

/**
 * What the server tells, one line of JSON each.
 * @typedef {{ kind: "message", from: string, text: string, at: number }} Message
 * @typedef {{ kind: "joined" | "left", name: string, at: number }} Move
 * @typedef {{ kind: "missed", lines: number, at: number }} Missed this reader was too slow
 * @typedef {Message | Move | Missed} Line
 */

/** Cuts text into lines, wherever the network has cut it. Holds at most one line. */
export class Lines {
  #rest = "";

  /**
   * @param {string} text
   * @returns {string[]} the lines that are whole, without their ends
   */
  push(text) {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    if (this.#rest.length > MAX_LINE) throw badLine(`it has more than ${count(MAX_LINE)} characters`);
    return lines;
  }
}

/**
 * @param {string} line
 * @returns {Line | null} null: a kind of a later version
 */
export function parseLine(line) {
  /** @type {any} */
  let value;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw badLine("it is not JSON", cause);
  }
  if (typeof value !== "object" || value === null) throw badLine("it is not an object");
  const { from, text, joined, left, missed, at } = value;
  if (typeof at !== "number") throw badLine("it has no time");
  if (typeof from === "string" && typeof text === "string") return { kind: "message", from, text, at };
  if (typeof joined === "string") return { kind: "joined", name: joined, at };
  if (typeof left === "string") return { kind: "left", name: left, at };
  if (typeof missed === "number") return { kind: "missed", lines: missed, at };
  return null;
}

/** @param {string} text */
const size = (text) => new TextEncoder().encode(text).length;

/**
 * @param {string} name
 * @returns {string} what is wrong with it, or ""
 */
export function nameProblem(name) {
  const trimmed = name.trim();
  if (trimmed === "") return "Type a name first.";
  if (/\p{Cc}/u.test(trimmed)) return "A name cannot have control characters.";
  const bytes = size(trimmed);
  return bytes > MAX_NAME ? `This name has ${bytes} bytes, and a name may have ${MAX_NAME}. Choose a shorter one.` : "";
}

/**
 * @param {string} text
 * @returns {string} what is wrong with it, or ""
 */
export function textProblem(text) {
  if (text === "") return "Type a message first.";
  if (text.includes("\n")) return "A message is one line.";
  const bytes = size(text);
  return bytes > MAX_TEXT ? `This message has ${count(bytes)} bytes, and one may have ${count(MAX_TEXT)}. Shorten it.` : "";
}
