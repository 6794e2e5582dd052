// What waits: table, tree, and the graph of locks that hang together.

import { age, button, count, h, list, mode, plural, raw, s, search, set, setAge, span, table, text, visible } from "./dom.js";

const TREE_MAX = 120, GRAPH_MAX = 60, LEAVES_MAX = 5;

/** For how long the first has waited. */
export const longest = lock => lock.waiters.reduce((max, it) => Math.max(max, it.waiting_ms), 0);

export function waitsView(app) {
	const body = h("tbody"), note = h("p", { class: "more" }), tree = h("div", { class: "tree" }), graph = h("div", { class: "scroll pad", tabindex: 0, role: "region", "aria-label": "Graph" });
	const around = h("h2"), graphs = h("div", { class: "card", hidden: true }, around, graph);
	const title = h("h2", {}, "What waits");
	const input = search("Filter by name or identity", draw);
	const calm = h("div", { class: "card calm", hidden: true },
		s("svg", { viewBox: "0 0 54 54", "aria-hidden": "true" }, s("circle", { cx: 27, cy: 27, r: 27 }), s("path", { d: "M17 28l7 7 14-16" })),
		h("h2", {}, "Nobody waits."), h("p", { class: "muted" }));
	const shown = h("div", {},
		h("div", { class: "card" }, table("waits", ["Lock", "Held by", "Held for", "Waiting", "Longest wait", "Token"], body), note), graphs,
		h("div", { class: "card" }, h("h2", {}, "Who waits for whom"), tree));
	const bar = h("div", { class: "bar" }, title, input), el = h("div", {}, bar, calm, shown);

	function draw() {
		const { waits, at } = app;
		if (!waits) return;
		const none = waits.contended === 0;
		calm.hidden = !none;
		shown.hidden = bar.hidden = none;
		if (none) text(calm.lastChild, app.lastWait ? `Last wait: ${span(performance.now() - app.lastWait)} ago.` : "Nobody has, since this page was opened.");
		const word = input.value.toLowerCase();
		const is = value => value.toLowerCase().includes(word);
		const locks = waits.locks.filter(lock => !word || is(lock.name) || [...lock.holders, ...lock.waiters].some(it => is(it.identity)));
		list(body, locks, lock => lock.name, lock => row(app, lock), (tr, lock) => update(tr, lock, at, app));
		text(title, `${plural(waits.contended, "lock")}, ${plural(waits.waiting, "request waits", "requests wait")}`);
		note.hidden = waits.complete && !word;
		text(note, word ? `${count(locks.length)} of ${count(waits.locks.length)} listed match.` : `These ${count(waits.locks.length)} of ${count(waits.contended)} have the longest waits.`);
		const had = tree.contains(document.activeElement) && document.activeElement.textContent;
		tree.replaceChildren(drawTree(app, locks, at));
		if (had) [...tree.querySelectorAll("button")].find(it => it.textContent === had)?.focus();
		const svg = app.selected != null && drawGraph(waits.locks, app.selected);
		graphs.hidden = !svg;
		text(around, `Around ${visible(app.selected ?? "")}`);
		graph.replaceChildren(svg || "");
	}
	return { el, draw, focus: () => input.focus(), rows: () => [...body.children] };
}

function row(app, lock) {
	const cell = (label, cls) => h("td", { class: cls, "data-label": label });
	const tr = h("tr", { class: "pick", onclick: () => app.select(lock.name) },
		cell("", "name"), cell("", "wide who"), cell("", "r"), cell("waiting", "r num"), cell("", "r key"), cell("", "r num"));
	tr.name = lock.name;
	tr.cells[0].append(button(raw(lock.name), null, { class: "link", "data-row": "" }));
	tr.held = age(0, 0);
	tr.cells[2].append(tr.held);
	tr.wait = age(0, 0);
	tr.wait.heat = h("span", { class: "heat" }, tr.wait);
	tr.cells[4].append(tr.wait.heat);
	return tr;
}
function update(tr, lock, at, app) {
	const [first] = lock.holders;
	set(tr, "aria-current", app.selected === lock.name && "true");
	tr.cells[1].replaceChildren(...heldBy(lock));
	tr.held.hidden = !first;
	if (first) setAge(tr.held, first.held_ms, at);
	for (const [n, label] of [[2, "held"], [5, "token"]]) set(tr.cells[n], "data-label", first && label);
	setAge(tr.wait, longest(lock), at);
	text(tr.cells[3], count(lock.waiter_count));
	text(tr.cells[5], first?.token ?? "");
}
const tags = holder => [
	mode(holder.mode) && h("span", { class: "tag" }, mode(holder.mode)),
	holder.kept && h("span", { class: "tag" }, "kept"),
	holder.connected === false && h("span", { class: "tag hot" }, "disconnected"),
].filter(Boolean);

/** Who holds a lock: the first, with its note, and how many others. */
export function heldBy({ holders: [first], holder_count: all }) {
	const sub = [first?.note, all > 1 && `and ${plural(all - 1, "other")}`].filter(Boolean).map(visible).join(" · ");
	return [first ? h("div", {}, raw(first.identity), " ", ...tags(first)) : h("div", { class: "muted" }, "nobody"), h("div", { class: "sub" }, sub)];
}

/** An owner: who gives back what it has when all that it asked for is granted. */
const owner = it => `${it.session}/${it.owner || "r" + it.request}`;

/** All owners, with what each holds and waits for, among these locks. */
function owners(locks) {
	const all = new Map();
	const of = it => {
		const key = owner(it);
		if (!all.has(key)) all.set(key, { key, identity: it.identity, holds: [], waits: [] });
		return all.get(key);
	};
	for (const lock of locks) {
		for (const holder of lock.holders) of(holder).holds.push({ lock, holder });
		for (const waiter of lock.waiters) of(waiter).waits.push({ lock, waiter });
	}
	return all;
}

/** The tree: below each those that wait for it. */
function drawTree(app, locks, at) {
	const all = owners(locks), seen = new Set();
	// Who is on top may wait for what the filter hides, or behind those that are told of a long queue.
	const known = owners(app.waits.locks), isCut = !app.waits.complete || app.waits.locks.some(it => it.waiter_count > it.waiters.length);
	let left = TREE_MAX, cut = 0;
	const pick = name => button(raw(name), () => app.select(name), { class: "link name" });
	const branch = (of, path) => of.holds.map(({ lock, holder }) => {
		if (!lock.waiter_count) return null;
		const kids = [];
		for (const waiter of lock.waiters) {
			const next = all.get(owner(waiter));
			if (--left < 0) { cut++; continue; }
			const cycle = path.includes(next.key);
			kids.push(h("li", {}, h("div", { class: "row" }, raw(waiter.identity),
				h("span", { class: "muted" }, "waits ", age(waiter.waiting_ms, at), mode(waiter.mode) && `, ${mode(waiter.mode)}`),
				cycle && h("span", { class: "tag hot" }, "in a circle")),
			cycle || seen.has(next.key) ? null : (seen.add(next.key), branch(next, [...path, next.key]))));
		}
		const more = lock.waiter_count - lock.waiters.length;
		if (more) kids.push(h("li", { class: "muted" }, `and ${plural(more, "other")}`));
		return h("ul", {}, h("li", {}, h("div", { class: "row" }, h("span", { class: "muted" }, "holds"), pick(lock.name),
			h("span", { class: "muted" }, "for ", age(holder.held_ms, at))), h("ul", {}, kids)));
	});
	const roots = [...all.values()].filter(it => it.holds.length).sort((a, b) => a.waits.length - b.waits.length);
	const items = [];
	for (const root of roots) {
		if (seen.has(root.key) || left <= 0) { if (!seen.has(root.key)) cut++; continue; }
		seen.add(root.key);
		const [wait] = known.get(root.key).waits;
		const why = wait ? ["waits for ", pick(wait.lock.name)] : isCut && "may wait, too: not all that wait are told here";
		items.push(h("li", {}, h("div", { class: "row" }, raw(root.identity), why && h("span", { class: "muted" }, why)), branch(root, [root.key])));
	}
	for (const lock of locks) if (!lock.holders.length) items.push(h("li", {}, h("div", { class: "row" }, h("span", { class: "muted" }, "nobody holds"), pick(lock.name)), h("ul", {}, lock.waiters.map(it => h("li", {}, raw(it.identity))))));
	return items.length ? h("ul", { class: "roots" }, items, cut > 0 && h("li", { class: "muted" }, "The rest is left out here; filter, or select a lock.")) : h("p", { class: "muted" }, "Nothing matches.");
}

/** The graph of all that hangs together with a lock, if there is one. */
function drawGraph(locks, name) {
	const all = owners(locks);
	const start = locks.find(lock => lock.name === name);
	if (!start) return null;
	// Locks hang together by owners that hold one and wait for another.
	const reached = new Set([name]), todo = [start];
	while (todo.length) {
		const lock = todo.pop();
		for (const it of [...lock.holders, ...lock.waiters]) {
			const of = all.get(owner(it));
			for (const { lock: other } of [...of.holds, ...of.waits]) {
				if (!reached.has(other.name)) { reached.add(other.name); todo.push(other); }
			}
		}
	}
	const part = locks.filter(lock => reached.has(lock.name));
	const nodes = new Map(), edges = [];
	const node = key => {
		if (!nodes.has(key)) nodes.set(key, { key, label: all.get(key).identity, layer: 0, from: [] });
		return nodes.get(key);
	};
	for (const lock of part) {
		const holders = lock.holders.map(it => node(owner(it)));
		let leaves = 0, folded = 0;
		for (const waiter of lock.waiters) {
			const key = owner(waiter), leaf = !all.get(key).holds.length;
			if (leaf && ++leaves > LEAVES_MAX || nodes.size >= GRAPH_MAX && !nodes.has(key)) { folded++; continue; }
			for (const to of holders) edges.push({ from: node(key), to, lock, ms: waiter.waiting_ms });
		}
		folded += lock.waiter_count - lock.waiters.length;
		if (folded && holders.length) {
			const more = { key: "+" + lock.name, label: `and ${plural(folded, "other")}`, layer: 0, from: [], more: true };
			nodes.set(more.key, more);
			for (const to of holders) edges.push({ from: more, to, lock });
		}
	}
	if (!edges.length) return null;
	for (const it of start.holders) node(owner(it)).chosen = 1;
	layers([...nodes.values()], edges);
	return picture([...nodes.values()], edges, name);
}

/** Layers by the longest path; what closes a circle is drawn back. */
function layers(nodes, edges) {
	const out = new Map(nodes.map(it => [it, []]));
	for (const edge of edges) out.get(edge.from).push(edge);
	const state = new Map();
	const visit = node => {
		state.set(node, 1);
		for (const edge of out.get(node)) {
			if (state.get(edge.to) === 1) { edge.back = true; continue; }
			if (!state.has(edge.to)) visit(edge.to);
			node.layer = Math.max(node.layer, edge.to.layer + 1);
		}
		state.set(node, 2);
	};
	for (const node of nodes) if (!state.has(node)) visit(node);
	const rows = [];
	for (const node of nodes) (rows[node.layer] ??= []).push(node);
	const place = row => row?.forEach((node, n) => { node.row = n; });
	rows.forEach(place);
	for (let sweep = 0; sweep < 4; sweep++) {
		for (const row of rows.slice(1)) {
			const centre = node => {
				const to = out.get(node).filter(edge => !edge.back).map(edge => edge.to.row);
				return to.length ? to.reduce((a, b) => a + b) / to.length : node.row;
			};
			row.forEach(node => { node.centre = centre(node); });
			row.sort((a, b) => a.centre - b.centre);
			place(row);
		}
	}
}

function picture(nodes, edges, name) {
	const W = 186, H = 34, GAP = 92, ROW = 48;
	const deep = Math.max(...nodes.map(it => it.layer)) + 1, tall = Math.max(...nodes.map(it => it.row)) + 1;
	const width = deep * W + (deep - 1) * GAP + 4, height = tall * ROW - (ROW - H) + 4;
	const x = it => 2 + it.layer * (W + GAP), y = it => 2 + it.row * ROW;
	const short = (label, max) => [...label].length > max ? [...label].slice(0, max - 1).join("") + "…" : label;
	const told = new Set(), lines = [], labels = [];
	for (const { from, to, lock, back } of edges) {
		const x1 = x(from), y1 = y(from) + H / 2, x2 = x(to) + W, y2 = y(to) + H / 2, mid = (x1 + x2) / 2;
		const d = back ? `M${x1 + W / 2} ${y1 - H / 2}C${x1 + W / 2} ${y1 - 40} ${x2 - W / 2} ${y2 - 40} ${x2 - W / 2} ${y2 - H / 2}` : `M${x1} ${y1}C${mid} ${y1} ${mid} ${y2} ${x2 + 5} ${y2}`;
		lines.push(s("path", { d, class: back && "back", "marker-end": "url(#to)" }));
		const label = `${lock.name}>${to.key}`;
		if (told.has(label)) continue;
		told.add(label);
		labels.push(s("text", { x: x2 + GAP / 2, y: y2 - 6, "text-anchor": "middle", class: "edge" }, short(visible(lock.name), 13)));
	}
	const boxes = nodes.map(it => s("g", { class: it.chosen && "root" },
		it.more ? null : s("rect", { x: x(it), y: y(it), width: W, height: H, rx: 7 }),
		s("text", { x: x(it) + 10, y: y(it) + H / 2 + 4, class: it.more && "sub" }, short(visible(it.label), 25)),
		s("title", {}, visible(it.label))));
	const marker = s("defs", {}, s("marker", { id: "to", viewBox: "0 0 6 6", refX: 5, refY: 3, markerWidth: 6, markerHeight: 6, orient: "auto" }, s("path", { d: "M0 0L5 3L0 6" })));
	const about = `Who waits for whom around ${visible(name)}. The tree below says the same.`;
	return s("svg", { class: "graph", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": about }, marker, lines, labels, boxes);
}
