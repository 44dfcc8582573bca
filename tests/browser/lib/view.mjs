// What a person would see and do on h3cast's page, for either browser.
import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { ARTIFACTS } from './server.mjs';

const WAIT_MS = 60_000;

/** @typedef {{ bytes: number, at: number, text: string }} Read one `read()` of the page's reader */

export class View {
  /** @type {string[]} console errors and uncaught exceptions since the page was opened */
  errors = [];

  /** @param {import('puppeteer-core').Page} page */
  constructor(page) {
    this.page = page;
  }

  /** Collects everything that the page does wrong. Call before the first navigation. */
  async watch() {
    this.page.on('console', (message) => {
      if (['error', 'warn', 'warning'].includes(message.type())) {
        this.errors.push(`${message.type()}: ${message.text()} ${message.location()?.url ?? ''}`);
      }
    });
    this.page.on('pageerror', (error) => this.errors.push(`uncaught: ${error}`));
    await this.page.evaluateOnNewDocument(() => {
      /** @type {any} */ (globalThis).cspViolations = [];
      document.addEventListener('securitypolicyviolation', (event) => {
        /** @type {any} */ (globalThis).cspViolations.push(`${event.violatedDirective}: ${event.blockedURI}`);
      });
    });
  }

  /**
   * Asserts that nothing went wrong on the page so far.
   * @param {RegExp} [but] what the browser itself says of requests that were meant to fail
   */
  async assertClean(but) {
    const csp = await this.page.evaluate(() => /** @type {any} */ (globalThis).cspViolations);
    assert.deepEqual(csp, [], 'Content-Security-Policy violations');
    assert.deepEqual(this.errors.filter((error) => !but?.test(error)), [], 'console errors');
  }

  /**
   * Waits until `condition` holds in the page, looking again at every change of the document.
   * @template A
   * @param {string} what what is waited for, in words
   * @param {(argument: A) => unknown} condition runs in the page
   * @param {A} [argument]
   * @param {number} [ms]
   */
  async until(what, condition, argument, ms = WAIT_MS) {
    const source = `new Promise((resolve) => {
      const condition = ${condition};
      const argument = ${JSON.stringify(argument) ?? 'undefined'};
      const finish = (held) => { observer.disconnect(); clearTimeout(timer); resolve(held); };
      const check = () => { if (condition(argument)) finish(true); };
      const observer = new MutationObserver(check);
      const timer = setTimeout(() => finish(Boolean(condition(argument))), ${ms});
      observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
      check();
    })`;
    if (await this.page.evaluate(source)) return;
    const says = JSON.stringify({ ...(await this.report()), errors: this.errors }, null, 1);
    assert.fail(`waited ${ms} ms for ${what}; the page says:\n${says}`);
  }

  /** Waits for `#status` to be in one of these states. @param {string[]} states @param {number} [ms] */
  async state(states, ms) {
    await this.until(
      `state ${states.join(' or ')}`,
      (wanted) => wanted.includes(document.querySelector('#status')?.getAttribute('data-state') ?? ''),
      states,
      ms,
    );
  }

  /** @param {number} count */
  async chunksShown(count) {
    await this.until(
      `${count} chunks`, (wanted) => document.querySelectorAll('#log .chunk').length >= wanted, count);
  }

  /** Every read shown in the log. @returns {Promise<Read[]>} */
  reads() {
    return this.page.evaluate(() =>
      [...document.querySelectorAll('#log .chunk')].map((element) => {
        const { bytes, at, text } = /** @type {HTMLElement} */ (element).dataset;
        return { bytes: Number(bytes), at: Number(at), text: String(text) };
      }),
    );
  }

  /** Presses the start button and lets the stream run to its end. */
  async runToEnd() {
    await this.start();
    await this.state(['done', 'error', 'stopped']);
    const { state, error } = await this.report();
    assert.deepEqual({ state, error }, { state: 'done', error: '' });
  }

  /** Presses the start button, unless the page follows its feed already: a live one is followed at once. */
  async start() {
    await this.until('the start button, or what it does', () => {
      const button = /** @type {HTMLButtonElement | null} */ (document.querySelector('#start'));
      const running = /connecting|streaming|reconnecting/.test(document.querySelector('#status')?.getAttribute('data-state') ?? '');
      return running || (button && !button.disabled);
    });
    if (await this.page.$eval('#start', (button) => !(/** @type {HTMLButtonElement} */ (button).disabled))) await this.page.click('#start');
  }

  /** Opens the drawer of numbers, settings and links, where the log is alone. */
  async details() {
    await this.page.click('#drawer[aria-expanded="false"]');
  }

  /** Picks a transport on `/`. @param {string} value */
  async choose(value) {
    const control = await this.page.$(`input[type=radio][name=transport][value=${value}], #transport input[value=${value}]`);
    if (control) await control.click();
    else await this.page.select('#transport', value);
  }

  /** What the page says of itself. */
  report() {
    return this.page.evaluate(() => {
      const element = (/** @type {string} */ id) => /** @type {HTMLElement | null} */ (document.getElementById(id));
      const text = (/** @type {string} */ id) => (element(id)?.textContent ?? '').replace(/\s+/g, ' ').trim();
      const error = element('error');
      return {
        url: location.href,
        state: element('status')?.dataset.state,
        status: text('status'),
        error: error && !error.hidden ? text('error') : '',
        protocol: element('protocol')?.dataset.protocol,
        transport: element('protocol')?.dataset.transport,
        protocolText: text('protocol'),
        why: text('why'),
        chunks: text('chunks'),
        bytes: text('bytes'),
        ttfb: text('ttfb'),
        shown: document.querySelectorAll('#log .chunk').length,
      };
    });
  }

  /** The protocol by which the browser itself says that it got the page. @returns {Promise<string>} */
  navigationProtocol() {
    return this.page.evaluate(() => {
      const [entry] = /** @type {PerformanceNavigationTiming[]} */ (performance.getEntriesByType('navigation'));
      return entry?.nextHopProtocol;
    });
  }

  /** The protocols by which the browser got what lies at `pathname`, one for each request. @param {string} pathname */
  resourceProtocols(pathname) {
    return this.page.evaluate(
      (wanted) =>
        /** @type {PerformanceResourceTiming[]} */ (performance.getEntriesByType('resource'))
          .filter((entry) => new URL(entry.name).pathname === wanted)
          .map((entry) => entry.nextHopProtocol),
      pathname,
    );
  }

  /** Keeps a picture of the whole page. @param {string} name */
  async shot(name) {
    await mkdir(ARTIFACTS, { recursive: true });
    await this.page.screenshot({ path: path.join(ARTIFACTS, `${name}.png`), fullPage: true });
  }

  close() {
    return this.page.close();
  }
}
