// @ts-check
/** The command that starts Chrome with HTTP/3, as `/info` has it for the start page at the server's TLS port. */

/**
 * The same for another page there.
 * @param {string} command "" for none
 * @param {string} page
 */
export function commandForPage(command, page) {
  return command === "" ? "" : command + page;
}

/**
 * The same for the page that the visitor has open, at its own origin: what it compares depends on that.
 * @param {string} command
 * @param {string} href
 */
export function commandForHere(command, href) {
  const { origin, pathname } = new URL(href);
  return command.replace(/\S+$/, () => origin + pathname);
}
