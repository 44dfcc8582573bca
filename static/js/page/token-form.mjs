// @ts-check
/**
 * Asks the visitor for a token, in a form above the place of errors.
 * @param {string} why
 * @param {AbortSignal} signal ends the question
 * @returns {Promise<string>} "" if there is no answer
 */
export function askForToken(why, signal) {
  const place = document.getElementById("error");
  if (place === null) return Promise.resolve("");
  document.getElementById("token-form")?.remove();
  const form = document.createElement("form");
  form.id = "token-form";
  form.className = "notice";
  const reason = document.createElement("p");
  reason.textContent = why;
  const label = document.createElement("label");
  label.htmlFor = "token";
  label.textContent = "Token ";
  const input = document.createElement("input");
  Object.assign(input, { id: "token", type: "password", required: true, autocomplete: "off", spellcheck: false });
  const button = document.createElement("button");
  button.textContent = "Use it";
  form.append(reason, label, input, " ", button);
  place.before(form);
  return new Promise((resolve) => {
    const done = (/** @type {string} */ value) => {
      signal.removeEventListener("abort", none);
      form.remove();
      resolve(value);
    };
    const none = () => done("");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      done(input.value);
    });
    signal.addEventListener("abort", none);
    if (signal.aborted) none();
  });
}
