// @ts-check
/**
 * A part of a row.
 * @param {string} name its class
 * @param {string} text
 */
export function cell(name, text) {
  const element = document.createElement("span");
  element.className = name;
  element.textContent = text;
  return element;
}
