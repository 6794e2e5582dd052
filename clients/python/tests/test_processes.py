"""Forks, signals, processes that are killed, and greenlets instead of threads."""

import _thread
import concurrent.futures
import gc
import importlib.util
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from conftest import DEADLINE, eventually

import coordinator_client as cc
from coordinator_client import Lock

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


def python(script, *arguments, **settings):
    """Runs a script in another process."""
    return subprocess.Popen(
        # Some Pythons warn of every fork in a process with threads.
        [sys.executable, "-Wignore::DeprecationWarning", "-c", textwrap.dedent(script), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings,
    )  # fmt: skip


def in_a_fork(work):
    """What ``work`` gives in a child, as text; it must not take long."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        signal.alarm(int(DEADLINE))
        try:
            text = repr(work())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


@needs_fork
def test_a_forked_child_does_not_believe_in_its_parents_lock(server, name):
    lock = Lock(name)
    with lock as hold:
        seen = in_a_fork(lambda: (lock.acquired, hold.acquired, hold.state, lock.lost.is_set()))
        assert seen == "(False, False, 'lost', True)"
        assert in_a_fork(lock.release).startswith(
            f'NotHeld: "{name}" is held by the process that forked this one'
        )
        assert in_a_fork(lambda: lock.token).startswith("NotHeld")
        # It neither hangs nor has it, and the parent is undisturbed.
        child = Lock(name + "/child")
        assert in_a_fork(lambda: (child.acquire(), lock.acquire(timeout=0.05))) == "(True, False)"
        assert lock.acquired and lock.status().holders[0].token == hold.token
        assert lock.valid_for > 0
    assert in_a_fork(lambda: lock.acquire(timeout=5)) == "True"


@needs_fork
def test_a_child_that_ends_frees_nothing_of_its_parents(server, name):
    script = """
        import os, sys
        from coordinator_client import Lock
        lock = Lock(sys.argv[1])
        lock.acquire()
        child = os.fork()
        if child == 0:
            lock.__del__() if hasattr(lock, "__del__") else None
            sys.exit(0)  # With atexit and destructors.
        os.waitpid(child, 0)
        print(lock.acquired, lock.status().holders[0].token == lock.token)
        """
    process = python(script, name)
    out, err = process.communicate(timeout=DEADLINE)
    assert (out, err) == ("True True\n", "")


@needs_fork
def test_a_fork_while_other_threads_lock_neither_hangs_nor_disturbs_them(server, name):
    client, over = cc.Client(server), threading.Event()
    lock = Lock(name)

    def work(number):
        while not over.is_set():
            with client.lock(f"{name}/{number}"):
                pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            assert in_a_fork(lambda: [lock.acquire(timeout=10), lock.release()]) == "[True, None]"
        assert client.generation == 1, "over the connection that it had"
    finally:
        over.set()
        for thread in threads:
            thread.join()


def increment(path, lock):
    with lock:
        number = int(open(path).read())
        with open(path, "w") as file:
            file.write(str(number + 1))


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_pool_of_processes_counts_right(server, name, method, tmp_path):
    path = tmp_path / "number"
    path.write_text("0")
    lock = Lock(name)
    with lock:  # It was used before.
        pass
    context = multiprocessing.get_context(method)
    with context.Pool(3) as pool:
        pool.starmap(increment, [(str(path), lock)] * 40)
    assert path.read_text() == "40"


def acquire_for_good(name):
    global kept
    kept = Lock(name, ttl=60)
    kept.acquire()


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_child_of_multiprocessing_that_ends_frees_everything_at_once(server, name, method):
    child = multiprocessing.get_context(method).Process(target=acquire_for_good, args=(name,))
    child.start()
    child.join(DEADLINE)
    assert child.exitcode == 0 and Lock(name).acquire(timeout=DEADLINE / 2)


def work_in_threads(name, path):
    """Two threads work under a lock after the main one; a third does nothing any more."""
    global kept
    kept = Lock(name, ttl=60)
    kept.acquire()
    executor = concurrent.futures.ThreadPoolExecutor(2)
    executor.submit(int).result()
    told = []

    def work(seconds):
        told.append(kept.lost.wait(seconds))
        path.write_text(repr(told))

    threading.Thread(target=work, args=(0.5,)).start()
    executor.submit(work, 0.6)


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_child_of_multiprocessing_frees_nothing_while_its_threads_work(
    server, name, method, tmp_path
):
    path = tmp_path / "told"
    child = multiprocessing.get_context(method).Process(target=work_in_threads, args=(name, path))
    child.start()
    child.join(DEADLINE)
    assert child.exitcode == 0 and path.read_text() == "[False, False]"
    assert Lock(name).acquire(timeout=DEADLINE / 2)


def test_an_orderly_exit_frees_everything_at_once(server, name):
    script = "import sys, coordinator_client as cc; l = cc.Lock(sys.argv[1]); l.acquire()"
    process = python(script, name)
    assert process.communicate(timeout=DEADLINE) == ("", "")
    assert Lock(name).acquire(blocking=False)


def test_a_process_that_stood_still_knows_that_its_lock_is_lost_before_anything_succeeds(
    server, name
):
    script = """
        import sys, time
        from coordinator_client import Lock, LockLost
        lock = Lock(sys.argv[1], ttl=2)
        lock.acquire()
        print("holds", flush=True)
        sys.stdin.readline()
        try:
            lock.refresh()
            print("believed", flush=True)
        except LockLost as lost:
            print(lost.reason, lock.acquired, lock.lost.is_set(), flush=True)
        """
    process = python(script, name, stdin=subprocess.PIPE)
    assert process.stdout.readline() == "holds\n"
    process.send_signal(signal.SIGSTOP)
    with Lock(name, timeout=10):
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate("go\n", timeout=DEADLINE)
    assert out == "Expired False True\n", (out, err)


def test_a_stopped_process_whose_body_is_busy_python_keeps_its_lock(server, name):
    with Lock(name, ttl=4) as hold:
        until = time.monotonic() + 5
        while time.monotonic() < until:
            sum(range(1000))
        assert hold.acquired


GREENLETS = {
    "gevent": (
        "from gevent import monkey; monkey.patch_all(); import gevent; spawn = gevent.spawn; "
        "sleep = gevent.sleep; wait = gevent.joinall"
    ),
    "eventlet": (
        "import eventlet; eventlet.monkey_patch(); spawn = eventlet.spawn; sleep = eventlet.sleep; "
        "wait = lambda them: [one.wait() for one in them]"
    ),
}


@pytest.mark.parametrize("kind", GREENLETS)
@pytest.mark.parametrize("order", ["patched first", "imported first"])
def test_a_greenlet_that_waits_lets_the_others_run(server, name, kind, order):
    if importlib.util.find_spec(kind) is None:
        pytest.skip(f"{kind} is not installed")
    script = """
        import sys
        patch, name, order = sys.argv[1:]
        if order == "imported first":
            import coordinator_client
        exec(patch)
        from coordinator_client import Lock
        ticks, got = [], []
        def tick():
            while len(got) < 4:
                ticks.append(1)
                sleep(0.01)
        def work(number):
            with Lock(name):
                got.append(number)
                sleep(0.1)
        workers = [spawn(work, number) for number in range(4)]
        wait([spawn(tick), *workers])
        print(got, len(ticks) > 10)
        """
    process = python(script, GREENLETS[kind], name, order)
    out, err = process.communicate(timeout=DEADLINE)
    assert out == "[0, 1, 2, 3] True\n", (out, err)


def test_what_is_raised_by_a_signal_ends_a_wait_and_leaves_the_line(server, name):
    class TimeIsUp(Exception):
        pass

    def time_is_up(*_):
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, time_is_up)
    try:
        with Lock(name):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(TimeIsUp):
                Lock(name).acquire()
            eventually(lambda: Lock(name).status().waiter_count == 0)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_an_interrupt_that_comes_just_before_a_wait_ends_it(server, name):
    """What comes so is noted, and wakes nobody; as does `interrupt_main`."""
    with Lock(name):
        waits = Lock(name)

        def interrupt():
            eventually(lambda: waits.status() and waits.status().waiter_count == 1)
            time.sleep(0.05)  # Else it is in time.
            _thread.interrupt_main()

        thread = threading.Thread(target=interrupt)
        # A shell's job ignores it.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        thread.start()
        began = time.monotonic()
        try:
            with pytest.raises(KeyboardInterrupt):
                waits.acquire(timeout=DEADLINE)
        finally:
            signal.signal(signal.SIGINT, before)
        assert time.monotonic() - began < DEADLINE / 2
        thread.join()


def interrupt_at_any_step(client, name):
    """Uses a lock, and interrupts that between any two steps."""

    class Interrupted(Exception):
        pass

    def interrupt(*_):
        raise Interrupted

    dice, interrupted = random.Random(1), 0
    client.connect()
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(500):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-6 + dice.random() / 2_000)
                with client.lock(name):
                    pass
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupted:
                interrupted += 1
                if sys.implementation.name == "pypy":
                    gc.collect()  # What came just before it has nobody any more.
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 100
    # Nothing is held or awaited, over the session of the client or any other.
    eventually(lambda: client.status(name) is None)
    assert client.lock(name).acquire(timeout=5)
    client.close()


def test_an_interrupt_between_any_two_steps_leaves_nothing(server, name):
    interrupt_at_any_step(cc.Client(server), name)


def interrupted_at_line(number, work):
    """Runs it, and interrupts it before a line of the package; whether it came so far.

    Not before the `try` of `__exit__`, where nothing of ours can catch anything.
    """
    package = os.path.dirname(cc.__file__)
    left = [number]

    class Interrupted(BaseException):
        pass

    def trace(frame, event, _):
        if not frame.f_code.co_filename.startswith(package):
            return None
        begins = [1, 2] if frame.f_code.co_name == "__exit__" else []

        def at(frame, event, _):
            if event == "line" and not (begins and begins.pop()):
                left[0] -= 1
                if left[0] < 0:
                    raise Interrupted
            return at

        return at

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
        return left[0] < 0  # A destructor swallows it.
    except Interrupted:
        return True
    finally:
        sys.settrace(before)


def with_lock(lock):
    with lock:
        pass


def with_lock_twice(lock):
    with lock:
        with lock:
            pass


def acquire_and_hold(lock):
    """An interrupt while it is held belongs to who holds it."""
    assert lock.acquire(timeout=DEADLINE)


@pytest.mark.parametrize(
    "kind, work",
    [
        (lambda client, name: client.lock(name), with_lock),
        (lambda client, name: client.lock_all([name, name + "/2"]), with_lock),
        (lambda client, name: client.rlock(name), with_lock_twice),
        (lambda client, name: client.lock(name), acquire_and_hold),
    ],
    ids=["a lock", "several", "one within itself", "acquired"],
)
def test_an_object_that_lives_on_holds_nothing_after_an_interrupt(server, name, kind, work):
    client, other = cc.Client(server), cc.Client(server)
    client.connect(), other.connect()
    lines, lock = 0, kind(client, name)
    while interrupted_at_line(lines, lambda: work(lock)):
        assert other.lock(name).acquire(timeout=5), f"it is held after line {lines} of it"
        lines += 1
        if lines % 7 == 0:
            assert lock.acquire(timeout=5), f"its own object cannot have it after line {lines}"
            lock.release()
    assert lines > 50
    client.close(), other.close()


def test_a_handler_that_uses_a_lock_at_any_moment_neither_hangs_nor_breaks_anything(server, name):
    client, dice, seen = cc.Client(server, ttl=60), random.Random(2), []
    other = client.lock(name + "/handler")

    def handler(*_):
        try:
            other.release() if other.acquired else other.acquire(blocking=False)
            seen.append("used")
        except cc.NotHeld:
            seen.append("used")  # It is given back a moment after the handler that did so.
        except cc.LockError as error:
            assert "handler interrupted this client" in str(error), error
            seen.append("told to wait")

    client.connect()
    before = signal.signal(signal.SIGALRM, handler)
    try:
        for _ in range(500):
            signal.setitimer(signal.ITIMER_REAL, 1e-6 + dice.random() / 3_000)
            with client.lock(name) as hold:
                assert hold.acquired
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen.count("used") > 50, seen
    eventually(lambda: Lock(name).status() is None)
    assert client.lock(name).acquire(timeout=5)
    client.close()
    assert Lock(name + "/handler").acquire(timeout=5)


def test_a_coordinator_in_trouble_is_named(coordinator):
    coordinator.pause()
    with pytest.raises(cc.Unavailable, match="no answer within 0.2 s"):
        cc.Client(coordinator.address, connect_timeout=0.2).connect()
    coordinator.go_on()
