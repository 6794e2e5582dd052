// A coordinator of the test's own, the clients that it has, and a browser that watches what the page does.
import { execFileSync, spawn } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";

import { chromium } from "playwright-core";

const root = path.resolve(import.meta.dirname, "../..");
export const bin = process.env.COORDINATOR_BIN ?? path.join(root, "target/debug/coordinator");
const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** Looks again and again until there is something to see; fails when that takes far too long. */
export async function eventually(what, look, patience = 20_000) {
	const began = Date.now();
	for (;;) {
		const seen = await look();
		if (seen) return seen;
		if (Date.now() - began > patience) throw new Error(`not so: ${what}`);
		await new Promise(done => setTimeout(done, 50));
	}
}

/** A coordinator where everybody locks and sees, and `oncall` breaks. */
export class Coordinator {
	constructor() {
		this.home = fs.mkdtempSync(path.join(os.tmpdir(), "page-"));
		this.children = [];
		const [credential, line] = this.credential("oncall");
		this.oncall = credential;
		const access = `[[principal]]\nname = "oncall"\ncredentials = ["${line}"]\n`
			+ `may = [ { do = ["see", "break"], names = ["*"] }, { do = ["admin"] } ]\n`
			+ `[anyone]\nmay = [ { do = ["lock", "see"], names = ["*"] } ]\n`;
		fs.writeFileSync(path.join(this.home, "access.toml"), access, { mode: 0o600 });
	}
	credential(name) {
		const told = path.join(this.home, "told");
		const file = fs.openSync(told, "w");
		const credential = execFileSync(bin, ["access", "new-credential", name], { stdio: ["ignore", "pipe", file] });
		return [credential.toString().trim(), /sha256:[0-9a-f]+/.exec(fs.readFileSync(told))[0]];
	}
	/** Starts it; again at the same ports. */
	async start(...flags) {
		const log = path.join(this.home, "log");
		const file = fs.openSync(log, "w");
		const [listen, http] = [this.locks ?? "127.0.0.1:0", this.http ?? "127.0.0.1:0"];
		const words = ["serve", "--data-dir", path.join(this.home, "data"), "--listen", listen, "--http-listen", http, "--access-file", path.join(this.home, "access.toml"), ...flags];
		this.server = spawn(bin, words, { stdio: ["ignore", "ignore", file], cwd: this.home });
		await eventually("the coordinator is ready", () => fs.readFileSync(log, "utf8").includes("ready in"));
		const said = fs.readFileSync(log, "utf8");
		this.http = /probes and metrics on http:\/\/(\S+)/.exec(said)[1];
		this.locks = /locks on ([\d.:]+)/.exec(said)[1];
		return this;
	}
	get url() { return `http://${this.http}/`; }
	/** A client that holds or waits for a lock, until it is ended. */
	hold(name, ...flags) {
		const env = { ...process.env, COORDINATOR_SERVER: this.locks };
		const child = spawn(bin, ["hold", "-q", ...flags, "--", name].filter(word => word !== "--" || name.startsWith("-")), { env, stdio: "ignore" });
		this.children.push(child);
		return child;
	}
	async ask(path, options) { return (await fetch(`${this.url}api/v1/${path}`, options)).json(); }
	/** Waits until so many hold a lock, and so many wait for it. */
	async contended(name, holders, waiters) {
		return eventually(`${holders} hold ${name} and ${waiters} wait`, async () => {
			const { lock } = await this.ask(`locks/${encodeURIComponent(name)}`);
			return (lock?.holder_count ?? 0) === holders && (lock?.waiter_count ?? 0) === waiters && (lock ?? true);
		});
	}
	async revoke(name, token) {
		const headers = { "Content-Type": "application/json", "X-Coordinator": "1", Authorization: `Bearer ${this.oncall}` };
		return this.ask(`locks/${encodeURIComponent(name)}/revoke`, { method: "POST", headers, body: JSON.stringify({ token, reason: "somebody was quicker" }) });
	}
	/** Ends it as `kill` does. */
	async kill(signal = "SIGKILL") {
		const gone = new Promise(done => this.server.once("exit", done));
		this.server.kill(signal);
		await gone;
	}
	end() {
		for (const child of [...this.children, this.server]) child?.kill("SIGKILL");
		fs.rmSync(this.home, { recursive: true, force: true, maxRetries: 5 });
	}
}

/** An etcd of the test's own, for coordinators of a cluster. */
export class Etcd {
	constructor() { this.home = fs.mkdtempSync(path.join(os.tmpdir(), "page-etcd-")); }
	/** Starts it where nobody listens; the system says where that is. */
	async start() {
		const [client, peer] = await Promise.all([freePort(), freePort()]);
		this.url = `http://127.0.0.1:${client}`;
		const words = [`--data-dir=${path.join(this.home, "etcd")}`, `--listen-client-urls=${this.url}`, `--advertise-client-urls=${this.url}`,
			`--listen-peer-urls=http://127.0.0.1:${peer}`, `--initial-advertise-peer-urls=http://127.0.0.1:${peer}`, `--initial-cluster=default=http://127.0.0.1:${peer}`];
		const arch = process.arch === "x64" ? "amd64" : process.arch;
		this.child = spawn(process.env.ETCD ?? "etcd", words, { stdio: "ignore", env: { ...process.env, ETCD_UNSUPPORTED_ARCH: arch } });
		this.child.on("error", error => { throw new Error(`etcd is missing: install etcd-server (${error.message})`); });
		await eventually("etcd answers", () => fetch(`${this.url}/health`).then(it => it.ok, () => false));
		return this;
	}
	end() {
		this.child?.kill("SIGKILL");
		fs.rmSync(this.home, { recursive: true, force: true, maxRetries: 5 });
	}
}
const freePort = () => new Promise(done => {
	const server = net.createServer().listen(0, "127.0.0.1", () => { const { port } = server.address(); server.close(() => done(port)); });
});

export const browse = () => chromium.launch({ executablePath, args: process.getuid?.() === 0 ? ["--no-sandbox"] : [] });

/** A page whose every complaint and every request is noted. */
export async function open(browser, url, { width = 1280, height = 860, colorScheme = "light", credential, until = "#live[data-state=live]" } = {}) {
	const page = await browser.newPage({ viewport: { width, height }, colorScheme, permissions: ["clipboard-read", "clipboard-write"] });
	page.complaints = [];
	page.foreign = [];
	page.on("console", said => { if (["error", "warning"].includes(said.type())) page.complaints.push(said.text()); });
	page.on("pageerror", error => page.complaints.push(String(error)));
	page.on("dialog", dialog => { page.complaints.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
	page.on("request", request => { if (!request.url().startsWith(new URL(url).origin) && !request.url().startsWith("data:")) page.foreign.push(request.url()); });
	if (credential) await page.addInitScript(it => sessionStorage.setItem("coordinator-credential", it), credential);
	await page.goto(url);
	await page.waitForSelector(until);
	return page;
}
