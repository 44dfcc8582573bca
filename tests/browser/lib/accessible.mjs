// Whether everybody can use what a page shows: axe-core is the judge of what a screen reader gets.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';

const AXE = await readFile(new URL('../node_modules/axe-core/axe.min.js', import.meta.url), 'utf8');

/** A page is hidden until it knows what it shows, whatever its elements say of themselves. @param {import('./view.mjs').View} view */
const shown = (view) => view.until('the page to be shown', () => !document.querySelector('main[data-undecided]'));

/** Every rule of axe-core over what is shown now. @param {import('./view.mjs').View} view @param {string} when */
export async function assertAccessible(view, when) {
  await shown(view);
  const found = await view.page.evaluate(`(async () => {
    if (!globalThis.axe) { ${AXE} }
    const { violations, passes } = await axe.run(document, { resultTypes: ['violations', 'passes'] });
    return { passes: passes.length, violations: violations.map(({ id, help, nodes }) =>
      ({ id, help, nodes: nodes.map(({ target, failureSummary }) => target + ': ' + failureSummary) })) };
  })()`);
  const { passes, violations } = /** @type {{ passes: number, violations: unknown[] }} */ (found);
  assert.deepEqual(violations, [], `axe-core, ${when}`);
  assert.ok(passes > 10, `axe-core looked at something, ${when}`);
}

/** @param {import('./view.mjs').View} view @param {string} when */
export async function assertFits(view, when) {
  await shown(view);
  const wide = await view.page.evaluate(() => {
    const edge = document.documentElement.clientWidth;
    const over = [...document.querySelectorAll('body *')]
      .filter((element) => element.getBoundingClientRect().right > edge + 0.5)
      .map((element) => `${element.tagName.toLowerCase()}#${element.id}.${element.className}`);
    return { scrolls: document.documentElement.scrollWidth > edge, edge, over };
  });
  assert.equal(wide.scrolls, false, `no horizontal scrolling ${when}: ${JSON.stringify(wide)}`);
}

/** Asserts that what each list has chosen is shown whole. @param {import('./view.mjs').View} view */
export async function assertWhole(view) {
  await shown(view);
  const cut = await view.page.$$eval('select', (all) => all.filter((list) => list.checkVisibility() && !list.closest('details')).flatMap((list) => {
    const alone = /** @type {HTMLSelectElement} */ (list.cloneNode());
    alone.append(new Option(list.selectedOptions[0]?.text));
    Object.assign(alone.style, { flex: 'none', width: 'max-content', maxWidth: 'none' });
    list.after(alone);
    const wanted = alone.getBoundingClientRect().width;
    alone.remove();
    const { width } = list.getBoundingClientRect();
    return width < Math.floor(wanted) ? [`${list.id}: ${width} of ${wanted} pixels`] : [];
  }));
  assert.deepEqual(cut, []);
}
