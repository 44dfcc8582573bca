// As much of a document as a form needs that stands by itself. The pages run in real browsers: tests/browser.

class Element extends EventTarget {
  dataset = {};
  textContent = "";
  value = "";
  hidden = false;
  children = [];
  classList = { add() {} };
  append(...children) {
    this.children.push(...children);
  }
  before(element) {
    elements.set(element.id, element);
  }
  remove() {
    elements.delete(this.id);
  }
  focus() {}
}
const elements = new Map();
for (const name of ["HTMLElement", "HTMLFormElement", "HTMLInputElement", "HTMLButtonElement"]) globalThis[name] = Element;

/** @param {string[]} ids of the elements that there are; each call begins with them alone */
export function page(...ids) {
  elements.clear();
  for (const id of ids) elements.set(id, Object.assign(new Element(), { id }));
  globalThis.document = {
    activeElement: null,
    getElementById: (id) => elements.get(id) ?? null,
    createElement: () => new Element(),
  };
}

/** @param {string} id */
export const element = (id) => elements.get(id);

/** @param {string} id of a form */
export const submit = (id) => elements.get(id).dispatchEvent(new Event("submit", { cancelable: true }));
