"""The client of threads, against the real coordinator."""

import contextlib
import copy
import functools
import gc
import os
import pickle
import signal
import threading
import time

import pytest
from conftest import DEADLINE, eventually

import coordinator_client as cc
import coordinator_client.aio
from coordinator_client import Client, Lock


class Interrupted(Exception):
    pass


@contextlib.contextmanager
def interrupted_when(done):
    """Raises `Interrupted` in the main thread, as a signal's handler does, once that is so."""

    def interrupt(*_):
        raise Interrupted

    def watch():
        eventually(done)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    threading.Thread(target=watch).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_lock_is_held_in_its_body_and_not_after(server, name):
    lock = Lock(name)
    with lock as hold:
        assert lock.acquired and hold.acquired and hold.state == "held" and lock.locked()
        assert hold.token > 0 and lock.token == hold.token and hold.names == [name]
        assert 0 < hold.valid_for < 10
        assert lock.status().holders[0].token == hold.token
    assert not lock.acquired and lock.state == "released" and lock.status() is None
    with pytest.raises(cc.NotHeld):
        lock.token
    with pytest.raises(RuntimeError):
        lock.release()


def test_tokens_only_grow(server, name):
    tokens = []
    for _ in range(5):
        with Lock(name) as hold:
            tokens.append(hold.token)
    assert tokens == sorted(set(tokens))


def test_a_busy_lock_says_who_holds_it(server, name):
    with Lock(name, note="deploy v2.3"):
        assert not Lock(name).acquire(blocking=False)
        with pytest.raises(cc.LockBusy, match=r"is busy: held by .*@.*:\d+ for .* \"deploy v2.3\""):
            with Lock(name, blocking=False):
                pytest.fail("entered")
        assert Client(server).try_lock(name) is None
        with pytest.raises(TimeoutError, match="gave up after 50ms") as caught:
            Lock(name, timeout=0.05).__enter__()
        assert caught.value.holder.note == "deploy v2.3" and caught.value.hint


def test_errors_come_back_from_a_pool_as_they_were(server, name):
    """Where one cannot be read again, the pool waits for ever."""
    errors = [cc.LockLost(name, 7, 1), cc.AlreadyHeld(1, "why"), cc.NotHeld("why", "do this")]
    errors += [cc.NoLeader("a:1", "why", "b:2"), cc.Unavailable("why"), cc.Deadlock([])]
    with Lock(name, note="deploy"):
        for call in (lambda: Lock(name, blocking=False), lambda: Lock(name, timeout=0.01)):
            with pytest.raises(cc.LockError) as caught:
                call().__enter__()
            errors.append(caught.value)
    for error in errors:
        for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert type(again) is type(error) and str(again) == str(error) != ""
            assert again.__dict__ == error.__dict__ and again.args == error.args


def test_shared_locks_are_held_together_and_upgraded(server, name):
    other = Lock(name, shared=True)
    other.acquire()
    with cc.SharedLock(name) as one:
        assert one.shared
        with pytest.raises(cc.LockTimeout):
            one.upgrade(timeout=0.05)
        assert one.acquired and one.shared
        before = one.token
        other.release()
        hold = one.upgrade(timeout=3)
        assert hold.acquired and not hold.shared and hold.token > before
        assert not Lock(name, shared=True).acquire(blocking=False)
        token = hold.token
        assert hold.downgrade().token == token
        with Lock(name, shared=True, blocking=False):
            assert one.acquired


def test_two_upgrades_of_one_lock_are_a_deadlock(server, name):
    one, other = cc.SharedLock(name), cc.SharedLock(name)
    one.acquire(), other.acquire()
    waiting = threading.Thread(target=one.upgrade)
    waiting.start()
    eventually(lambda: one.status().waiter_count == 1, "it waits")
    with pytest.raises(cc.Deadlock, match="would wait for"):
        other.upgrade()
    assert other.acquired
    other.release()
    waiting.join()
    assert one.acquired and not Lock(name, shared=True).acquire(blocking=False)
    one.release()


def test_a_wait_for_an_upgrade_that_is_interrupted_leaves_nothing(server, name):
    one, other = cc.SharedLock(name), cc.SharedLock(name)
    one.acquire(), other.acquire()
    with pytest.raises(Interrupted):
        with interrupted_when(lambda: Lock(name).status().waiter_count == 1):
            one.upgrade()
    with pytest.raises(cc.NotHeld):
        one.release()
    other.release()
    assert Lock(name).acquire(timeout=5)


def test_a_second_release_says_that_nothing_is_held(server, name):
    lock = Lock(name)
    hold = lock._acquire(True, -1)
    for _ in range(20):
        hold.release()
        with pytest.raises(cc.NotHeld):
            hold.release()
        hold = lock._acquire(True, -1)
    hold.release()


def test_who_waits_is_told_its_place_in_line(server, name):
    places, got = [], []
    client = Client(server)
    first, second = client.lock(name), client.lock(name)
    first.acquire()
    thread = threading.Thread(target=second.acquire)
    thread.start()
    eventually(lambda: first.status().waiter_count == 1, "the second waits")

    def wait():
        with client.lock(name, on_queued=places.append):
            got.append(True)

    third = threading.Thread(target=wait)
    third.start()
    eventually(lambda: places == [2], "it is told its place")
    first.release()
    eventually(lambda: places == [2, 1], "it is told the next")
    thread.join()
    second.release()
    third.join()
    assert got == [True]
    with client.lock(name), pytest.raises(ZeroDivisionError):
        client.lock(name, on_queued=lambda _: 1 / 0).acquire()
    assert client.lock(name, on_queued=places.append).acquire(timeout=5)
    client.close()


def test_permits_of_a_semaphore_are_counted_by_the_server(server, name):
    with cc.Semaphore(name, 3, take=2):
        assert not cc.Semaphore(name, 3, take=2).acquire(blocking=False)
        with cc.Semaphore(name, 3) as hold:
            assert hold.acquired
        assert not cc.Semaphore(name, 4).acquire(blocking=False), "another size waits its turn"
    with pytest.raises(ValueError):
        cc.Semaphore(name, 3, take=4)


def test_a_newer_request_ends_an_older_one_that_waits(server, name):
    caught = []

    def wait():
        try:
            Lock(name, supersede=True).acquire()
        except cc.LockError as error:
            caught.append(error)

    with Lock(name):
        older = threading.Thread(target=wait)
        older.start()
        eventually(lambda: Lock(name).status().waiter_count == 1, "it waits")
        assert not Lock(name, supersede=True).acquire(timeout=0.05)
        older.join(10)
        assert isinstance(caught[0], cc.Superseded) and caught[0].code == "Superseded"


def test_several_locks_are_had_together_or_not_at_all(server, name):
    with Lock(name + "/b"):
        many = cc.MultiLock([name + "/a", name + "/b"], shared=[name + "/rates"], timeout=0.05)
        with pytest.raises(cc.LockTimeout):
            many.__enter__()
        assert Lock(name + "/a").acquire(blocking=False)
    with pytest.raises(ValueError, match="twice"):
        cc.MultiLock(["a", "a"])
    with pytest.raises(ValueError):
        cc.MultiLock("ab")


def test_owners_are_told_of_deadlocks(server, name):
    client = Client(server)
    one, other = client.owner(), client.owner()
    a, b = name + "/a", name + "/b"
    with one.lock(a), other.lock(b):
        waiting = one.lock(b)

        def wait():
            with pytest.raises(cc.Cancelled):
                waiting.acquire()

        thread = threading.Thread(target=wait)
        thread.start()
        eventually(lambda: client.status(b).waiter_count == 1, "it waits")
        with pytest.raises(cc.Deadlock) as caught:
            other.lock(a).acquire()
        assert len(caught.value.cycle) == 2 and "deadlock: " in str(caught.value)
        with pytest.raises(cc.AlreadyHeld):
            other.lock(b).acquire()
        waiting.cancel()
        thread.join()
    client.close()


def test_cancel_ends_a_wait_in_another_thread(server, name):
    lock, caught = Lock(name), []

    def wait():
        try:
            lock.acquire()
        except cc.LockError as error:
            caught.append(error)

    with Lock(name):
        thread = threading.Thread(target=wait)
        thread.start()
        eventually(lambda: lock.status().waiter_count == 1, "it waits")
        lock.cancel()
        thread.join()
        assert isinstance(caught[0], cc.Cancelled)
        eventually(lambda: lock.status().waiter_count == 0, "it has left the line")


def test_a_revoked_lock_is_lost_and_says_so(shared_coordinator, server, name):
    told = threading.Event()
    lock = Lock(name, on_lost=lambda hold: told.set())
    lock.acquire()
    lost = lock.lost
    assert not lost.is_set() and not lost.wait(0.01) and lost.reason is None
    lock.refresh()
    assert lock.extend(10)
    from coordinator_client.observe import Observer

    with Observer(server) as observer:
        observer.revoke(name, lock.token)
    assert lost.wait(10) and lost.reason == "Revoked" and told.wait(10)
    assert not lock.acquired and lock.state == "lost"
    for call in (lock.refresh, lock.extend, lock.reacquire, lock.release):
        with pytest.raises(cc.LockLost, match="operator"):
            call()
    with pytest.raises(cc.NotHeld):
        lock.release()
    assert lock.acquire() and lock.acquired
    lock.release()


def test_threads_that_share_an_object_release_what_is_theirs(server, name):
    lock, seen = cc.SharedLock(name), []
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))

    def first():
        with lock:
            first_is_in.set()
            second_is_in.wait(DEADLINE)
        first_is_out.set()

    def second():
        first_is_in.wait(DEADLINE)
        with lock as hold:
            second_is_in.set()
            first_is_out.wait(DEADLINE)
            seen.append((hold.acquired, lock.token == hold.token))

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [(True, True)] and lock.status() is None


def test_the_end_of_a_body_that_was_released_in_it_takes_nothing_from_others(server, name):
    lock = cc.SharedLock(name)
    for _ in range(2):
        thread = threading.Thread(target=lock.acquire)
        thread.start()
        thread.join()
    with pytest.raises(cc.NotHeld, match="held by others through this object"):
        with lock:
            lock.release()
    assert lock.status().holder_count == 2
    lock.release(), lock.release()


def test_a_body_may_end_in_another_thread_while_others_hold_through_the_same_object(server, name):
    lock = cc.SharedLock(name)
    in_body, over, seen = threading.Event(), threading.Event(), []

    def body():
        with lock as hold:
            in_body.set()
            over.wait(DEADLINE)
            seen.append(hold.acquired)

    began = contextlib.ExitStack()
    thread = threading.Thread(target=lambda: began.enter_context(lock))
    thread.start()
    thread.join()
    lock.acquire()
    mine = lock.token
    began.close()
    assert lock.token == mine and lock.status().holder_count == 1, "an own one is no body's"
    lock.release()
    other = threading.Thread(target=body)
    other.start()
    assert in_body.wait(DEADLINE)
    began.enter_context(lock)
    closer = threading.Thread(target=began.close)
    closer.start()
    closer.join()
    assert lock.status().holder_count == 1
    over.set()
    other.join()
    assert seen == [True] and lock.status() is None


def test_the_end_of_a_body_releases_what_was_acquired_anew_in_it(server, name):
    lock = cc.SharedLock(name)
    thread = threading.Thread(target=lock.acquire)
    thread.start()
    thread.join()
    with lock as hold:
        hold.release()
        lock.acquire()
    assert lock.status().holder_count == 1
    with pytest.raises(cc.NotHeld, match="held by others through this object"):
        with lock:
            lock.release()
    assert lock.acquired and not lock._left_early
    lock.release()


def test_notes_of_bodies_that_never_end_are_few(server, name):
    lock = Lock(name)
    for _ in range(100):
        lock.__enter__()
        lock.release()
    assert len(lock._left_early) <= 64
    lock = cc.RLock(name)
    with lock:
        lock.acquire()
    lock.release()
    assert not lock._lock._left_early and not lock.acquired


def test_who_waits_for_a_loss_is_woken_by_a_release(server, name):
    lock = Lock(name, on_lost=lambda hold: pytest.fail("it was not lost"))
    lock.acquire()
    lost, answers = lock.lost, []
    thread = threading.Thread(target=lambda: answers.append(lost.wait()))
    thread.start()
    lock.release()
    thread.join(10)
    assert answers == [False]


def test_a_decorator_holds_the_lock_for_each_call(server, name):
    held = Lock(name)

    @Lock(name, blocking=False, busy="skip")
    def nightly(value):
        return held.status().holder_count, value

    assert nightly(7) == (1, 7)
    with held:
        assert nightly(7) is None

    @Lock(name, blocking=False)
    def loud():
        raise KeyError

    with held, pytest.raises(cc.LockBusy):
        loud()
    with pytest.raises(KeyError):
        loud()
    assert held.status() is None


async def coroutine():
    pass


async def asynchronous_generator():
    yield


def generator():
    yield


class Called:
    async def __call__(self):
        pass


@pytest.mark.parametrize(
    "function, remedy",
    [
        (coroutine, "needs coordinator_client.aio"),
        (functools.partial(coroutine), "needs coordinator_client.aio"),
        (Called(), "needs coordinator_client.aio"),
        (asynchronous_generator, "an asynchronous generator would run without the lock"),
        (generator, "a generator would run without the lock"),
        (functools.partial(generator), "use the lock in its body"),
    ],
)
def test_what_would_run_without_the_lock_is_not_decorated(function, remedy):
    with pytest.raises(TypeError, match=remedy):
        Lock("x")(function)
    if "aio" in remedy:
        assert cc.aio.Lock("x")(function)
    else:
        with pytest.raises(TypeError, match="would run without the lock"):
            cc.aio.Lock("x")(function)


def test_what_nobody_refers_to_is_released(server, name):
    Lock(name).acquire()
    hold = Client(server).try_lock(name + "/2")
    assert hold.acquired
    del hold
    gc.collect()  # PyPy does not see it at once.
    with Lock(name, timeout=5), Lock(name + "/2", timeout=5):
        pass


def test_a_closed_client_frees_everything_and_says_it_is_closed(server, name):
    client = Client(server)
    lock = client.lock(name)
    lock.acquire()
    client.close()
    assert not lock.acquired
    assert Lock(name).acquire(blocking=False)
    with pytest.raises(cc.LockLost):
        lock.release()
    with pytest.raises(cc.Closed):
        lock.acquire()


def test_a_handler_that_comes_upon_a_step_closes_the_client_after_it(server, name):
    client = Client(server)
    lock = client.lock(name)
    lock.acquire()
    with client._session._lock:
        began = time.monotonic()
        client.close()
        took = time.monotonic() - began
    assert took < 0.5
    eventually(lambda: lock.state == "lost" and Lock(name).status() is None, "it is closed")


def test_no_coordinator_is_told_with_a_hint():
    lock = Lock("x", server="127.0.0.1:1")
    with pytest.raises(ConnectionError, match="no coordinator answers at 127.0.0.1:1") as caught:
        lock.acquire()
    assert "coordinator serve" in caught.value.hint


def test_servers_are_tried_in_order(server, name):
    began = time.monotonic()
    with Client(f"127.0.0.1:1,{server}") as client, client.lock(name):
        assert Lock(name).status().holder_count == 1
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "build",
    [
        lambda: Lock(""),
        lambda: Lock("x" * 256),
        lambda: Lock("a\nb"),
        lambda: Lock("a\u2028b"),
        lambda: Lock("x", note="n" * 256),
        lambda: Lock("x", lock_delay=61),
        lambda: Lock("x", at_least=7 * 86_400 + 1),
        lambda: Lock("x", ttl=1),
        lambda: Lock("x", ttl=float("nan")),
        lambda: Lock("x", ttl=float("inf")),
        lambda: Lock("x", ttl="10"),
        lambda: Client(connect_timeout=None),
        lambda: Client(connect_timeout="5"),
        lambda: Client(connect_timeout=float("nan")),
        lambda: Client(connect_timeout=0),
        lambda: Client(connect_timeout=1e10),
        lambda: Client(linger="1"),
        lambda: Lock("x", server="http://a/"),
        lambda: Lock("x", server=",".join("abcdefghijklmnopq")),
        lambda: Client(identity="i" * 129),
        lambda: cc.MultiLock(map(str, range(65))),
        lambda: Lock("x", busy="perhaps"),
        lambda: Lock(7),
    ],
)
def test_impossible_wishes_are_told_before_anything_is_sent(build):
    with pytest.raises(cc.InvalidRequest):
        build()


def test_the_longest_name_and_note_are_taken(server):
    with Lock("x" * 255, note="n" * 255, lock_delay=60):
        pass
    cc.MultiLock([f"longest/{i}" for i in range(64)]).acquire()


def test_timeouts_are_those_of_threading(server, name):
    lock = Lock(name)
    with pytest.raises(ValueError):
        lock.acquire(False, 1)
    with pytest.raises(ValueError):
        lock.acquire(timeout=-100)
    with pytest.raises(OverflowError):
        lock.acquire(timeout=1e100)


def test_the_coordinator_comes_back_and_nobody_notices(coordinator, name):
    with Client(coordinator.address, ttl=2) as client:
        lock = client.lock(name)
        lock.acquire()
        token, done = lock.token, []
        waiter = threading.Thread(target=lambda: done.append(client.lock(name).acquire()))
        waiter.start()
        eventually(lambda: client.status(name).waiter_count == 1, "it waits")
        coordinator.stop()
        eventually(lambda: lock.state == "jeopardy", "it is doubtful, in time")
        coordinator.start()
        eventually(lambda: lock.state == "held", "it is back")
        assert lock.token == token
        coordinator.kill()
        coordinator.start()
        eventually(lambda: client.status(name).waiter_count == 1, "it waits again")
        eventually(lambda: lock.state == "held", "it is held")
        assert lock.token == token and not done
        lock.release()
        waiter.join(30)
        assert done == [True]
