// The picture of the documentation: the page of `coordinator demo`, half a minute after its start.
import { spawn } from "node:child_process";

import { bin, browse, eventually, open } from "./stage.mjs";

const demo = spawn(bin, ["demo"], { stdio: ["ignore", "pipe", "ignore"] });
let said = "";
demo.stdout.on("data", part => { said += part; });
await eventually("the demo has begun", () => said.includes("terminal "));
const browser = await browse();
try {
	const [url] = /http\S+/.exec(said), [credential] = /coord_\S+/.exec(said);
	const page = await open(browser, `${url}#waits/inventory`, { width: 1440, height: 960, credential });
	await page.waitForSelector(".heat[data-heat='1']", { timeout: 60_000 });
	await page.waitForSelector(".graph");
	await page.screenshot({ path: process.argv[2] });
} finally {
	await browser.close();
	demo.kill("SIGINT");
}
