#!/usr/bin/env python3
"""How many times a second a lock is taken and given back, beside redis-py's, in one run.

Usage: bench.py [SECONDS]. The coordinator is COORDINATOR_BIN; redis is left out where
it is missing. The numbers of a busy machine say little; those of one run can be compared.
"""

import asyncio
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0


def pairs(lock):
    lock.acquire(), lock.release()
    count, until = 0, time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        lock.acquire()
        lock.release()
        count += 1
    return count / SECONDS


async def pairs_on_a_loop(lock):
    await lock.acquire(), await lock.release()
    count, until = 0, time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        await lock.acquire()
        await lock.release()
        count += 1
    return count / SECONDS


def redis_pairs():
    try:
        import redis
    except ImportError:
        return None
    if shutil.which("redis-server") is None:
        return None
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/redis.sock"
        command = ["redis-server", "--port", "16379", "--save", "", "--unixsocket", path]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=directory)
        try:
            while not os.path.exists(path):
                time.sleep(0.01)
            client = redis.Redis(port=16379)
            return pairs(client.lock("bench", timeout=10))
        finally:
            server.terminate()
            server.wait()


def import_seconds(module):
    script = (
        f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    )
    runs = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
            for _ in range(5)]  # fmt: skip
    return min(float(run.stdout or "nan") for run in runs)


def main():
    from conftest import Coordinator

    coordinator = Coordinator("--ephemeral")
    os.environ["COORDINATOR_SERVER"] = coordinator.address
    from coordinator_client import Lock, aio

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    async def on_a_loop():
        return await pairs_on_a_loop(aio.Lock("bench/aio"))

    try:
        rows = [("threads", pairs(Lock("bench"))), ("asyncio", asyncio.run(on_a_loop()))]
        held = [Lock(f"bench/{number}") for number in range(1_000)]
        began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for lock in held:
            lock.acquire()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began
    finally:
        coordinator.dispose()
    rows.append(("redis-py", redis_pairs()))
    for name, rate in rows:
        print(f"{name:10} {'not here' if rate is None else f'{rate:8.0f} pairs/s'}")
    print(f"memory     {before / 1024:.0f} MiB after the import, {grown} KiB for 1,000 locks")
    for module in ("coordinator_client", "coordinator_client.aio", "redis"):
        print(f"import     {import_seconds(module) * 1000:.0f} ms {module}")


main()
