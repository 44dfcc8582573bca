// @ts-check
const SHOWN_MS = 2000;

/** Makes every `<button data-copy="ID">` copy the text of the element with that id. */
export function wireCopyButtons() {
  for (const button of document.querySelectorAll("button[data-copy]")) {
    if (!(button instanceof HTMLButtonElement)) continue;
    const target = document.getElementById(button.dataset.copy ?? "");
    if (target === null) continue;
    const label = button.textContent ?? "";
    const name = button.getAttribute("aria-label");
    /** @type {number | undefined} */
    let timer;
    button.addEventListener("click", async () => {
      const copied = await copy(target);
      const said = copied ? "Copied" : "Selected";
      button.textContent = said;
      // What is read out is what is seen.
      if (name !== null) button.setAttribute("aria-label", said);
      window.clearTimeout(timer);
      timer = window.setTimeout(() => {
        button.textContent = label;
        if (name !== null) button.setAttribute("aria-label", name);
      }, SHOWN_MS);
    });
  }
}

/**
 * @param {HTMLElement} target
 * @returns {Promise<boolean>} false: it is only selected, for the visitor to copy
 */
async function copy(target) {
  try {
    await navigator.clipboard.writeText(target.textContent ?? "");
    return true;
  } catch {
    getSelection()?.selectAllChildren(target);
    return false;
  }
}
