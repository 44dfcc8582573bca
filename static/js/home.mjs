// @ts-check
import { startPage } from "./page.mjs";
import { byId } from "./view.mjs";

const transport = byId("transport", HTMLSelectElement);
const asked = new URL(location.href).searchParams.get("transport");
if ([...transport.options].some(({ value }) => value === asked)) transport.value = asked ?? "auto";

startPage({
  choice: () => /** @type {import("./types.mjs").TransportChoice} */ (transport.value),
  onInfo: ({ chrome }) => {
    if (chrome !== "") byId("chrome-command", HTMLElement).textContent = chrome;
    byId("chrome", HTMLElement).hidden = chrome === "";
  },
});
