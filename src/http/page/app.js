// The page: what is known, the header, the views, the keys.

import { ask, follow } from "./api.js";
import { $, brief, count, h, heat, plural, s, set, shell, span, text, tickAll, visible } from "./dom.js";
import { eventsView, locksView, sessionsView } from "./lists.js";
import { keysDialog, panelOf, signIn } from "./panel.js";
import { longest, waitsView } from "./waits.js";

const STALE_MS = 5000, OLD_MS = 3000, HISTORY_MS = 300_000;

const app = {
	me: null, server: null, waits: null, at: 0, selected: null, lastWait: null, history: [], heard: 0,
	/** Opens the panel of a lock, or closes it. */
	select(name) { location.hash = `#${view()}${name == null ? "" : "/" + encodeURIComponent(name)}`; },
	toast(message) {
		const el = h("p", {}, message);
		$("toasts").append(el);
		setTimeout(() => el.remove(), 6000);
	},
	problem(error) {
		app.away = error.code === "StandsBy" && error.message;
		app.wrong = error.status === 401 && error.message;
		app.trouble = error.status && error.told;
		header();
	},
	holders: name => panel?.name === name && panel.latest?.lock?.holders || [],
	/** Asks each time: rules are changed while the page is open. */
	async mayBreak(name = "NAME", token = "TOKEN") {
		await who();
		if (!app.me) return { sign: app.wrong, more: app.wrong || app.trouble || "The coordinator does not answer." };
		const { open, may, principal } = app.me;
		if (open) return { more: `Without an access file, nothing can be changed from here. On the coordinator's machine: coordinator release ${shell(name)} --force --token ${token}` };
		const fits = names => names === "*" || names === name || names.endsWith("/*") && name.startsWith(names.slice(0, -1)) && name.length > names.length - 1;
		if (may.some(rule => rule.do.includes("break") && fits(rule.names))) return { ok: true };
		return { sign: true, more: `${principal} may not break “${visible(name)}”. Sign in as somebody who may.` };
	},
	explain: may => may.sign ? signIn(app, may.more) : app.toast(may.more),
	restart() {
		app.wrong = app.me = null;
		live();
		views[shown].stop?.();
		views[shown].start?.();
	},
};

const views = { waits: waitsView(app), locks: locksView(app), sessions: sessionsView(app), events: eventsView(app) };
let shown = null, panel = null, endLive = () => {};
const view = () => { const name = location.hash.slice(1).split("/")[0]; return name in views ? name : "waits"; };
function selectedInHash() {
	const at = location.hash.indexOf("/");
	if (at < 0) return null;
	try { return decodeURIComponent(location.hash.slice(at + 1)); } catch { return null; }
}

/** Goes where the address says. */
function route() {
	const name = view(), lock = selectedInHash();
	if (shown !== name) {
		views[shown]?.stop?.();
		shown = name;
		$("main").replaceChildren(views[name].el);
		views[name].start?.();
		for (const a of $("tabs").querySelectorAll("a")) set(a, "aria-current", a.hash === "#" + name && "page");
		document.title = `${name} · coordinator`;
	}
	if (lock !== app.selected) {
		panel?.stop();
		panel = null;
		const before = app.selected;
		app.selected = lock;
		if (lock == null) {
			$("panel").replaceChildren();
			views[shown].rows().find(tr => tr.name === before)?.querySelector("[data-row]")?.focus();
		} else {
			panel = panelOf(app, lock);
			$("panel").replaceChildren(panel.el);
		}
		$("panel").hidden = lock == null;
		$("split").classList.toggle("open", lock != null);
		if (panel && document.activeElement !== document.body) panel.title.focus({ preventScroll: innerWidth >= 1100 });
		live();
	}
	views[shown].draw();
}

/** Follows what goes on, and the lock that is open. */
function live() {
	endLive();
	const path = app.selected == null ? "live" : `live?lock=${encodeURIComponent(app.selected)}`;
	endLive = follow(path, (event, data) => {
		if (event === "gap") return;
		const now = performance.now();
		app.heard = now;
		app.away = app.wrong = app.trouble = null;
		if (event === "open") return who();
		if (event === "server") took(data, now);
		else if (event === "waits") {
			app.waits = data;
			app.at = now - data.age_ms;
			app.scene = app.at;
			if (data.contended) app.lastWait = now;
			if (shown === "waits") views.waits.draw();
		} else if (event === "same") {
			app.scene = now - data.age_ms;
			if (app.waits?.contended) app.lastWait = now;
			else if (shown === "waits") views.waits.draw();
		} else if (event === "lock" && panel?.name === data.name) {
			panel.latest = data;
			panel.show(data, now);
		}
		header();
	}, app.problem);
}
async function who() {
	try {
		app.me = await ask("server");
		header();
	} catch (error) {
		app.problem(error);
	}
}
function took(data, now) {
	const last = app.history.at(-1);
	if (last && last.epoch !== data.server.epoch) { app.history = []; app.deadlock = null; app.me = null; who(); }
	if (last && data.deadlocks > last.deadlocks) app.deadlock = now;
	app.server = data.server;
	app.cluster = data.cluster;
	app.serverAt = now;
	app.deadlocks = data.deadlocks;
	app.history.push({ at: now, epoch: data.server.epoch, grants: data.server.grants, waiting: data.server.waiting, deadlocks: data.deadlocks, counts: data.waited?.counts });
	app.le = data.waited?.le_ms;
	while (now - app.history[0].at > HISTORY_MS) app.history.shift();
}
/** The sample that is so old. */
const ago = ms => { const now = performance.now(); return app.history.findLast(it => now - it.at >= ms) ?? app.history[0]; };
function rate() {
	const last = app.history.at(-1), then = ago(5000);
	return last && last !== then ? perSecond(last, then) * 1000 : null;
}
function p99() {
	const last = app.history.at(-1), then = ago(10_000);
	if (!last?.counts || !then?.counts || last === then) return null;
	const counts = last.counts.map((n, at) => n - then.counts[at]), all = counts.reduce((a, b) => a + b);
	if (!all) return null;
	let sum = 0;
	const at = counts.findIndex(n => (sum += n) >= all * .99);
	return at < app.le.length ? `≤ ${brief(app.le[at])}` : "> 1 h";
}
/** Points of a curve. */
function spark(value) {
	const now = performance.now(), all = Math.max(now - app.history[0].at, 6e4), step = all / 60, points = [];
	let last = null;
	for (const it of app.history) {
		if (last && it.at - last.at < step) continue;
		const y = value(it, last);
		if (y != null) points.push([1 - (now - it.at) / all, y]);
		last = it;
	}
	if (points.length < 5) return null;
	const top = Math.max(...points.map(p => p[1]), 1e-9);
	return "M" + points.map(([x, y]) => `${(x * 64).toFixed(1)} ${(23 - y / top * 21).toFixed(1)}`).join("L");
}
const stats = {};
function stat(label, value, attrs = {}) {
	const el = stats[label] ??= (() => {
		const dd = h("dd"), path = s("path"), svg = s("svg", { class: "spark", viewBox: "0 0 64 24", "aria-hidden": "true" }, path);
		$("stats").append(h("div", {}, h("dt", {}, label), dd, svg));
		return { dd, path, svg };
	})();
	text(el.dd, value ?? "–");
	set(el.dd, "data-heat", attrs.heat ?? 0);
	set(el.path, "d", attrs.line ?? "");
}
const perSecond = (it, last) => last && (it.grants - last.grants) / (it.at - last.at);

/** Banners, each under a key: nobody hears one twice. */
function banners(all) {
	const box = $("banners"), kept = box.kept ??= new Map();
	for (const [key, el] of kept) if (!all.some(it => it?.key === key)) { el.remove(); kept.delete(key); }
	for (const it of all) {
		if (!it) continue;
		if (!kept.has(it.key)) {
			const el = h("div", { class: "banner", "data-kind": it.kind }, h("b"), h("span", { "aria-live": "off" }));
			kept.set(it.key, el);
			box.append(el);
		}
		const el = kept.get(it.key);
		text(el.firstChild, it.title);
		text(el.lastChild, it.text);
	}
}

function header() {
	const now = performance.now(), quiet = now - app.heard, { server, me, cluster } = app;
	// What is not heard of stands still.
	const seen = Math.min(now, app.heard + STALE_MS), since = seen - app.serverAt;
	const stale = quiet > STALE_MS, old = app.scene != null && now - app.scene;
	document.body.classList.toggle("stale", stale);
	const pill = $("live");
	set(pill, "data-state", stale || app.wrong ? "stale" : !server ? "" : old > OLD_MS ? "old" : "live");
	text(pill, app.wrong ? "signed out" : app.away ? "standby" : stale ? `stale: ${span(quiet)}` : !server ? "connecting" : old > OLD_MS ? `waits ${span(old)} old` : "live");
	text($("who"), me?.principal && me.principal !== "anyone" ? me.principal : me?.open ? "open to all" : "Sign in");
	if (server) {
		const among = cluster ? ` · ${cluster.leader} leads ${cluster.name} for ${span(cluster.led_ms + since)}, ${cluster.in_sync ? cluster.standby ?? "one" : "nobody"} in sync` : "";
		text($("about"), `${server.version} · epoch ${count(server.epoch)} · up ${span(server.uptime_ms + since)}${among}`);
		const wait = app.waits?.locks.length ? longest(app.waits.locks[0]) + seen - app.at : 0;
		stat("Waiting", count(server.waiting), { line: spark(it => it.waiting) });
		stat("Longest wait", wait ? span(wait) : null, { heat: heat(wait) });
		stat("Locks", count(server.locks));
		stat("Sessions", count(server.sessions));
		const now_rate = rate();
		stat("Grants/s", now_rate == null ? null : now_rate < 10 ? +now_rate.toFixed(1) : count(Math.round(now_rate)), { line: spark(perSecond) });
		stat("p99 wait, 10 s", p99());
	}
	const sees = me && !me.open && !me.may.some(rule => rule.do.includes("see") && rule.names === "*");
	const names = sees && me.may.filter(rule => rule.do.includes("see")).map(rule => visible(rule.names)).join(", ");
	banners([
		app.wrong && { key: "wrong", kind: "hot", title: "Not signed in.", text: app.wrong },
		app.away ? { key: "away", kind: "warm", title: "Ask the leader.", text: app.away } :
		!app.wrong && (stale || !server && app.trouble) && { key: "stale", kind: "hot", title: "No news.", text: app.trouble || "The coordinator does not answer. What you see may not be so any more." },
		server?.grace_ms > since && { key: "grace", kind: "warm", title: `Grace period, ${span(server.grace_ms - since)} left.`, text: "After a crash without a journal: holders get their locks back, everybody else waits." },
		server?.unsaved_ms > 0 && { key: "unsaved", kind: "hot", title: `Nothing was saved for ${span(server.unsaved_ms)}.`, text: "Look at the disk of the data directory: granting will stop." },
		server?.draining && { key: "draining", kind: "warm", title: "Stopping.", text: "Holders may finish; nobody else gets anything here." },
		app.deadlock && now - app.deadlock < 60_000 && { key: "deadlock", kind: "warm", title: `A deadlock was refused ${span(now - app.deadlock)} ago.`, text: `One request was told no, so that the others go on; events name the circle. ${plural(app.deadlocks, "deadlock")} since the start.` },
		sees && { key: "sees", kind: "", title: `You see ${names ? "these names only:" : "no locks."}`, text: names || `${me.principal} has no rule with see.` },
	]);
}

const THEMES = [["", "as the system", "◐"], ["light", "light", "☀"], ["dark", "dark", "☾"]];
function theme(next) {
	const now = Math.max(0, THEMES.findIndex(([it]) => it === (localStorage.getItem("theme") ?? "")));
	const [name, words, sign] = THEMES[(now + next) % THEMES.length];
	localStorage.setItem("theme", name);
	set(document.documentElement, "data-theme", name || null);
	text($("theme"), sign);
	set($("theme"), "aria-label", `Colours: ${words}`);
}
function keys(event) {
	if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
	const typing = event.target.matches("input");
	if (event.key === "Escape") {
		if (typing) event.target.blur();
		else if (app.selected != null) app.select(null);
		return;
	}
	if (typing) return;
	const now = views[shown];
	const move = step => {
		const rows = now.rows().map(tr => tr.querySelector("[data-row]")).filter(Boolean);
		const at = rows.indexOf(document.activeElement);
		rows[Math.min(rows.length - 1, Math.max(0, at < 0 ? 0 : at + step))]?.focus();
	};
	const tab = Object.keys(views)[event.key - 1];
	const act = tab ? () => { location.hash = "#" + tab; } : {
		"/": () => now.focus(), j: () => move(1), k: () => move(-1), ArrowDown: () => move(1), ArrowUp: () => move(-1),
		b: () => panel?.breakFirst(), p: () => now.pause?.(), "?": () => keysDialog(),
	}[event.key];
	const inRow = event.target.matches("[data-row], body, main, a");
	if (!act || event.key.startsWith("Arrow") && !inRow) return;
	event.preventDefault();
	act();
}

theme(0);
$("theme").onclick = () => theme(1);
$("help").onclick = () => keysDialog();
$("who").onclick = async () => app.me?.open ? app.explain(await app.mayBreak()) : signIn(app);
addEventListener("hashchange", route);
addEventListener("keydown", keys);
document.querySelector(".skip").onclick = event => { event.preventDefault(); $("main").focus(); };
setInterval(() => {
	if (performance.now() - app.heard < STALE_MS) {
		tickAll();
		if (!app.me) who();
	}
	header();
}, 1000);
route();
if (app.selected == null) live();
