// A tab of Chromium, measured from outside: what its process and the rest of the browser cost while something happens.
//
// Nothing watches its network, as puppeteer's own pages have done: the browser reports each read to whoever does, and
// that alone cost the tab's process about 2 % of a core at 200 reads a second.

/** @typedef {import('puppeteer-core').CDPSession} Session */

export const sleep = (/** @type {number} */ ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Tab {
  /** @param {Session} host of the browser @param {Session} devtools of the tab */
  constructor(host, devtools) {
    this.host = host;
    this.devtools = devtools;
  }

  /**
   * @param {import('puppeteer-core').Browser} browser
   * @param {string} url
   */
  static async open(browser, url) {
    // The tab that the browser began with: with a second one, two processes would have to be told apart.
    const target = await browser.waitForTarget((one) => one.type() === 'page');
    const tab = new Tab(await browser.target().createCDPSession(), await target.createCDPSession());
    await tab.devtools.send('Emulation.setDeviceMetricsOverride', { width: 1280, height: 800, deviceScaleFactor: 1, mobile: false });
    await tab.devtools.send('Performance.enable', { timeDomain: 'threadTicks' });
    await tab.devtools.send('Page.enable');
    const loaded = new Promise((resolve) => tab.devtools.once('Page.loadEventFired', resolve));
    await tab.devtools.send('Page.navigate', { url });
    await loaded;
    await tab.devtools.send('Page.disable');
    return tab;
  }

  /**
   * Runs a function in the page.
   * @template A, R
   * @param {(argument: A) => R | Promise<R>} work
   * @param {A} [argument]
   * @returns {Promise<R>}
   */
  async evaluate(work, argument) {
    const expression = `(${work})(${JSON.stringify(argument)})`;
    const { result, exceptionDetails } = await this.devtools.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails !== undefined) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  /** @param {number} count waits until the page has so many chunks */
  async chunks(count) {
    while (Number(await this.evaluate(() => document.querySelector('#chunks')?.textContent)) < count) await sleep(100);
  }

  async #now() {
    const { metrics } = await this.devtools.send('Performance.getMetrics');
    const of = (/** @type {string} */ name) => metrics.find((metric) => metric.name === name)?.value ?? 0;
    const { processInfo } = await this.host.send('SystemInfo.getProcessInfo');
    const cpu = (/** @type {string} */ kind) => processInfo.filter(({ type }) => type.startsWith(kind)).reduce((sum, { cpuTime }) => sum + cpuTime, 0);
    return {
      script: of('ScriptDuration'), style: of('RecalcStyleDuration'), layout: of('LayoutDuration'), main: of('TaskDuration'),
      process: cpu('renderer'), gpu: cpu('GPU'), network: cpu('network'), browser: cpu(''),
    };
  }

  /**
   * What it costs while something happens, in parts of a core.
   * @param {() => Promise<unknown>} work
   */
  async cost(work) {
    const before = await this.#now();
    const from = performance.now();
    await work();
    const wall = (performance.now() - from) / 1000;
    const after = await this.#now();
    const share = (/** @type {keyof typeof after} */ name) => ((after[name] - before[name]) / wall) * 100;
    const is = (/** @type {keyof typeof after} */ name) => `${share(name).toFixed(1)} %`;
    return {
      process: share('process'),
      words: `the tab's process ${is('process')} of a core (main thread ${is('main')}: script ${is('script')}, style ${is('style')}, layout ${is('layout')}), GPU process ${is('gpu')}, network service ${is('network')}, whole browser ${is('browser')}`,
    };
  }
}
