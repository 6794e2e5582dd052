#!/usr/bin/env python3
"""How much a lock costs beside those of redis-py and kazoo, in one run.

Usage: bench.py [--rounds N] [--seconds S]. Needs redis-server, ZooKeeper (Debian's zookeeper) and
the packages redis and kazoo; what is missing is left out, with a word. The coordinator is
COORDINATOR_BIN: take a release build.

A pair is written in two ways: as a body of `with`, and as calls of `acquire` and `release`. Each
round runs every contender once for a moment, so that all of them see the same weather. Of the
rounds the medians count. CPU is that of this process: the client's part, whatever the server needs.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

THREADS, TASKS = 8, 64


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def wait_for(port):
    for _ in range(600):
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.1", port), 1).close()
        time.sleep(0.05)
    raise SystemExit(f"nothing listens at port {port}")


class Server:
    """Another service, until the end of the run."""

    def __init__(self, command, port, directory):
        self.port = port
        self.process = subprocess.Popen(
            command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(port)

    def dispose(self):
        self.process.kill()
        self.process.wait()


def redis_server(directory):
    port = free_port()
    return Server(["redis-server", "--port", str(port), "--save", ""], port, directory)


def zookeeper(directory):
    port, config = free_port(), Path(directory) / "zoo.cfg"
    config.write_text(
        f"tickTime=2000\ndataDir={directory}\nclientPort={port}\nclientPortAddress=127.0.0.1\n"
        "admin.enableServer=false\n"
    )
    main = "org.apache.zookeeper.server.ZooKeeperServerMain"
    return Server(
        ["java", "-cp", "/usr/share/java/zookeeper.jar", main, str(config)], port, directory
    )


# --- what is measured: each gives how many pairs were done until then ----------------------------


def as_with(lock):
    with lock:
        pass


def as_calls(lock):
    lock.acquire()
    lock.release()


async def as_async_with(lock):
    async with lock:
        pass


async def as_async_calls(lock):
    await lock.acquire()
    await lock.release()


def in_one_thread(lock, pair):
    def pairs(until):
        count = 0
        while time.perf_counter() < until:
            pair(lock)
            count += 1
        return count

    return pairs


def in_threads(locks, pair):
    def pairs(until):
        counts, workers = [], []
        for lock in locks:
            one = in_one_thread(lock, pair)
            workers.append(threading.Thread(target=lambda one=one: counts.append(one(until))))
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return sum(counts)

    return pairs


def in_tasks(loop, locks, pair):
    async def one(lock, until):
        count = 0
        while time.perf_counter() < until:
            await pair(lock)
            count += 1
        return count

    async def all_of_them(until):
        return sum(await asyncio.gather(*(one(lock, until) for lock in locks)))

    return lambda until: loop.run_until_complete(all_of_them(until))


def contenders(servers, loop):
    """What is compared: the workload, who does it, and how."""
    import coordinator_client as cc
    from coordinator_client import aio

    async def on_the_loop(make):
        return make()

    def rows(who, threads, tasks):
        locks = [threads(n) for n in range(THREADS)]
        for how, pair in (("with", as_with), ("calls", as_calls)):
            yield f"one thread, {how}", who, in_one_thread(locks[0], pair)
            yield f"{THREADS} threads, {how}", who, in_threads(locks, pair)
        if tasks is None:
            return
        made = loop.run_until_complete(on_the_loop(lambda: [tasks(n) for n in range(TASKS)]))
        for how, pair in (("with", as_async_with), ("calls", as_async_calls)):
            yield f"one task, {how}", who, in_tasks(loop, made[:1], pair)
            yield f"{TASKS} tasks, {how}", who, in_tasks(loop, made, pair)

    yield from rows(
        "coordinator", lambda n: cc.Lock(f"bench/{n}"), lambda n: aio.Lock(f"bench/aio/{n}")
    )
    if "redis" in servers:
        import redis
        import redis.asyncio

        threads = redis.Redis(port=servers["redis"].port)
        tasks = redis.asyncio.Redis(port=servers["redis"].port)
        yield from rows(
            "redis-py",
            lambda n: threads.lock(f"bench/{n}", timeout=30),
            lambda n: tasks.lock(f"bench/aio/{n}", timeout=30),
        )
    if "kazoo" in servers:
        from kazoo.client import KazooClient

        client = KazooClient(f"127.0.0.1:{servers['kazoo'].port}")
        client.start()
        yield from rows("kazoo", lambda n: client.Lock(f"/bench/{n}", "bench"), None)


def one_round(pairs, seconds):
    """Pairs a second, and microseconds of CPU a pair."""
    began, cpu = time.perf_counter(), time.process_time()
    count = max(pairs(began + seconds), 1)
    return count / (time.perf_counter() - began), (time.process_time() - cpu) / count * 1e6


# --- memory and imports ---------------------------------------------------------------------------


def in_another(script, rounds=7):
    """The least of what a script says in a fresh interpreter."""
    seen = []
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(rounds):
        run = subprocess.run(
            [sys.executable, "-c", RESIDENT + script],
            capture_output=True, text=True, timeout=60, env=environment,
        )  # fmt: skip
        if run.returncode == 0:
            seen.append([float(number) for number in run.stdout.split()])
    return [min(column) for column in zip(*seen)] or [float("nan")] * 2


RESIDENT = """
import os, time
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
"""
# By the clock of the process: what else runs is no part of it.
IMPORTED = """
before, began = resident(), time.process_time()
import {0}
print(time.process_time() - began, resident() - before)
"""
HELD = """
import coordinator_client as cc
locks = [cc.Lock(f"bench/held/{number}") for number in range(4_000)]
locks[0].acquire()
before = resident()
for lock in locks[1:]:
    lock.acquire()
print((resident() - before) / 3_999)
"""


def servers_of(stack, directory):
    from conftest import Coordinator

    coordinator = Coordinator("--ephemeral")
    stack.callback(coordinator.dispose)
    os.environ["COORDINATOR_SERVER"] = coordinator.address
    servers = {}
    for name, program, module, start in (
        ("redis", "redis-server", "redis", redis_server),
        ("kazoo", "java", "kazoo", zookeeper),
    ):
        try:
            __import__(module)
        except ImportError:
            print(f"{module} is not installed, and left out")
            continue
        if shutil.which(program) is None:
            print(f"there is no {program}: {name} is left out")
            continue
        (Path(directory) / name).mkdir()
        servers[name] = start(str(Path(directory) / name))
        stack.callback(servers[name].dispose)
    return servers


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.3)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        servers = servers_of(stack, directory)
        loop = asyncio.new_event_loop()
        rows = list(contenders(servers, loop))
        for _, _, pairs in rows:  # Everything is connected, and warm.
            one_round(pairs, 0.2)
        seen = [[] for _ in rows]
        for _ in range(options.rounds):
            for row, rates in zip(rows, seen):
                rates.append(one_round(row[2], options.seconds))
        # Ratios within a round, and of them the median.
        rival = {row[0]: rates for row, rates in zip(rows, seen) if row[1] == "redis-py"}
        print(
            f"{'':18}{'':14}{'pairs/s':>9}{'CPU a pair':>13}   beside redis-py (rate, CPU)"
            "   the best round"
        )
        for (workload, who, _), rates in zip(rows, seen):
            rate, cpu = (statistics.median(column) for column in zip(*rates))
            pairs = list(zip(rates, rival.get(workload, [])))
            ratio = (
                f"{statistics.median(ours[0] / theirs[0] for ours, theirs in pairs):6.2f} x"
                f"{statistics.median(theirs[1] / ours[1] for ours, theirs in pairs):6.2f} x"
                if pairs
                else ""
            )
            best = f"{max(one[0] for one in rates):7.0f} {min(one[1] for one in rates):6.1f} us"
            print(f"{workload:18}{who:14}{rate:9.0f}{cpu:10.1f} us   {ratio:30}{best}")
        print(f"\nmemory      {in_another(HELD, 3)[0]:.0f} bytes a held lock, with its objects")
        for module in ("coordinator_client", "coordinator_client.aio", "redis", "kazoo.client"):
            took, grown = in_another(IMPORTED.format(module))
            print(f"import      {took * 1e3:4.0f} ms {grown / 2**20:5.1f} MiB  {module}")
        sys.stdout.flush()
        os._exit(0) if not stack.close() else None


if __name__ == "__main__":
    main()
