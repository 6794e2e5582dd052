// Lock libraries of Node, unchanged, against the Redis dialect: take, contend, extend, several, release; and two over
// mutual TLS.   cases.mjs PORT [PORT_OF_TLS FOLDER_OF_CERTIFICATES]
import { createRequire } from 'node:module';
const require = createRequire(import.meta.url);
const Redis = require('ioredis');
const port = Number(process.argv[2]);
const open = () => new Redis({ port, host: '127.0.0.1', maxRetriesPerRequest: 1 });
const client = open();
const cases = [];
const test = (name, run) => cases.push([name, run]);
const ok = (is, what) => { if (!is) throw new Error(what); };
const fails = async (run, what) => { try { await run(); } catch { return; } throw new Error(what); };

test('ioredis: SET NX PX', async () => {
  ok(await client.set('a', '1', 'PX', 5000, 'NX') === 'OK', 'taken');
  ok(await client.set('a', '2', 'PX', 5000, 'NX') === null, 'twice');
  ok(await client.del('a') === 1, 'freed');
});
test('node-redis: SET NX PX', async () => {
  const { createClient } = require('redis');
  const c = createClient({ url: `redis://127.0.0.1:${port}` });
  await c.connect();
  ok(await c.set('b', '1', { NX: true, PX: 5000 }) === 'OK', 'taken');
  ok(await c.set('b', '2', { NX: true, PX: 5000 }) === null, 'twice');
  const all = await c.multi().get('b').del('b').exec();
  ok(all[0] === '1' && all[1] === 1, 'transaction');
  await c.quit();
});
test('redlock 4', async () => {
  const Redlock = require('redlock4');
  const r = new Redlock([client], { retryCount: 0 });
  let lock = await r.lock(['c', 'd'], 2000);
  await fails(() => r.lock('d', 2000), 'taken twice');
  lock = await lock.extend(3000);
  await lock.unlock();
  await (await r.lock('d', 500)).unlock();
});
test('redlock 5', async () => {
  const { default: Redlock } = require('redlock5');
  const r = new Redlock([client], { retryCount: 0 });
  r.on('error', () => {});
  let lock = await r.acquire(['e', 'f'], 2000);
  await fails(() => r.acquire(['f'], 2000), 'taken twice');
  lock = await lock.extend(3000);
  await lock.release();
  await r.using(['e'], 800, async () => { await new Promise((go) => setTimeout(go, 1200)); ok(await client.exists('e'), 'extended'); });
  ok(!(await client.exists('e')), 'released');
});
test('@sesamecare-oss/redlock', async () => {
  const { Redlock } = require('@sesamecare-oss/redlock');
  const r = new Redlock([client], { retryCount: 0 });
  r.on('error', () => {});
  let lock = await r.acquire(['g', 'h'], 2000);
  await fails(() => r.acquire(['h'], 2000), 'taken twice');
  lock = await lock.extend(3000);
  await lock.release();
});
test('redis-semaphore: Mutex', async () => {
  const { Mutex } = require('redis-semaphore');
  const m = new Mutex(client, 'i', { lockTimeout: 600, acquireTimeout: 200, refreshInterval: 150 });
  await m.acquire();
  const n = new Mutex(client, 'i', { lockTimeout: 600, acquireTimeout: 200 });
  ok(!(await n.tryAcquire()), 'taken twice');
  await new Promise((go) => setTimeout(go, 1000));
  ok(m.isAcquired, 'refreshed');
  await m.release();
});
test('redis-semaphore: RedlockMutex', async () => {
  const { RedlockMutex } = require('redis-semaphore');
  const m = new RedlockMutex([client], 'j', { lockTimeout: 600, acquireTimeout: 200 });
  await m.acquire(); await m.release();
});
test('redlock-universal', async () => {
  const { createLock, IoredisAdapter } = require('redlock-universal');
  const adapter = new IoredisAdapter(client);
  const lock = createLock({ adapter, key: 'k', ttl: 3000, retryAttempts: 0 });
  let handle = await lock.acquire();
  await fails(() => createLock({ adapter, key: 'k', ttl: 3000, retryAttempts: 0 }).acquire(), 'twice');
  ok(await lock.extend(handle, 5000), 'extended');
  ok(await lock.release(handle), 'released');
});
if (process.argv[4]) {
  const { readFileSync } = require('node:fs');
  const [portOfTls, folder] = process.argv.slice(3);
  const file = (name) => readFileSync(`${folder}/${name}`);
  const tls = { ca: file('ca.pem'), cert: file('client.pem'), key: file('client.key') };
  test('ioredis over mutual TLS: redlock 5', async () => {
    const { default: Redlock } = require('redlock5');
    const c = new Redis(`rediss://127.0.0.1:${portOfTls}`, { tls, maxRetriesPerRequest: 1 });
    const r = new Redlock([c], { retryCount: 0 });
    r.on('error', () => {});
    const lock = await r.acquire(['l'], 2000);
    await fails(() => r.acquire(['l'], 2000), 'taken twice');
    await lock.release();
    c.disconnect();
  });
  test('node-redis over mutual TLS', async () => {
    const { createClient } = require('redis');
    const c = createClient({ url: `rediss://127.0.0.1:${portOfTls}`, socket: { tls: true, ...tls } });
    await c.connect();
    ok(await c.set('m', '1', { NX: true, PX: 5000 }) === 'OK', 'taken');
    ok(await c.del('m') === 1, 'freed');
    await c.quit();
  });
}
let failed = 0;
for (const [name, run] of cases) {
  try { await run(); console.log(`ok      ${name}`); }
  catch (why) { failed += 1; console.log(`FAILED  ${name}: ${why.message}`); }
}
client.disconnect();
console.log(`${cases.length - failed} of ${cases.length}`);
process.exit(failed ? 1 : 0);
