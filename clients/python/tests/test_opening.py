"""The first connection: one attempt, for which each waits as long as it may."""

import asyncio
import gc
import signal
import socket
import sys
import threading
import time
import weakref

import pytest
from conftest import DEADLINE, eventually
from test_processes import in_a_fork, needs_fork

import coordinator_client as cc
from coordinator_client import Client, _dial, aio
from coordinator_client.observe import Observer


@pytest.fixture(autouse=True)
def ends_its_attempts():
    """No thread is left behind for tests that count them."""
    yield
    eventually(
        lambda: not any("open" in thread.name for thread in threading.enumerate()), "all are over"
    )


@pytest.fixture
def mute():
    """The address of one that accepts connections and says nothing; and those connections."""
    listener, accepted = socket.create_server(("127.0.0.1", 0)), []

    def accept():
        try:
            while True:
                accepted.append(listener.accept()[0])
        except OSError:
            pass

    threading.Thread(target=accept, daemon=True).start()
    yield f"127.0.0.1:{listener.getsockname()[1]}", accepted
    listener.close()
    for sock in accepted:
        sock.close()


def outcomes(*works):
    """What each gives in a thread of its own, or raises, as text."""
    told = {}

    def run(number, work):
        try:
            told[number] = repr(work())
        except cc.LockError as error:
            told[number] = str(error)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    for thread in threads:
        thread.join(DEADLINE)
    return [told.get(number) for number in range(len(works))]


def test_threads_share_an_attempt_and_wait_as_long_as_each_may(mute, name):
    address, accepted = mute
    client = Client(address, connect_timeout=2)
    works = [lambda timeout=t: client.lock(name).acquire(timeout=timeout) for t in (-1, 0.1, 0.2)]
    told = outcomes(*works)
    for text, seconds in zip(told, (2, 0.1, 0.2)):
        assert f"no answer within {seconds:g} s" in text, told
    assert len(accepted) == 1


def test_tasks_share_an_attempt_and_wait_as_long_as_each_may(mute, name):
    address, accepted = mute

    async def work():
        client = aio.Client(address, connect_timeout=2)
        waits = [client.lock(name).acquire(timeout=timeout) for timeout in (0.1, -1, 0.2)]
        return await asyncio.gather(*waits, return_exceptions=True)

    for error, seconds in zip(asyncio.run(work()), (0.1, 2, 0.2)):
        assert f"no answer within {seconds:g} s" in str(error)
    assert len(accepted) == 1


def test_one_who_waits_briefly_does_not_end_the_attempt_of_the_others(coordinator, name):
    with Client(coordinator.address, connect_timeout=DEADLINE) as client:
        coordinator.pause()
        with pytest.raises(cc.Unavailable, match="no answer within 0.05 s"):
            client.lock(name).acquire(timeout=0.05)
        attempt, told = client._opening, []
        thread = threading.Thread(target=lambda: told.append(client.lock(name).acquire()))
        thread.start()
        coordinator.go_on()
        thread.join(DEADLINE)
        assert told == [True] and client._opening is attempt


def test_a_task_that_waits_briefly_does_not_end_the_attempt_of_the_others(coordinator, name):
    async def work():
        async with aio.Client(coordinator.address, connect_timeout=DEADLINE) as client:
            coordinator.pause()
            brief = asyncio.create_task(client.lock(name).acquire(timeout=0.05))
            patient = asyncio.create_task(client.lock(name).acquire())
            with pytest.raises(cc.Unavailable, match="no answer within 0.05 s"):
                await brief
            coordinator.go_on()
            assert await patient

    asyncio.run(work())


def test_each_who_waits_in_vain_is_told_by_an_error_of_its_own(mute):
    caught = []

    def connect(client):
        try:
            client.connect()
        except cc.Unavailable as error:
            caught.append(error)

    async def connect_on_a_loop(client):
        await asyncio.gather(client.connect(), client.connect(), return_exceptions=True)
        works = [asyncio.create_task(client.connect()) for _ in range(2)]
        caught.extend(await asyncio.gather(*works, return_exceptions=True))

    client = Client(mute[0], connect_timeout=0.3)
    outcomes(*[lambda: connect(client)] * 2)
    asyncio.run(connect_on_a_loop(aio.Client(mute[0], connect_timeout=0.3)))
    assert len(caught) == 4 and all(isinstance(error, cc.Unavailable) for error in caught)
    assert len({id(error) for error in caught}) == 4
    assert {(str(error), error.hint, error.why) for error in caught} == {
        (str(caught[0]), caught[0].hint, "no answer within 0.3 s")
    }


@pytest.mark.skipif(sys.implementation.name == "pypy", reason="PyPy collects garbage later")
def test_an_attempt_that_failed_keeps_nothing_of_who_waited(mute):
    client = Client(mute[0], connect_timeout=0.2)

    def wait():
        local = threading.Event()
        with pytest.raises(cc.Unavailable):
            client.connect()
        return weakref.ref(local)

    assert wait()() is None and client._opening is not None


def test_of_several_servers_each_is_told_why_it_did_not_answer(mute):
    address, _ = mute
    for timeout in (0.5, None):
        with pytest.raises(cc.Unavailable) as caught:
            Client(f"127.0.0.1:1,{address}", connect_timeout=1).connect(timeout)
        text = str(caught.value)
        assert "127.0.0.1:1: connection refused" in text, text
        assert f"{address}: no answer within" in text or "no answer within 0.5 s" in text, text


def test_a_mute_server_does_not_keep_the_hasty_from_the_next(mute, server, name):
    address, _ = mute
    with Client(f"{address},{server}") as client:
        assert client.lock(name).acquire(timeout=3)


def test_a_handler_may_use_a_lock_while_its_client_connects(mute, name):
    address, accepted = mute
    client, told = Client(address, connect_timeout=DEADLINE), []

    def handler(*_):
        try:
            client.lock(name).acquire(timeout=0.1)
        except cc.LockError as error:
            told.append(str(error))
        # The attempt is over then, and not before, however slow this machine is.
        eventually(lambda: accepted, "it connects").pop().close()

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(cc.Unavailable, match="no coordinator answers"):
            client.lock(name).acquire()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(told) == 1 and "no answer within 0.1 s" in told[0]


def test_a_handler_that_comes_upon_the_first_step_is_told_so(server, name):
    client = Client(server)
    with client._gate, pytest.raises(cc.LockError, match="handler interrupted this client"):
        client.lock(name).acquire()
    assert client.lock(name).acquire()


@needs_fork
def test_a_child_that_is_forked_while_another_thread_connects_finds_nothing_locked(
    mute, server, name
):
    client = Client(mute[0], connect_timeout=2)
    thread = threading.Thread(target=lambda: outcomes(client.connect))
    thread.start()
    eventually(lambda: mute[1], "it connects")

    def work():
        owner = client.owner()
        client._servers = _dial.parse_servers(server)
        return owner.lock(name).acquire(timeout=DEADLINE)

    assert in_a_fork(work) == "True"
    thread.join()


@needs_fork
def test_threads_of_a_child_may_use_a_client_for_the_first_time_at_once(server, name):
    client = Client(server).connect()

    def work():
        reset, both, current = client._reset, threading.Barrier(2), threading.current_thread

        def late():
            """Both are here at once, and the second goes on when the first connects."""
            both.wait(DEADLINE)
            if current().name == "second":
                eventually(lambda: client._opening not in (None, before), "the first connects")
            reset()

        client._reset, before = late, client._opening
        told = set()

        def first_use():
            try:
                told.add(client.try_lock(name + current().name)._session)
            except cc.LockError as error:
                told.add(str(error))

        threads = [threading.Thread(target=first_use, name=which) for which in ("first", "second")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return told == {client._session}

    assert in_a_fork(work) == "True"
    assert client.generation == 1


def test_a_client_that_is_closed_while_it_connects_leaves_no_session(coordinator, name):
    async def work():
        for turns in range(12):
            client = aio.Client(coordinator.address, identity="leaky", ttl=60)
            task = asyncio.create_task(client.lock(name).acquire())
            for _ in range(turns):
                await asyncio.sleep(0)
            if turns % 3 == 0:
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.wait([task])
            await client.close()
            with pytest.raises(cc.Closed):
                await client.lock(name).acquire()
        await asyncio.sleep(0.05)
        gc.collect()

    asyncio.run(work())
    mute_client = Client(coordinator.address, identity="leaky", ttl=60)
    thread = threading.Thread(target=lambda: outcomes(mute_client.connect))
    coordinator.pause()
    thread.start()
    eventually(lambda: mute_client._opening, "it connects")
    mute_client.close()
    coordinator.go_on()
    thread.join(DEADLINE)
    with Observer(coordinator.address) as observer:
        eventually(lambda: not [s for s in observer.sessions() if s.identity == "leaky"])


@pytest.mark.skipif(sys.implementation.name == "pypy", reason="PyPy collects garbage later")
def test_a_client_that_nobody_refers_to_ends_at_once(server):
    async def work():
        client = await aio.Client(server).connect()
        known = weakref.ref(client)
        del client
        await asyncio.sleep(0)
        return known() is None

    gc.disable()
    try:
        client = Client(server).connect()
        known = weakref.ref(client)
        del client
        eventually(lambda: known() is None, "without the garbage collector")
        assert asyncio.run(work())
    finally:
        gc.enable()


@pytest.mark.parametrize("count", [1, 2])
def test_a_resolver_that_hangs_is_waited_for_no_longer_than_was_said(monkeypatch, name, count):
    over, real = threading.Event(), socket.getaddrinfo

    def hang(host, *arguments, **settings):
        if host == "slow.internal":
            over.wait(DEADLINE)
            raise OSError("no such name")
        return real(host, *arguments, **settings)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        servers = ",".join(["slow.internal"] * count)
        for call in (
            lambda: Client(servers).lock(name).acquire(timeout=0.2),
            lambda: Client(servers, connect_timeout=0.2).connect(),
            lambda: asyncio.run(aio.Client(servers).lock(name).acquire(timeout=0.2)),
            lambda: Observer(servers, timeout=0.2).server_status(),
        ):
            began = time.monotonic()
            with pytest.raises(cc.Unavailable, match="no answer within"):
                call()
            assert time.monotonic() - began < DEADLINE / 2
    finally:
        over.set()


def test_a_thread_that_cannot_be_started_is_a_failed_attempt(coordinator, name, monkeypatch):
    told, start, left = threading.Event(), threading.Thread.start, []

    def fail_sometimes(thread):
        if left and threading.current_thread() is not threading.main_thread():
            left.pop()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail_sometimes)
    with Client(coordinator.address, ttl=60) as client:
        lock = client.lock(name, on_lost=lambda hold: told.set())
        lock.acquire()
        left.extend([1, 2])
        coordinator.kill()
        eventually(lambda: not left, "it has tried")
        coordinator.start()
        eventually(lambda: lock.acquired and client.status(name), "it goes on")
        left.append(1)
        with Observer(coordinator.address) as observer:
            observer.revoke(name, lock.token)
        assert told.wait(DEADLINE) and not left
        assert client.lock(name).acquire(timeout=DEADLINE)


def test_a_first_connection_without_a_thread_is_told(server, monkeypatch):
    def fail(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        with pytest.raises(cc.Unavailable, match="can't start new thread"):
            Client(server).connect()
        with pytest.raises(cc.Unavailable, match="can't start new thread"):
            asyncio.run(aio.Client(server).connect())
