// @ts-check
import { startPage } from "./page.mjs";

startPage("fetch");
