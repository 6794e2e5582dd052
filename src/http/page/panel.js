// The panel of a lock, and the dialogs: to break it, to sign in, the keys.

import { ask, credential, follow, revoke } from "./api.js";
import { age, button, count, h, list, mode, plural, raw, setAge, shell, span, text, visible } from "./dom.js";
import { eventLine } from "./lists.js";
import { heldBy } from "./waits.js";

const QUEUE_MAX = 50, EVENTS_MAX = 12;

export function panelOf(app, name) {
	const holders = h("ul"), queue = h("ol", { class: "queue" }), log = h("ol", { class: "log" });
	const held = h("h3"), waiting = h("h3"), outlook = h("p", { class: "facts" });
	const line = `coordinator status ${shell(name)}`;
	const copy = button("Copy", async () => { await navigator.clipboard.writeText(line); app.toast("Copied."); }, { class: "quiet" });
	const title = h("h2", { tabindex: -1 }, raw(name));
	const logs = h("section", {}, h("h3", {}, "Since this panel was opened"), log);
	logs.hidden = true;
	const el = h("div", {},
		h("header", {}, title, button("✕", () => app.select(null), { class: "quiet", "aria-label": "Close" })),
		h("section", {}, held, holders, outlook), h("section", {}, waiting, queue), logs,
		h("section", {}, h("h3", {}, "On a terminal"), h("div", { class: "copy" }, h("code", {}, line), copy)));

	function item(it) {
		const li = h("li", { class: "item" }, h("div", { class: "who" }, heldBy({ holders: [it] })), h("div", {}));
		li.time = age(0, 0);
		li.lastChild.append(li.time);
		return li;
	}
	function show({ lock }, at) {
		text(held, !lock ? "Not in use" : lock.holder_count ? `Held by ${lock.holder_count > 1 ? count(lock.holder_count) : ""}`.trim() : "Held by nobody");
		const kept = (lock?.pauses ?? []).filter(it => it.after === "grant").map(it => ({ ...it, kept: true, mode: {}, held_ms: it.granted_ms }));
		list(holders, [...lock?.holders ?? [], ...kept], it => `${it.token}/${it.session}/${it.connected}`, it => {
			const li = item(it);
			li.append(h("div", { class: "facts" }, h("span", {}, `token ${it.token}`), h("span", {}, it.peer)));
			li.append(button("Break…", async () => {
				const may = await app.mayBreak(name, it.token);
				if (document.querySelector("dialog")) return;
				may.ok ? breakDialog(app, name, it, li.time.textContent) : app.explain(may);
			}, { "data-break": it.token }));
			return li;
		}, (li, it) => setAge(li.time, it.held_ms, at));
		text(waiting, lock?.waiter_count ? `${plural(lock.waiter_count, "waits", "wait")}` : "Nobody waits");
		let place = 0;
		list(queue, (lock?.waiters ?? []).slice(0, QUEUE_MAX), it => `${it.session}/${it.request}`, it => {
			const li = item(it);
			li.prepend(h("span", { class: "muted num" }));
			return li;
		}, (li, it) => { text(li.firstChild, `${++place}.`); setAge(li.time, it.waiting_ms, at); });
		const more = (lock?.waiter_count ?? 0) - place;
		if (queue.more) queue.more.remove();
		if (more > 0) queue.append(queue.more = h("li", { class: "muted" }, `and ${plural(more, "other")}`));
		const pauses = (lock?.pauses ?? []).map(it => `Kept free for ${span(it.left_ms)} more, after ${it.after === "loss" ? "the loss" : "the grant"} of ${visible(it.identity)}.`);
		if (lock?.free_ms != null) pauses.unshift(`Free in ${span(lock.free_ms)} at the latest, unless it is prolonged.`);
		outlook.hidden = !pauses.length;
		text(outlook, pauses.join(" "));
	}
	const end = follow(`events?lock=${encodeURIComponent(name)}`, (event, it) => {
		if (!it) return;
		log.append(eventLine(it));
		while (log.children.length > EVENTS_MAX) log.firstChild.remove();
		logs.hidden = false;
	});
	return { el, name, title, stop: end, show, breakFirst() { el.querySelector("[data-break]")?.click(); } };
}

function dialog(...kids) {
	const before = document.activeElement;
	const el = h("dialog", { "aria-labelledby": "ask", onclose: () => { el.remove(); before?.focus?.(); } }, ...kids);
	document.body.append(el);
	el.showModal();
	return el;
}
const cancel = () => button("Cancel", event => event.target.closest("dialog").close());

/** Takes the lock away from that holder and nobody newer. */
export function breakDialog(app, lock, holder, held) {
	const name = h("input", { autocomplete: "off", spellcheck: "false", oninput: check, required: true });
	const why = h("input", { autocomplete: "off", maxlength: 255, oninput: check, required: true });
	const wrong = h("p", { class: "wrong", role: "alert", hidden: true });
	const go = h("button", { type: "submit", class: "danger", disabled: true }, "Break lock");
	const also = h("p");
	// What was asked for at once has one token.
	const names = locks => locks.filter(it => it.holders.some(of => of.token === holder.token)).map(it => it.name);
	let all = new Set([lock]), unsure = false;
	function tell({ locks }) {
		all = new Set([...all, ...names(locks)]);
		const others = [...all].slice(1);
		text(also, `Locks that were asked for together with it go, too${others[0] ? `: ${others.map(visible).join(", ")}` : ""}.`);
	}
	function check() { go.disabled = name.value !== lock || !why.value.trim(); }
	async function act(event) {
		event.preventDefault();
		go.disabled = true;
		try {
			await revoke(lock, holder.token, why.value.trim());
			el.close();
			app.toast(`${[...all].map(it => `“${visible(it)}”`).join(", ")} was taken away from ${visible(holder.identity)}.`);
		} catch (error) {
			const newer = app.holders(lock).find(it => it.token > holder.token), gone = [404, 409].includes(error.status);
			const late = !error.status || error.status === 504;
			const by = newer ? `Somebody newer holds it: ${visible(newer.identity)}, token ${newer.token}.` : "Nobody holds it with that token any more.";
			text(wrong, gone ? `${by} ${unsure ? "It is not known whether the try before has done that." : "Nothing was done."}`
				: late ? "It is not known whether it was taken away, for no answer came in time. Look who holds it." : error.told);
			unsure ||= late;
			wrong.hidden = false;
			go.disabled = gone;
		}
	}
	const el = dialog(h("form", { onsubmit: act },
		h("h2", { id: "ask" }, "Take ", raw(lock, { class: "mono" }), " away?"),
		h("p", {}, raw(holder.identity), holder.kept ? ` has given it back; it is kept free after that grant, token ${holder.token}.` : ` holds it with token ${holder.token}, for ${held}. Until it has heard of this, two may work at a time; resources that check tokens are safe.`), also,
		h("label", {}, "Type the name of the lock", name), h("label", {}, "Why? (for the audit log)", why), wrong,
		h("div", { class: "actions" }, cancel(), go)));
	name.focus();
	tell(app.waits ?? { locks: [] });
	ask("locks?limit=200").then(tell, () => {});
}

export function signIn(app, why) {
	const shown = h("input", { type: "password", autocomplete: "off", spellcheck: "false", required: true, placeholder: "coord_…" });
	const be = value => { credential.set(value); el.close(); app.restart(); };
	const out = button("Sign out", () => be(null));
	const el = dialog(h("form", { onsubmit: event => { event.preventDefault(); be(shown.value.trim()); } }, h("h2", { id: "ask" }, "Sign in"),
		h("p", { class: why && "wrong" }, why ?? "With a credential of the coordinator's access file. It is kept in this tab, and goes with it."),
		h("label", {}, "Credential", shown),
		h("div", { class: "actions" }, credential.get() && out, cancel(), h("button", { type: "submit" }, "Sign in"))));
	shown.focus();
}

export function keysDialog() {
	const keys = [["1 2 3 4", "waits, locks, sessions, events"], ["/", "filter"], ["j k", "next and previous row"], ["Enter", "open the lock"], ["b", "break the lock that is open"], ["p", "pause events"], ["Esc", "close"], ["?", "these keys"]];
	dialog(h("h2", { id: "ask" }, "Keys"), h("dl", { class: "keys" }, keys.flatMap(([key, does]) => [h("dt", {}, key.split(" ").flatMap(k => [h("kbd", {}, k), " "])), h("dd", {}, does)])),
		h("form", { method: "dialog", class: "actions" }, h("button", {}, "Close")));
}
