// The page in a real browser, against a real coordinator. Each test is named as the promise that it keeps.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import fs from "node:fs";

import { Coordinator, Etcd, browse, eventually, open } from "./stage.mjs";

const axe = fs.readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
let browser, all = [];
before(async () => { browser = await browse(); });
after(async () => { await browser.close(); for (const it of all) it.end(); });

async function coordinator() {
	const it = new Coordinator();
	all.push(it);
	return it.start();
}
/** One with a chain: `deploy` is held, and two wait, one of whom nobody else waits for. */
async function contended() {
	const it = await coordinator();
	it.hold("deploy", "--note", "release 2.3");
	await it.contended("deploy", 1, 0);
	it.hold("deploy", "--note", "hotfix");
	await it.contended("deploy", 1, 1);
	it.hold("deploy");
	await it.contended("deploy", 1, 2);
	it.hold("idle");
	await it.contended("idle", 1, 0);
	return it;
}
/** Fails if the browser had anything to say, or anything came from elsewhere. */
function quiet(page, ...expected) {
	const said = page.complaints.filter(it => !expected.some(word => it.includes(word)));
	assert.deepEqual(said, []);
	assert.deepEqual(page.foreign, []);
}
async function accessible(page, where) {
	// The page's policy forbids scripts of others; the test's own comes in by the debugger.
	await page.evaluate(axe);
	const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
	const told = found.violations.map(it => `${it.id}: ${it.nodes.map(node => node.target + " " + node.failureSummary).join("; ")}`);
	assert.deepEqual(told, [], where);
}
const text = (page, selector) => page.locator(selector).innerText();

test("who waits, for what, and who is in the way stands on the first view", async () => {
	const it = await contended();
	const page = await open(browser, it.url);
	await page.waitForSelector("main tbody tr");
	assert.match(await text(page, "main"), /1 lock, 2 requests wait/);
	assert.match(await text(page, "main tbody tr"), /deploy[\s\S]*release 2\.3[\s\S]*2/);
	assert.equal(await page.locator("main tbody tr").count(), 1, "what nobody waits for is not there");
	assert.match(await text(page, ".tree"), /holds\s+deploy[\s\S]*waits/);
	await page.click("main tbody tr");
	await page.waitForSelector("#panel .queue li:nth-child(2)");
	assert.match(await text(page, "#panel"), /release 2\.3[\s\S]*2 wait[\s\S]*hotfix/);
	assert.equal(await page.locator(".graph g").count(), 3, "the graph has who is concerned");
	assert.match(await text(page, "#panel .copy"), /coordinator status deploy/);
	await page.keyboard.press("2");
	await page.waitForSelector("main tbody tr:nth-child(2)");
	assert.match(await text(page, "main"), /Locks: 2[\s\S]*idle/);
	await page.fill("main input", "id");
	await eventually("the prefix is obeyed", async () => await page.locator("main tbody tr").count() === 1);
	await page.keyboard.press("Escape");
	await page.keyboard.press("3");
	await page.waitForSelector("main tbody tr:nth-child(4)");
	await page.keyboard.press("4");
	await page.waitForSelector(".log");
	await eventually("an event shows", async () => {
		it.hold("quick", "--max", "50ms");
		await new Promise(done => setTimeout(done, 300));
		return (await text(page, ".log")).includes("quick");
	});
	quiet(page);
});

test("an assistive technology finds nothing wrong in any view, dialog, scheme or width", async () => {
	const it = await contended();
	for (const [colorScheme, width] of [["light", 1280], ["dark", 1280], ["light", 400], ["dark", 400]]) {
		const page = await open(browser, it.url, { colorScheme, width, credential: it.oncall });
		const where = view => `${view}, ${colorScheme}, ${width}`;
		for (const view of ["waits", "locks", "sessions", "events"]) {
			await page.goto(`${it.url}#${view}`);
			await page.waitForSelector("main h2");
			await eventually("there is something", async () => view === "events" || await page.locator("main tbody tr").count());
			await accessible(page, where(view));
			assert.equal(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true, where(`${view} scrolls sideways`));
		}
		await page.goto(`${it.url}#waits/deploy`);
		await page.waitForSelector("#panel [data-break]");
		await page.waitForSelector(".graph");
		await accessible(page, where("panel"));
		await page.click("#help");
		await accessible(page, where("keys"));
		await page.keyboard.press("Escape");
		await page.click("#who");
		await accessible(page, where("sign in"));
		await page.keyboard.press("Escape");
		await eventually("it is known who may break", async () => (await text(page, "#who")).includes("oncall"));
		await page.click("[data-break]");
		await page.waitForSelector("dialog button.danger");
		await accessible(page, where("break"));
		quiet(page);
		await page.close();
	}
});

test("the keyboard alone breaks a lock, with its name and a reason, and the next in line has it", async () => {
	const it = await contended();
	const before = (await it.contended("deploy", 1, 2)).holders[0];
	const page = await open(browser, it.url);
	await page.waitForSelector("main tbody tr");
	const { keyboard } = page;
	await keyboard.press("j");
	await keyboard.press("Enter");
	await page.waitForSelector("[data-break]");
	await keyboard.press("b");
	await page.waitForSelector("dialog input[type=password]");
	await keyboard.type(it.oncall);
	await keyboard.press("Enter");
	await eventually("it is known who this is", async () => (await text(page, "#who")).includes("oncall"));
	await keyboard.press("b");
	await page.waitForSelector("dialog button.danger");
	assert.equal(await page.isDisabled("button.danger"), true, "nothing is broken by one key");
	await keyboard.type("deplo");
	await keyboard.press("Tab");
	await keyboard.type("it hangs");
	assert.equal(await page.isDisabled("button.danger"), true, "that is not its name");
	await keyboard.press("Shift+Tab");
	await keyboard.press("End");
	await keyboard.type("y");
	assert.equal(await page.isDisabled("button.danger"), false);
	await keyboard.press("Enter");
	await page.waitForSelector("#toasts p");
	assert.match(await text(page, "#toasts"), /deploy” was taken away/);
	const now = await it.contended("deploy", 1, 1);
	assert.ok(now.holders[0].token > before.token);
	await eventually("the panel shows the next", async () => (await text(page, "#panel")).includes("hotfix"));
	quiet(page);
});

test("somebody newer is never hit, and the dialog says that nothing was done", async () => {
	const it = await contended();
	const page = await open(browser, `${it.url}#waits/deploy`, { credential: it.oncall });
	await eventually("it is known who this is", async () => (await text(page, "#who")).includes("oncall"));
	await page.click("[data-break]");
	const [holder] = (await it.contended("deploy", 1, 2)).holders;
	await it.revoke("deploy", holder.token);
	const newer = await it.contended("deploy", 1, 1);
	await page.fill("dialog label:nth-of-type(1) input", "deploy");
	await page.fill("dialog label:nth-of-type(2) input", "it hangs");
	await page.click("button.danger");
	await page.waitForSelector("dialog .wrong:not([hidden])");
	assert.match(await text(page, "dialog .wrong"), /Nothing was done/);
	assert.equal((await it.contended("deploy", 1, 1)).holders[0].token, newer.holders[0].token);
	// A browser tells of every answer that is an error.
	quiet(page, "409");
});

test("what clients choose is text, whatever they choose", async () => {
	const it = await coordinator();
	const hostile = ["<img src=x onerror=alert(1)>", "\u202egpj.exe", "'\"><script>alert(1)</script>", "x".repeat(255), "a/b c?d#e%2f", "javascript:alert(1)"];
	for (const name of hostile) {
		it.hold(name, "--note", name);
		await it.contended(name, 1, 0);
		it.hold(name, "--note", name);
		await it.contended(name, 1, 1);
	}
	const page = await open(browser, it.url, { credential: it.oncall });
	await page.waitForSelector(`main tbody tr:nth-child(${hostile.length})`);
	for (const name of hostile) {
		await page.goto(`${it.url}#waits/${encodeURIComponent(name)}`);
		const shown = name.replace("\u202e", "\\u{202e}");
		await eventually(name, async () => (await text(page, "#panel h2")) === shown && (await text(page, "#panel section:first-of-type")).includes(shown));
	}
	for (const view of ["locks", "sessions", "events"]) {
		await page.goto(`${it.url}#${view}`);
		await page.waitForSelector("main h2");
	}
	assert.equal(await page.evaluate(() => document.querySelectorAll("main img, main script, #panel img").length), 0);
	quiet(page);
});

test("a coordinator that does not answer shows as stale within seconds, and comes back by itself", async () => {
	const it = await contended();
	const page = await open(browser, it.url);
	await page.waitForSelector("main tbody tr");
	it.server.kill("SIGSTOP");
	await page.waitForSelector("#live[data-state=stale]", { timeout: 10_000 });
	assert.match(await text(page, "#banners"), /No news/);
	await accessible(page, "stale");
	it.server.kill("SIGCONT");
	await page.waitForSelector("#live[data-state=live]");
	await it.kill();
	await page.waitForSelector("#live[data-state=stale]", { timeout: 10_000 });
	await it.start();
	await page.waitForSelector("#live[data-state=live]");
	await eventually("the waits are there again", async () => (await text(page, "main")).includes("deploy"));
	quiet(page, "net::ERR", "503");
});

test("in a cluster the head says who leads and who is in sync, also on a narrow screen, and a standby's page names the leader", async () => {
	const etcd = new Etcd();
	all.push(etcd);
	await etcd.start();
	const member = name => {
		const it = new Coordinator();
		all.push(it);
		return it.start("--cluster", "prod", "--etcd", etcd.url, "--peer-listen", "127.0.0.1:0", "--member-name", name);
	};
	const leader = await member("a");
	await eventually("it leads", async () => (await fetch(`${leader.url}leaderz`)).ok);
	const standby = await member("b");
	const page = await open(browser, leader.url);
	await eventually("both are named", async () => /epoch [\d,]+ · up .* · a leads prod for .*, b in sync$/.test(await text(page, "#about")));
	quiet(page);
	const narrow = await open(browser, leader.url, { width: 400 });
	await eventually("they are there, too", async () => (await text(narrow, "#about")).includes("b in sync"));
	assert.equal(await narrow.isVisible("#about"), true);
	assert.equal(await narrow.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true);
	await accessible(narrow, "a leader, narrow");
	const other = await open(browser, standby.url, { until: "#live" });
	await eventually("it is no leader", async () => await text(other, "#live") === "standby");
	assert.match(await text(other, "#banners"), /Ask the leader\.[\s\S]*a leads prod at 127\.0\.0\.1:\d+/);
	await accessible(other, "a standby");
	await leader.kill();
	await eventually("it leads, and its page is live", async () => await text(other, "#live") === "live" && (await text(other, "#about")).includes("b leads prod"));
	await page.waitForSelector("#live[data-state=stale]");
	quiet(other, "503");
});

test("the policy lets no script in but the page's own, and the scheme can be chosen", async () => {
	const it = await coordinator();
	const page = await open(browser, it.url, { colorScheme: "light" });
	assert.match(await text(page, "main"), /Nobody waits/);
	await accessible(page, "nobody waits");
	const answer = await fetch(it.url);
	const policy = answer.headers.get("content-security-policy");
	assert.match(policy, /default-src 'none'.*trusted-types 'none'/);
	const refused = await page.evaluate(() => {
		try { document.body.innerHTML = "<b>x</b>"; } catch { return true; }
		return false;
	});
	assert.equal(refused, true, "no markup is made from text");
	const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
	const light = await ground();
	await page.click("#theme");
	assert.equal(await ground(), light);
	await page.click("#theme");
	assert.notEqual(await ground(), light);
	await page.reload();
	await page.waitForSelector("#live[data-state=live]");
	assert.notEqual(await ground(), light, "the choice is kept");
	quiet(page, "TrustedHTML", "Trusted");
});

test("a coordinator that stops is not said to know nobody, and no reload is needed once it is back", async () => {
	const it = await coordinator();
	const page = await open(browser, it.url, { credential: it.oncall });
	await eventually("it is known who this is", async () => (await text(page, "#who")).includes("oncall"));
	await it.kill("SIGTERM");
	await page.waitForSelector("#live[data-state=stale]");
	assert.match(await text(page, "#banners"), /No news/);
	assert.doesNotMatch(await text(page, "body"), /signed (in|out)/);
	await it.start();
	await page.waitForSelector("#live[data-state=live]");
	assert.equal(await text(page, "#banners"), "");
	quiet(page, "net::ERR", "503");
});

test("whoever is refused at once reads why, and sees what there is once there is room", async () => {
	const it = await coordinator();
	const stop = new AbortController();
	const follow = () => fetch(`${it.url}api/v1/live`, { signal: stop.signal });
	await eventually("all streams are taken", async () => (await follow()).status === 503);
	const page = await browser.newPage();
	await page.goto(it.url);
	await page.waitForSelector("#banners .banner");
	assert.match(await text(page, "#banners"), /No news/);
	assert.doesNotMatch(await text(page, "#banners"), /does not answer/);
	stop.abort();
	await page.waitForSelector("#live[data-state=live]");
	await page.evaluate(() => sessionStorage.setItem("coordinator-credential", "coord_…"));
	await page.reload();
	await eventually("the mistake is named", async () => (await text(page, "#banners")).includes("is no credential"));
});

test("who breaks a lock reads what goes with it, before and after", async () => {
	const it = await coordinator();
	it.hold("multi", "--and", "multi-2");
	await it.contended("multi-2", 1, 0);
	const page = await open(browser, `${it.url}#locks/multi`, { credential: it.oncall });
	await page.click("[data-break]");
	await eventually("the other is named", async () => (await text(page, "dialog")).includes("go, too: multi-2"));
	await page.fill("dialog label:nth-of-type(1) input", "multi");
	await page.fill("dialog label:nth-of-type(2) input", "it hangs");
	await page.click("button.danger");
	await page.waitForSelector("#toasts p");
	assert.match(await text(page, "#toasts"), /“multi”, “multi-2” was taken away/);
	await it.contended("multi-2", 0, 0);
	quiet(page);
});

test("of several holders, nobody older is called newer", async () => {
	const it = await coordinator();
	const [, second] = [it.hold("gpu", "--permits", "2"), await it.contended("gpu", 1, 0) && it.hold("gpu", "--permits", "2")];
	await it.contended("gpu", 2, 0);
	const page = await open(browser, `${it.url}#locks/gpu`, { credential: it.oncall });
	await page.click("#panel li:nth-child(2) [data-break]");
	await page.waitForSelector("dialog button.danger");
	second.kill("SIGTERM");
	await it.contended("gpu", 1, 0);
	await page.fill("dialog label:nth-of-type(1) input", "gpu");
	await page.fill("dialog label:nth-of-type(2) input", "it hangs");
	await page.click("button.danger");
	await page.waitForSelector("dialog .wrong:not([hidden])");
	assert.match(await text(page, "dialog .wrong"), /Nobody holds it with that token any more. Nothing was done/);
	quiet(page, "409");
});

test("an answer that did not come is not called a no", async () => {
	const it = await contended();
	const page = await open(browser, `${it.url}#waits/deploy`, { credential: it.oncall });
	// It is done, and nobody hears of it.
	await page.route("**/revoke", async route => { await route.fetch(); await route.abort(); });
	await page.click("[data-break]");
	await page.fill("dialog label:nth-of-type(1) input", "deploy");
	await page.fill("dialog label:nth-of-type(2) input", "it hangs");
	await page.click("button.danger");
	await page.waitForSelector("dialog .wrong:not([hidden])");
	assert.match(await text(page, "dialog .wrong"), /not known whether it was taken away/);
	await page.unroute("**/revoke");
	await it.contended("deploy", 1, 1);
	await page.click("button.danger");
	await eventually("the second try is a no", async () => (await text(page, "dialog .wrong")).includes("whether the try before"));
	assert.doesNotMatch(await text(page, "dialog .wrong"), /Nothing was done/);
	quiet(page, "409", "net::ERR");
});

test("a lock that is kept can be let go", async () => {
	const it = await coordinator();
	const holder = it.hold("nightly", "--at-least", "1h", "--note", "first");
	await it.contended("nightly", 1, 0);
	it.hold("nightly", "--note", "second");
	await it.contended("nightly", 1, 1);
	holder.kill("SIGTERM");
	await it.contended("nightly", 0, 1);
	const page = await open(browser, `${it.url}#waits/nightly`, { credential: it.oncall });
	await page.waitForSelector("[data-break]");
	assert.match(await text(page, "#panel"), /Held by nobody[\s\S]*kept[\s\S]*token/);
	await page.click("[data-break]");
	await page.fill("dialog label:nth-of-type(1) input", "nightly");
	await page.fill("dialog label:nth-of-type(2) input", "it has to go again");
	await page.click("button.danger");
	await it.contended("nightly", 1, 0);
	quiet(page);
});

test("what was missed over a lost connection stands between the events", async () => {
	const it = await coordinator();
	const page = await open(browser, `${it.url}#events`);
	await eventually("an event shows", async () => {
		it.hold("quick", "--max", "50ms");
		await new Promise(done => setTimeout(done, 300));
		return (await text(page, ".log")).includes("quick");
	});
	await it.kill();
	await eventually("that nothing is heard stands there", async () => (await text(page, "main .more")).includes("was lost"));
	await page.waitForSelector("main .log li:last-child[data-what=missed]");
	await it.start();
	await eventually("it is heard again", async () => (await text(page, "main .more")).includes("The last"));
	assert.equal(await page.locator("main .log [data-what=missed]").count(), 1, "once, however often it was tried");
	quiet(page, "net::ERR", "503");
});

test("who may break from now on need not load the page again", async () => {
	const it = await coordinator();
	const [credential, line] = it.credential("night");
	const page = await open(browser, it.url);
	const file = `${it.home}/access.toml`;
	const night = may => fs.writeFileSync(file, `${first}\n[[principal]]\nname = "night"\ncredentials = ["${line}"]\nmay = [ { do = [${may}], names = ["*"] } ]\n`);
	const first = fs.readFileSync(file, "utf8");
	const reloaded = async may => {
		night(may);
		it.server.kill("SIGHUP");
		await eventually("the rules are read", async () => {
			const { may: has } = await it.ask("server", { headers: { Authorization: `Bearer ${credential}` } });
			return has && has.flatMap(rule => rule.do).length === may.split(",").length;
		});
	};
	await reloaded(`"see"`);
	it.hold("deploy");
	await it.contended("deploy", 1, 0);
	await page.evaluate(it => sessionStorage.setItem("coordinator-credential", it), credential);
	await page.goto(`${it.url}#locks/deploy`);
	await page.reload();
	await page.click("[data-break]");
	assert.match(await text(page, "dialog"), /night may not break “deploy”/);
	await page.keyboard.press("Escape");
	await reloaded(`"see", "break"`);
	await page.click("[data-break]");
	await page.waitForSelector("dialog button.danger");
	quiet(page);
});

test("nobody is called the cause who may wait where it is not told", async () => {
	const it = await coordinator();
	const page = await open(browser, it.url);
	const told = await page.evaluate(async () => {
		const { waitsView } = await import("/assets/waits.js");
		const who = (identity, request) => ({ identity, session: identity, owner: 0, request, mode: {}, token: request, held_ms: 9, waiting_ms: 9 });
		const busy = (name, holder, waiters, waiter_count) => ({ name, holders: [holder], holder_count: 1, waiters, waiter_count });
		const draw = (locks, word) => {
			const view = waitsView({ waits: { locks, contended: 2, waiting: 26, complete: true }, at: 0, selected: null });
			view.el.querySelector("input").value = word;
			view.draw();
			return [...view.el.querySelectorAll(".roots > li > .row")].map(row => row.textContent);
		};
		const [ann, bob, eve] = [who("ann", 1), who("bob", 2), who("eve", 3)];
		return [
			draw([busy("x", ann, [eve], 1), busy("y", bob, [eve], 26)], ""),
			draw([busy("x", ann, [eve], 1), busy("y", bob, [ann], 1)], "x"),
			draw([busy("x", ann, [eve], 1), busy("y", bob, [ann], 1)], ""),
		];
	});
	const maybe = "may wait, too: not all that wait are told here";
	assert.deepEqual(told, [[`ann${maybe}`, `bob${maybe}`], ["annwaits for y"], ["bob"]]);
	quiet(page);
});
