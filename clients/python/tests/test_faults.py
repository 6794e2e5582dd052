"""Processes that count under a lock while everything around them breaks: no increment is lost.

A number and the token of its latest writer stand in a file. Connections are cut and forgotten, and
the coordinator is stopped, killed and held up. FAULTS_SECONDS says for how long, FAULTS_SEED which
faults.
"""

import os
import random
import time

from proxy import Proxy
from test_processes import python

SECONDS = float(os.environ.get("FAULTS_SECONDS", "6"))
SEED = int(os.environ.get("FAULTS_SEED", "1"))
WORKERS = 4
WORKER = """
import os, random, sys, time
from coordinator_client import Client, LockError, LockLost
server, path, stop = sys.argv[1:]
client, counted, lost, refused = Client(server, ttl=2), 0, 0, 0
while not os.path.exists(stop):
    lock = client.lock("counter", timeout=30)
    try:
        with lock as hold:
            number, token = map(int, open(path).read().split())
            assert token < hold.token, (token, hold.token)
            time.sleep(random.random() / 50)
            if hold.acquired:
                with open(path + str(os.getpid()), "w") as file:
                    file.write(f"{number + 1} {hold.token}")
                # The resource: it takes the new value at once or not at all.
                os.rename(path + str(os.getpid()), path)
                counted += 1
    except LockLost:
        lost += 1
    except LockError:
        refused += 1
print(counted, lost, refused)
"""


def break_something(dice, coordinator, proxy):
    kind = dice.choice(["cut", "hush", "stop", "kill", "pause", "stand still"])
    if kind == "cut":
        proxy.cut()
    elif kind == "hush":
        proxy.hush()
    elif kind in ("stop", "kill"):
        getattr(coordinator, kind)()
        time.sleep(dice.random() / 4)
        coordinator.start()
    else:
        coordinator.pause()
        time.sleep(dice.random() / 2 if kind == "pause" else 2.2)
        coordinator.go_on()
    return kind


def test_every_increment_counts_once_whatever_breaks(coordinator, tmp_path):
    count_while_it_breaks(coordinator, tmp_path)


def count_while_it_breaks(coordinator, tmp_path, scheme="", **environment):
    path, stop = tmp_path / "number", tmp_path / "stop"
    path.write_text("0 0")
    proxy = Proxy(coordinator.port)
    arguments = (WORKER, scheme + proxy.address, str(path), str(stop))
    environment = {**os.environ, **environment}
    workers = [python(*arguments, env=environment) for _ in range(WORKERS)]
    dice, broken, until = random.Random(SEED), [], time.monotonic() + SECONDS
    try:
        while time.monotonic() < until:
            time.sleep(0.2 + dice.random() * 2)
            broken.append(break_something(dice, coordinator, proxy))
        number = int(path.read_text().split()[0])
        while int(path.read_text().split()[0]) == number:
            assert time.monotonic() < until + 30, "nobody goes on"
            time.sleep(0.01)
    finally:
        stop.touch()
    answers = []
    for worker in workers:
        out, err = worker.communicate(timeout=60)
        assert worker.returncode == 0, err
        answers.append(list(map(int, out.split())))
    proxy.close()
    number, _ = map(int, path.read_text().split())
    counted, lost, refused = map(sum, zip(*answers))
    print(f"{number} increments, {lost} lost locks, {refused} refusals, faults: {broken}")
    assert number == counted > 0
