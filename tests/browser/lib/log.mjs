// The start page's log: what it shows of a feed that goes on.
import assert from 'node:assert/strict';

/** @typedef {import('./view.mjs').View} View */

/** Every row: a chunk by its text, anything else by its kind. @param {View} view @returns {Promise<string[]>} */
export function rows(view) {
  return view.page.evaluate(() =>
    [...document.querySelectorAll('#log > *')].map((element) => {
      const { text, kind } = /** @type {HTMLElement} */ (element).dataset;
      return text ?? `${kind}: ${element.textContent}`;
    }));
}

/** Waits for a row of this kind. @param {View} view @param {string} kind @param {number} [ms] */
export function marked(view, kind, ms) {
  return view.until(`a row that says ${kind}`, (wanted) => document.querySelector(`#log .mark[data-kind=${wanted}]`), kind, ms);
}

/** Waits for `count` chunks behind the last mark. @param {View} view @param {number} count @param {number} [ms] */
export function chunksAfterMark(view, count, ms) {
  return view.until(`${count} chunks behind the last mark`, (wanted) => {
    const marks = document.querySelectorAll('#log .mark');
    let [after, next] = [0, marks[marks.length - 1]?.nextElementSibling];
    for (; next; next = next.nextElementSibling) after += 1;
    return marks.length > 0 && after >= wanted;
  }, count, ms);
}

/** Every chunk's number is the one after that of the chunk before. @param {View} view @returns {Promise<number[]>} */
export async function assertEveryNumber(view) {
  const seqs = await view.page.evaluate(() =>
    [...document.querySelectorAll('#log .chunk')].map((element) => Number(/** @type {HTMLElement} */ (element).dataset.seq)));
  const [first = 0] = seqs;
  assert.deepEqual(seqs, seqs.map((_, i) => first + i), 'nothing lost, nothing twice');
  return seqs;
}

/** What the page would save of its log, which has more than there are rows. @param {View} view @returns {Promise<string>} */
export function saved(view) {
  return view.page.evaluate(async () => {
    /** @type {Blob | undefined} */
    let kept;
    const create = URL.createObjectURL;
    URL.createObjectURL = (blob) => {
      kept = /** @type {Blob} */ (blob);
      return '#';
    };
    /** @type {HTMLElement} */ (document.querySelector('#download')).click();
    URL.createObjectURL = create;
    return (await kept?.text()) ?? '';
  });
}
