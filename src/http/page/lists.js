// Locks and sessions by the page, and events as they happen.

import { ask, follow } from "./api.js";
import { age, button, count, h, mode, raw, search, set, table, text, visible } from "./dom.js";
import { heldBy } from "./waits.js";

/** A list that is read by pages. */
function paged(app, { title, columns, items, make, prefix }) {
	const body = h("tbody"), heading = h("h2", {}, title), note = h("p", { class: "more" });
	let cursors = [null], next = null, stop = new AbortController();
	const input = prefix && search("Names that begin with…", () => first());
	const back = button("Previous", () => { cursors.pop(); load(); }), on = button("Next", () => { cursors.push(next); load(); });
	const el = h("div", {}, h("div", { class: "bar" }, heading, input, button("Refresh", () => load()), back, on),
		h("div", { class: "card" }, table(items, columns, body), note));
	const first = () => { cursors = [null]; load(); };
	async function load() {
		stop.abort();
		stop = new AbortController();
		const asked = new URLSearchParams({ limit: 200 });
		const cursor = cursors.at(-1);
		if (cursor) asked.set("cursor", cursor);
		if (input?.value) asked.set("prefix", input.value);
		try {
			const page = await ask(`${items}?${asked}`, { signal: stop.signal }), at = performance.now();
			next = page.next;
			body.replaceChildren(...page[items].map(item => make(item, at)));
			text(note, body.children.length ? `As of ${new Date().toLocaleTimeString("en-GB")}${next ? "; there is more" : ""}.` : next ? "Nothing on this page; there is more." : "There are none.");
		} catch (error) {
			if (error.name === "AbortError") return;
			if (error.code === "Gone") return first();
			app.problem(error);
			body.replaceChildren();
			text(note, error.told);
		}
		back.disabled = cursors.length < 2;
		on.disabled = !next;
		draw();
	}
	function draw() {
		const total = app.server?.[items];
		text(heading, total == null ? title : `${title}: ${count(total)}`);
		for (const tr of body.children) if (tr.name) set(tr, "aria-current", tr.name === app.selected && "true");
	}
	return { el, draw, start: first, stop: () => stop.abort(), focus: () => input?.focus(), rows: () => [...body.children] };
}

export const locksView = app => paged(app, {
	title: "Locks", items: "locks", prefix: true,
	columns: ["Lock", "Held by", "Held for", "Waiting", "Token"],
	make(lock, at) {
		const [holder] = lock.holders;
		const tr = h("tr", { class: "pick", onclick: () => app.select(lock.name) },
			h("td", { class: "name" }, button(raw(lock.name), null, { class: "link", "data-row": "" })),
			h("td", { class: "wide who" }, heldBy(lock)),
			h("td", { class: "r key" }, holder && age(holder.held_ms, at)),
			h("td", { class: "r num", "data-label": "waiting" }, count(lock.waiter_count)),
			h("td", { class: "r num", "data-label": "token" }, holder?.token));
		tr.name = lock.name;
		return tr;
	},
});

/** What is left of a lease, if it ends. */
const leaseLeft = ({ lease_left_ms: left, ttl_ms: ttl }) => left == null ? "no end"
	: `${(left / 1000).toFixed(1)}s${ttl ? ` of ${ttl / 1000}s` : ""}`;

export const sessionsView = app => paged(app, {
	title: "Sessions", items: "sessions",
	columns: ["Identity", "Address", "Since", "Lease left", "Holds", "Waits"],
	make: (it, at) => h("tr", {},
		h("td", { class: "who" }, raw(it.identity), " ", !it.connected && h("span", { class: "tag hot" }, "disconnected")),
		h("td", { class: "wide mono muted" }, it.peer),
		h("td", { class: "r key" }, age(it.age_ms, at)),
		h("td", { class: "r num", "data-label": "lease left" }, leaseLeft(it)),
		h("td", { class: "r num", "data-label": "holds" }, count(it.held)),
		h("td", { class: "r num", "data-label": "waits" }, count(it.waiting))),
});

const KEPT = 500;

/** One event, as a line. */
export function eventLine(it) {
	const missing = it.what === "gap" ? "The connection was lost: what happened meanwhile is not here." : it.what === "missed" && `${count(it.count)} events are left out here: they were not read in time.`;
	if (missing) return h("li", { "data-what": "missed" }, h("time", {}, "…"), h("span", { class: "what" }, it.what), h("span", {}, missing));
	const at = new Date(it.at_ms);
	const about = it.what === "queued" ? `place ${it.position}` : it.what === "lost" ? `${it.reason}, token ${it.token}` : it.what === "rejected" ? `${it.code}: ${visible(it.message)}` : it.token ? `token ${it.token}` : "";
	const claims = it.claims.flatMap((claim, n) => [n ? ", " : "", raw(claim.name, { class: "name" }), mode(claim.mode) && ` ${mode(claim.mode)}`]);
	return h("li", { "data-what": it.what }, h("time", { datetime: at.toISOString() }, at.toLocaleTimeString("en-GB") + "." + String(at.getMilliseconds()).padStart(3, "0")),
		h("span", { class: "what" }, it.what), h("span", {}, claims, " ", h("span", { class: "muted" }, raw(it.identity), about && ` · ${about}`)));
}

export function eventsView(app) {
	const log = h("ol", { class: "log tall", tabindex: 0, "aria-label": "Events, the newest at the end" });
	const about = h("p", { class: "more" });
	const input = search("Of this lock only", start);
	const pause = button("Pause", toggle);
	const el = h("div", {}, h("div", { class: "bar" }, h("h2", {}, "Events"), input, pause), h("div", { class: "card" }, log, about));
	let end = () => {}, waiting = [], paused = false, due = false, deaf = null;
	function toggle() {
		paused = !paused;
		text(pause, paused ? "Go on" : "Pause");
		flush();
	}
	function flush() {
		due = false;
		if (paused) { waiting = waiting.slice(-KEPT); return tell(); }
		const low = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
		log.append(...waiting.slice(-KEPT).map(eventLine));
		waiting = [];
		while (log.children.length > KEPT) log.firstChild.remove();
		if (low) log.scrollTop = log.scrollHeight;
		tell();
	}
	const tell = () => text(about, deaf ?? (paused ? `Paused; ${count(waiting.length)} new.` : log.children.length ? `The last ${count(log.children.length)}.` : "Listening. What happens from now on shows here."));
	function start() {
		end();
		const of = input.value.trim();
		tell();
		end = follow(of ? `events?lock=${encodeURIComponent(of)}` : "events", (event, data) => {
			if (event === "open") { deaf = null; tell(); }
			if (!data) return;
			waiting.push(data);
			if (!due) { due = true; setTimeout(flush, 120); }
		}, error => {
			app.problem(error);
			deaf = error.status ? error.told : "The connection was lost; what happens is not shown.";
			tell();
		});
	}
	return { el, draw() {}, start, stop: () => end(), focus: () => input.focus(), pause: toggle, rows: () => [] };
}
