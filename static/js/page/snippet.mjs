// @ts-check

/**
 * The code that a page shows, with the paths that hold here.
 * @param {string} code as it stands in the page: for the default feed of a server that has it at its root
 * @param {{ feed: string, isDefault: boolean, info: string }} here the path of the feed, whether it is the default
 *   one, whose address `/info` gives, and the path of `/info`
 */
export function snippetFor(code, { feed, isDefault, info }) {
  const session = isDefault ? "url" : `new URL(${JSON.stringify(feed)}, url)`;
  return code
    .replace('fetch("/stream"', () => `fetch(${JSON.stringify(feed)}`)
    .replace('fetch("/info"', () => `fetch(${JSON.stringify(info)}`)
    .replace("new WebTransport(url,", () => `new WebTransport(${session},`);
}
