// The API: questions, and streams that come back by themselves.

const KEY = "coordinator-credential";
export const credential = {
	get: () => sessionStorage.getItem(KEY),
	set: value => value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY),
};
export class Problem extends Error {
	constructor(status, error) {
		super(error?.message ?? "the coordinator does not answer");
		this.status = status;
		this.code = error?.code;
		this.told = [this.message, error?.hint].filter(Boolean).join(": ");
	}
}
async function send(path, options = {}) {
	const headers = { ...options.headers };
	const shown = credential.get();
	// The browser would refuse it without a word to the coordinator.
	if (/[^!-~]/.test(shown ?? "")) throw new Problem(401, { message: "What was typed is no credential." });
	if (shown) headers.Authorization = `Bearer ${shown}`;
	let answer;
	try {
		answer = await fetch(`/api/v1/${path}`, { ...options, headers, credentials: "omit", cache: "no-store" });
	} catch (error) {
		if (error.name === "AbortError") throw error;
		throw new Problem(0);
	}
	if (answer.ok) return answer;
	const told = await answer.json().catch(() => null);
	throw new Problem(answer.status, told?.error);
}
export const ask = async (path, options) => (await send(path, options)).json();
export const revoke = (name, token, reason) => ask(`locks/${encodeURIComponent(name)}/revoke`, {
	method: "POST",
	headers: { "Content-Type": "application/json", "X-Coordinator": "1" },
	body: JSON.stringify({ token, reason }),
});

/** Follows a stream until it is stopped. `on(event, data)` hears of each, and of gaps; `lost(problem)` of each end. */
export function follow(path, on, lost) {
	const stop = new AbortController();
	(async () => {
		let pause = 250, open;
		while (!stop.signal.aborted) {
			try {
				const answer = await send(path, { signal: stop.signal });
				open = true;
				on("open");
				for await (const [event, data] of events(answer.body, on)) {
					pause = 250;
					if (event === "end") throw new Problem(data.error.code === "Unauthenticated" ? 401 : 503, data.error);
					on(event, data);
				}
				throw new Problem(0);
			} catch (error) {
				if (stop.signal.aborted) return;
				if (open) on("gap", { what: "gap" });
				open = false;
				lost?.(error);
			}
			await new Promise(done => setTimeout(done, pause));
			pause = Math.min(pause * 2, 4000);
		}
	})();
	return () => stop.abort();
}
/** The events of a body; a comment is a sign of life. */
async function* events(body, on) {
	const reader = body.pipeThrough(new TextDecoderStream()).getReader();
	let rest = "";
	for (;;) {
		const { done, value } = await reader.read();
		if (done) return;
		const parts = (rest + value).split("\n\n");
		rest = parts.pop();
		on("alive");
		for (const part of parts) {
			let event = "message", data = "";
			for (const line of part.split("\n")) {
				if (line.startsWith("event: ")) event = line.slice(7);
				else if (line.startsWith("data: ")) data += line.slice(6);
			}
			if (data) yield [event, JSON.parse(data)];
		}
	}
}
