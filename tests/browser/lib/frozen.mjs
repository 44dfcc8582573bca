// A page that stands still, because its browser has suspended the tab, or its computer the browser.
import { readFileSync, readdirSync } from 'node:fs';

/** What a browser calls the processes that run pages. */
const PAGES = /(--type=renderer|-contentproc\b.*\btab)\b/;

/** @param {number} pid @returns {number[]} its child processes, and theirs */
function below(pid) {
  /** @type {Map<number, number[]>} */
  const children = new Map();
  for (const name of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const parent = Number(readFileSync(`/proc/${name}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ')[1]);
      children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
    } catch {} // it has ended
  }
  const found = [pid];
  for (let i = 0; i < found.length; i += 1) found.push(...(children.get(/** @type {number} */ (found[i])) ?? []));
  return found.slice(1);
}

/**
 * Stops every process of this browser that runs pages, or all of it.
 * @param {import('puppeteer-core').Browser} browser
 * @param {{ whole?: boolean }} [options]
 * @returns {() => void} lets them run again
 */
export function freeze(browser, { whole = false } = {}) {
  const pid = browser.process()?.pid;
  if (pid === undefined) throw new Error('the browser is no process of ours');
  const stopped = whole ? [pid, ...below(pid)] : below(pid).filter((child) => {
    try {
      return PAGES.test(readFileSync(`/proc/${child}/cmdline`, 'utf8').replaceAll('\0', ' '));
    } catch {
      return false;
    }
  });
  if (stopped.length === 0) throw new Error('the browser has no process that runs pages');
  for (const child of stopped) process.kill(child, 'SIGSTOP');
  return () => {
    for (const child of stopped) {
      try {
        process.kill(child, 'SIGCONT');
      } catch {} // it has ended
    }
  };
}
