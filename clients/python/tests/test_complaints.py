"""What users of other lock clients complained of, each as a test by that name."""

import asyncio
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import DEADLINE, eventually
from proxy import Proxy
from test_processes import in_a_fork, needs_fork, python

import coordinator_client as cc
from coordinator_client import Client, Lock, _link, aio


def test_01_with_never_enters_without_the_lock(server, name):
    with Lock(name):
        # What is measured here is the wait, not the time to connect.
        cc.default_client().connect()
        for lock in (
            Lock(name, timeout=0.02),
            Lock(name, blocking=False),
            Lock(name, server="127.0.0.1:1"),
            cc.RLock(name, blocking=False),
            cc.MultiLock([name], timeout=0.02),
        ):
            with pytest.raises(cc.LockError):
                with lock:
                    pytest.fail("entered")

        async def enter(lock):
            await aio.default_client().connect()
            async with lock:
                pytest.fail("entered")

        with pytest.raises(cc.LockTimeout):
            asyncio.run(enter(aio.Lock(name, timeout=0.02)))
        with pytest.raises(cc.LockBusy):
            asyncio.run(enter(aio.Lock(name, blocking=False)))


def test_02_the_holder_is_told_of_the_loss_and_release_says_lost(coordinator, name):
    told = threading.Event()
    with Client(coordinator.address, ttl=2) as client:
        lock = client.lock(name, on_lost=lambda hold: told.set())
        lock.acquire()
        coordinator.pause()
        assert told.wait(5), "without asking"
        with pytest.raises(cc.LockLost, match="lease") as caught:
            lock.release()
        assert not isinstance(caught.value, cc.NotHeld)
        coordinator.go_on()


def test_03_a_body_longer_than_the_ttl_keeps_the_lock(server, name):
    with Lock(name, ttl=4) as hold:
        token = hold.token
        until = time.monotonic() + 5
        while time.monotonic() < until:
            assert hold.acquired
            time.sleep(0.02)
        assert Lock(name).status().holders[0].token == token


def test_04_a_task_cancelled_while_acquiring_leaves_no_ghost(server, name):
    async def work():
        async with aio.Lock(name):
            tasks = [asyncio.create_task(aio.Lock(name).acquire()) for _ in range(20)]
            while (await aio.Lock(name).status()).waiter_count < 20:
                await asyncio.sleep(0.005)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert all(task.cancelled() for task in tasks)
        return await aio.Lock(name).acquire(blocking=False)

    assert asyncio.run(work())


def test_05_a_task_cancelled_while_releasing_has_released(server, name):
    async def work():
        lock = aio.Lock(name)

        async def body():
            await lock.acquire()
            asyncio.current_task().cancel()
            await lock.release()

        task = asyncio.create_task(body())
        await asyncio.wait([task])
        assert task.cancelled() and not lock.acquired

        async def leave():
            async with lock:
                asyncio.current_task().cancel()

        task = asyncio.create_task(leave())
        await asyncio.wait([task])
        assert task.cancelled()
        return await aio.Lock(name).acquire(timeout=5)

    assert asyncio.run(work())


def test_06_an_exception_in_the_body_releases_and_is_not_masked(coordinator, name):
    with Client(coordinator.address, ttl=2) as client:
        with pytest.raises(KeyError):
            with client.lock(name):
                raise KeyError
        assert client.lock(name).acquire(blocking=False)
        lock = client.lock(name + "/lost")
        with pytest.raises(KeyError):
            with lock as hold:
                coordinator.pause()
                assert hold.lost.wait(5)
                raise KeyError
        coordinator.go_on()

    async def cancelled():
        async with aio.Client(coordinator.address, ttl=2) as client:
            async with client.lock(name + "/aio") as hold:
                coordinator.pause()
                await hold.lost()
                coordinator.go_on()
                raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())


def test_07_acquired_in_one_thread_and_released_in_another(server, name):
    lock = Lock(name)
    thread = threading.Thread(target=lock.acquire)
    thread.start()
    thread.join()
    assert lock.acquired and lock.token
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join()
    assert not lock.acquired and lock.status() is None


def test_08_two_tasks_of_one_loop_do_not_share_a_token(server, name):
    async def work():
        tokens = []

        async def one():
            async with aio.Lock(name) as hold:
                tokens.append(hold.token)
                await asyncio.sleep(0)
                assert hold.acquired

        await asyncio.gather(*(one() for _ in range(10)))
        assert len(set(tokens)) == 10

    asyncio.run(work())


@needs_fork
def test_09_a_child_after_a_fork_neither_hangs_nor_believes_nor_frees(server, name):
    lock = Lock(name)
    with lock:
        assert in_a_fork(lambda: lock.acquired) == "False"
        assert in_a_fork(lock.release).startswith("NotHeld")
        assert in_a_fork(lambda: Lock(name + "/2").acquire(timeout=5)) == "True"
        assert lock.acquired and lock.status().holder_count == 1


def test_10_ctrl_c_while_waiting_ends_the_wait_and_leaves_the_line(server, name):
    script = """
        import signal, sys
        from coordinator_client import Lock
        signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell's job ignores it.
        Lock(sys.argv[1], ttl=60).acquire()
        """
    with Lock(name):
        process = python(script, name)
        eventually(lambda: Lock(name).status().waiter_count == 1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE)
        assert err.endswith("KeyboardInterrupt\n"), err
        # Its last words and this question come over two connections; its lease is longer than the deadline.
        eventually(lambda: Lock(name).status().waiter_count == 0)


def test_10_ctrl_c_in_the_middle_of_a_step_leaves_the_line_too(server, name):
    script = """
        import sys
        from coordinator_client import Lock, _lane
        hear = _lane.Lane._hear_answers
        def interrupted(self, link, grasp, data):
            hear(self, link, grasp, data)
            if data:
                _lane.Lane._hear_answers = hear
                raise KeyboardInterrupt
        _lane.Lane._hear_answers = interrupted
        Lock(sys.argv[1], ttl=60).acquire()
        """
    with Lock(name):
        process = python(script, name)
        _, err = process.communicate(timeout=DEADLINE)
        assert err.endswith("KeyboardInterrupt\n"), err
        eventually(lambda: Lock(name).status().waiter_count == 0)


def test_11_the_server_restarts_while_one_holds_and_one_waits(coordinator, name):
    with Client(coordinator.address, ttl=20) as client:
        lock = client.lock(name)
        lock.acquire()
        got = []
        waiter = threading.Thread(target=lambda: got.append(client.lock(name).acquire()))
        waiter.start()
        eventually(lambda: client.status(name).waiter_count == 1)
        coordinator.stop()
        coordinator.start()
        eventually(lambda: lock.state == "held")
        lock.release()
        waiter.join(DEADLINE)
        assert got == [True]


def test_12_acquire_after_release_on_the_same_object_works(server, name):
    lock = Lock(name)
    for _ in range(3):
        assert lock.acquire() and lock.acquired
        lock.release()
        assert not lock.acquired


def test_13_the_timeout_of_acquire_overrides_the_constructors(server, name):
    with Lock(name):
        lock, began = Lock(name, timeout=60), time.monotonic()
        assert not lock.acquire(timeout=0.05)
        assert not lock.acquire(blocking=False)
        assert time.monotonic() - began < 10
        lock = Lock(name, timeout=0.05)
        assert not lock.acquire()
        assert not Lock(name, blocking=False).acquire(timeout=0.05)


def test_14_a_second_object_for_the_same_name_in_the_same_thread(server, name):
    with Lock(name):
        assert not Lock(name).acquire(timeout=0.05), "it waits, as the documentation says"
    with Client(server) as client:
        owner = client.owner()
        with owner.lock(name), pytest.raises(cc.AlreadyHeld):
            owner.lock(name).acquire()


def test_15_waiters_are_served_in_order_and_the_last_gets_it_too(server, name):
    order, threads = [], []

    def work(number):
        with Lock(name):
            order.append(number)

    with Lock(name):
        for number in range(20):
            threads.append(threading.Thread(target=work, args=(number,)))
            threads[-1].start()
            eventually(lambda: Lock(name).status().waiter_count == number + 1)
    for thread in threads:
        thread.join()
    assert order == list(range(20))


def test_16_a_waiter_whose_patience_is_shorter_than_its_lease_does_not_hang(coordinator, name):
    with Client(coordinator.address, ttl=60) as client, Client(coordinator.address) as other:
        with other.lock(name):
            assert not client.lock(name).acquire(timeout=0.1)
            coordinator.pause()
            began = time.monotonic()
            # Nor if the server stands still: then nobody knows that it is busy.
            with pytest.raises(cc.Unavailable, match="no answer within 2.1 s"):
                client.lock(name).acquire(timeout=0.1)
            assert time.monotonic() - began < 5
            coordinator.go_on()


def test_17_an_uncontended_acquire_costs_one_round_trip_and_no_sleep(server, name, monkeypatch):
    lock = Lock(name)
    with lock:
        pass
    sent = []
    put = _link.Link.put
    monkeypatch.setattr(
        _link.Link, "put", lambda link, data: (data and sent.append(data), put(link, data))
    )
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("slept"))
    lock.acquire()
    assert len(sent) == 1
    lock.release()
    assert len(sent) == 2


def test_18_nothing_depends_on_assert(server, name):
    script = """
        import sys
        from coordinator_client import Lock, LockBusy, NotHeld
        assert False, "assertions are off"
        with Lock(sys.argv[1]):
            try:
                with Lock(sys.argv[1], blocking=False):
                    print("entered")
            except LockBusy:
                print("busy")
        try:
            Lock(sys.argv[1]).release()
        except NotHeld:
            print("not held")
        """
    import textwrap

    command = [sys.executable, "-O", "-c", textwrap.dedent(script), name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert (done.stdout, done.stderr) == ("busy\nnot held\n", "")


def test_19_after_kill_9_of_the_holder_the_next_has_it_within_the_ttl(server, name):
    script = """
        import os, signal, sys
        from coordinator_client import Lock
        lock = Lock(sys.argv[1], ttl=4)
        lock.acquire()
        os.kill(os.getpid(), signal.SIGKILL)
        """
    process = python(script, name)
    process.communicate(timeout=DEADLINE)
    assert process.returncode == -signal.SIGKILL
    began = time.monotonic()
    # Not after another ttl.
    assert Lock(name).acquire(timeout=DEADLINE) and time.monotonic() - began < 7.5


def test_20_of_two_workers_at_the_same_second_exactly_one(server, name):
    script = """
        import sys
        from coordinator_client import Lock
        sys.stdin.readline()
        lock = Lock(sys.argv[1])
        print(lock.acquire(blocking=False), flush=True)
        sys.stdin.readline()
        """
    workers = [python(script, name, stdin=subprocess.PIPE) for _ in range(2)]
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    answers = sorted(worker.stdout.readline() for worker in workers)
    assert answers == ["False\n", "True\n"]
    for worker in workers:
        worker.communicate("\n", timeout=DEADLINE)


@pytest.mark.parametrize("end", [Lock.release, lambda lock: lock.__exit__(None)])
def test_a_cut_while_releasing_does_not_lose_the_release(shared_coordinator, name, end):
    proxy = Proxy(shared_coordinator.port)
    with Client(proxy.address) as client, Client(shared_coordinator.address) as other:
        for _ in range(4):
            lock = client.lock(name)
            lock.acquire()
            cut = threading.Thread(target=proxy.cut)
            cut.start()
            end(lock)
            cut.join()
            with other.lock(name, timeout=8):
                pass
    proxy.close()
