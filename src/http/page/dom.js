// Elements, lists that keep their elements, and words for numbers. No markup is ever made from text.

const SVG = "http://www.w3.org/2000/svg";

function fill(el, attrs, kids) {
	for (const [name, value] of Object.entries(attrs ?? {})) {
		if (name.startsWith("on")) value && el.addEventListener(name.slice(2), value);
		else if (value === true) el.setAttribute(name, "");
		else if (value !== false && value != null) el.setAttribute(name, value);
	}
	el.append(...kids.flat().filter(kid => kid != null && kid !== false));
	return el;
}
export const h = (tag, attrs, ...kids) => fill(document.createElement(tag), attrs, kids);
export const s = (tag, attrs, ...kids) => fill(document.createElementNS(SVG, tag), attrs, kids);
export const button = (label, onclick, attrs) => h("button", { type: "button", onclick, ...attrs }, label);
/** A table of these columns, of which the third and what follows are figures. */
export const table = (about, columns, ...kids) => h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Table of ${about}` },
	h("table", {}, h("thead", {}, h("tr", {}, columns.map((it, n) => h("th", { scope: "col", class: n > 1 && "r" }, it)))), ...kids));
/** Where one types what to look for. */
export const search = (about, act) => h("input", { type: "search", placeholder: about, "aria-label": about, oninput({ target: it }) { clearTimeout(it.later); it.later = setTimeout(act, 200); } });
export const $ = id => document.getElementById(id);

/** Sets text where it is another: selections stay. */
export function text(el, value) {
	value = String(value);
	if (el.textContent !== value) el.textContent = value;
	return el;
}
/** Sets an attribute, or takes it away. */
export function set(el, name, value) {
	if (value === false || value == null) el.removeAttribute(name);
	else if (el.getAttribute(name) !== String(value)) el.setAttribute(name, value);
}
/** Makes the children of `parent` those of `items`; elements stay with their keys. */
export function list(parent, items, key, make, update) {
	const old = parent.kept ?? new Map(), kept = new Map();
	let at = parent.firstChild;
	for (const item of items) {
		const id = key(item);
		if (kept.has(id)) continue;
		const el = old.get(id) ?? make(item);
		old.delete(id);
		kept.set(id, el);
		update?.(el, item);
		if (el === at) at = at.nextSibling;
		else parent.insertBefore(el, at);
	}
	for (const el of old.values()) el.remove();
	parent.kept = kept;
}

export const count = n => Number(n).toLocaleString("en");
export const plural = (n, one, many = one + "s") => `${count(n)} ${n === 1 ? one : many}`;
/** 0.4s, 12s, 4m 12s, 3h 12m, 2d 3h */
export function span(ms) {
	const secs = Math.max(0, ms) / 1000;
	if (secs < 10) return secs.toFixed(1) + "s";
	const n = Math.floor(secs), two = (a, x, b, y) => b ? `${a}${x} ${b}${y}` : `${a}${x}`;
	if (n < 60) return n + "s";
	if (n < 3600) return two(Math.floor(n / 60), "m", n % 60, "s");
	if (n < 86400) return two(Math.floor(n / 3600), "h", Math.floor(n / 60) % 60, "m");
	return two(Math.floor(n / 86400), "d", Math.floor(n / 3600) % 24, "h");
}
/** A short one for figures: 0.8 ms, 12 ms, 1.2 s */
export const brief = ms => ms < 10 ? `${+ms.toFixed(1)} ms` : ms < 1000 ? `${Math.round(ms)} ms` : span(ms);

/** An age that goes on by itself: `ms` old at the moment `at` of this page's clock. */
export function age(ms, at, attrs = {}) {
	return setAge(h("span", { class: "num", ...attrs }), ms, at);
}
export function setAge(el, ms, at) {
	el.born = at - ms;
	el.classList.add("age");
	tick(el, performance.now());
	return el;
}
function tick(el, now) {
	const ms = now - el.born;
	text(el, span(ms));
	if (el.heat) set(el.heat, "data-heat", heat(ms));
}
/** 0, 1 from half a minute on, 2 from five minutes on. */
export const heat = ms => ms >= 300_000 ? 2 : ms >= 30_000 ? 1 : 0;
/** Lets all ages go on. */
export function tickAll() {
	const now = performance.now();
	for (const el of document.getElementsByClassName("age")) tick(el, now);
}

/** Client-chosen text: as it is, within its own direction; what cannot be seen is written out. */
export function raw(value, attrs = {}) {
	return h("bdi", attrs, visible(value));
}
export const visible = value => value.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}]/gu,
	c => `\\u{${c.codePointAt(0).toString(16)}}`);
export const mode = m => m.kind === "shared" ? "shared" : m.kind === "permits" ? `${m.take} of ${m.of} permits` : "";
/** A name as it is typed into a shell. */
export const shell = name => /^[\w./:@%+,-]+$/.test(name) ? name : `'${name.replaceAll("'", `'\\''`)}'`;
