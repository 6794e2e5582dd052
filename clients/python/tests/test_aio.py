"""The client of asyncio, against the real coordinator."""

import asyncio
import functools
import gc
import random
import time
import warnings

import pytest
from conftest import DEADLINE

import coordinator_client as cc
from coordinator_client import _look, aio


def on_a_loop(test):
    """Runs a coroutine function as a test; what it forgets to close is an error."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        async def bounded():
            await asyncio.wait_for(test(*args, **kwargs), DEADLINE)

        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            asyncio.run(bounded())
            gc.collect()

    return run


async def eventually(done):
    while not await done():
        await asyncio.sleep(0.005)


async def waiters(name):
    seen = await aio.Lock(name).status()
    return seen.waiter_count if seen else 0


@on_a_loop
async def test_a_lock_is_held_in_its_body_and_not_after(server, name):
    lock = aio.Lock(name)
    async with lock as hold:
        assert lock.acquired and hold.acquired and hold.state == "held" and lock.locked()
        assert lock.token == hold.token > 0
        assert (await lock.status()).holders[0].token == hold.token
        assert not await aio.Lock(name).acquire(timeout=0.02)
        assert not await aio.Lock(name).acquire(blocking=False)
        with pytest.raises(cc.LockBusy, match="is busy: held by"):
            async with aio.Lock(name, blocking=False):
                pytest.fail("entered")
        with pytest.raises(TimeoutError, match="gave up after 20ms"):
            async with aio.Lock(name, timeout=0.02):
                pytest.fail("entered")
    assert not lock.acquired and await lock.status() is None
    with pytest.raises(cc.NotHeld):
        lock.release()


@on_a_loop
async def test_threads_and_tasks_exclude_each_other(server, name):
    async with aio.Lock(name):
        assert not await asyncio.to_thread(cc.Lock(name).acquire, False)


@on_a_loop
async def test_the_end_of_a_body_does_not_wait_for_the_server(coordinator, name):
    async with aio.Client(coordinator.address, ttl=60) as client:
        async with client.lock(name), aio.RLock(name + "/2", client=client):
            coordinator.pause()
            began = time.monotonic()
        assert time.monotonic() - began < 4
        coordinator.go_on()
        async with aio.Client(coordinator.address) as other:
            assert await other.lock(name).acquire(timeout=20)
            assert await other.lock(name + "/2").acquire(timeout=20)


@on_a_loop
async def test_a_lock_is_free_for_everybody_when_its_release_was_awaited(server, name):
    async with aio.Client(server) as client, aio.Client(server) as other:
        mine, its = client.lock(name), other.lock(name)
        for _ in range(50):
            await mine.acquire()
            await mine.release()
            assert await its.acquire(blocking=False)
            await its.release()


@on_a_loop
async def test_a_lock_is_free_for_its_own_process_when_the_body_ends(server, name):
    async with aio.Client(server) as client:
        for _ in range(50):
            async with client.lock(name):
                pass
            lock = client.lock(name)
            assert await lock.acquire(blocking=False)
            await lock.release()


@on_a_loop
async def test_a_loss_is_told_at_the_end_of_the_body(server, name):
    async with aio.Observer(server) as observer:
        with pytest.raises(cc.LockLost, match="operator"):
            async with aio.Lock(name) as hold:
                await observer.revoke(name, hold.token)
                await hold.lost()


@on_a_loop
async def test_tasks_are_served_in_order(server, name):
    order = []

    async def work(number):
        async with aio.Lock(name):
            order.append(number)

    async with aio.Lock(name):
        tasks = []
        for number in range(20):
            tasks.append(asyncio.create_task(work(number)))
            await eventually(lambda: has_waiters(name, number + 1))
    await asyncio.gather(*tasks)
    assert order == list(range(20))


async def has_waiters(name, count):
    return await waiters(name) == count


@on_a_loop
async def test_a_thousand_races_of_cancel_and_grant_leak_nothing(server, name):
    dice, lock, got = random.Random(1), aio.Lock(name), 0

    async def work():
        nonlocal got
        async with aio.Lock(name):
            got += 1

    for _ in range(1_000):
        await lock.acquire()
        task = asyncio.create_task(work())
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
        released = lock.release()
        for _ in range(dice.randrange(6)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await released
    assert await aio.Lock(name).acquire(timeout=5) and 0 <= got <= 1_000
    assert await waiters(name) == 0


@on_a_loop
async def test_a_release_takes_effect_when_it_is_called(server, name):
    lock = aio.Lock(name)
    await lock.acquire()
    lock.release()  # Not awaited at all.
    async with aio.Lock(name, timeout=5):
        pass


@on_a_loop
async def test_timeouts_of_asyncio_end_a_wait(server, name):
    async with aio.Lock(name):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(aio.Lock(name).acquire(), 0.05)
        await eventually(lambda: has_waiters(name, 0))


@on_a_loop
async def test_shared_locks_are_upgraded_and_downgraded(server, name):
    other = aio.SharedLock(name)
    await other.acquire()
    async with aio.Lock(name, shared=True) as hold:
        with pytest.raises(cc.LockTimeout):
            await hold.upgrade(timeout=0.05)
        assert hold.acquired and hold.shared
        upgrade = asyncio.create_task(hold.upgrade())
        await eventually(lambda: has_waiters(name, 1))
        with pytest.raises(cc.Deadlock):
            await other.upgrade()
        await other.release()
        assert (await upgrade).acquired and not hold.shared
        assert (await hold.downgrade()).shared


@on_a_loop
async def test_semaphores_several_locks_owners_and_reentry(server, name):
    client = aio.Client(server)
    async with client.semaphore(name, 2, take=2), client.lock_all([name + "/a", name + "/b"]):
        assert await client.try_lock(name + "/a") is None
        assert not await aio.Semaphore(name, 2).acquire(blocking=False)
    owner = client.owner()
    async with owner.lock(name):
        with pytest.raises(cc.AlreadyHeld):
            await owner.lock(name).acquire()
    async with client.rlock(name) as hold:
        lock = client.rlock(name + "/r")
        async with lock, lock:
            assert lock.acquired
        assert not lock.acquired and hold.acquired
    await client.close()
    with pytest.raises(cc.Closed):
        await client.lock(name).acquire()


@on_a_loop
async def test_a_loss_is_told_without_asking(server, name):
    told = asyncio.Event()
    lock = aio.Lock(name, on_lost=lambda hold: told.set())
    hold = await lock._acquire(True, -1)
    lost = asyncio.create_task(hold.lost())
    async with aio.Observer(server) as observer:
        await observer.revoke(name, hold.token)
    assert await lost == "Revoked"
    await told.wait()
    assert not lock.acquired and lock.state == "lost"
    for call in (lock.refresh, lock.extend, lock.reacquire):
        with pytest.raises(cc.LockLost):
            await call()
    with pytest.raises(cc.LockLost, match="operator"):
        lock.release()
    assert await lock.acquire()


@on_a_loop
async def test_a_decorator_holds_the_lock_for_each_call(server, name):
    @aio.Lock(name, blocking=False, busy="skip")
    async def nightly(value):
        return (await aio.Lock(name).status()).holder_count, value

    assert await nightly(7) == (1, 7)
    async with aio.Lock(name):
        assert await nightly(7) is None
    with pytest.raises(TypeError):
        aio.Lock(name)(lambda: None)


@on_a_loop
async def test_what_nobody_refers_to_is_released(server, name):
    assert await aio.Lock(name).acquire()
    gc.collect()  # PyPy does not see it at once.
    async with aio.Lock(name, timeout=5):
        pass


@on_a_loop
async def test_cancel_ends_a_wait_in_another_task(server, name):
    lock = aio.Lock(name)
    async with aio.Lock(name):
        task = asyncio.create_task(lock.acquire())
        await eventually(lambda: has_waiters(name, 1))
        lock.cancel()
        with pytest.raises(cc.Cancelled):
            await task
        await eventually(lambda: has_waiters(name, 0))


def test_a_lock_object_works_on_one_loop_after_the_other(server, name):
    lock = aio.Lock(name)

    async def use():
        async with lock:
            return lock.acquired

    assert asyncio.run(use()) and asyncio.run(use())


def test_what_is_held_when_the_loop_ends_is_freed_at_once(server, name):
    lock = aio.Lock(name)
    asyncio.run(lock.acquire())
    assert cc.Lock(name).acquire(blocking=False) and not lock.acquired


def test_a_client_belongs_to_its_loop(server, name):
    client = aio.Client(server)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(client.connect())

    async def other():
        with pytest.raises(cc.InvalidRequest, match="another loop"):
            await client.lock(name).acquire()

    asyncio.run(other())
    loop.run_until_complete(client.close())
    loop.close()


@on_a_loop
async def test_no_coordinator_and_several(server, name):
    with pytest.raises(cc.Unavailable, match="no coordinator answers at 127.0.0.1:1"):
        await aio.Lock("x", server="127.0.0.1:1").acquire()
    async with aio.Client(["127.0.0.1:1", server]) as client, client.lock(name):
        pass


@on_a_loop
async def test_many_first_uses_share_one_session(server, name):
    async with aio.Client(server) as client:
        async with asyncio.timeout(DEADLINE) if hasattr(asyncio, "timeout") else client.lock(name):
            locks = [client.lock(f"{name}/{number}") for number in range(50)]
            first = asyncio.create_task(locks[0].acquire())
            await asyncio.sleep(0)
            rest = asyncio.gather(*(lock.acquire() for lock in locks[1:]))
            first.cancel()
            assert all(await rest)
        async with aio.Observer(server) as observer:
            mine = {h.session for lock in await observer.locks() for h in lock.holders
                    if lock.name.startswith(f"{name}/")}  # fmt: skip
        assert len(mine) == 1


@on_a_loop
async def test_the_coordinator_comes_back_and_nobody_notices(coordinator, name):
    # Two starts take longer than a short lease, on a busy machine.
    async with aio.Client(coordinator.address, ttl=20) as client:
        lock = client.lock(name)
        await lock.acquire()
        waiter = asyncio.create_task(client.lock(name).acquire())

        async def is_in_line():
            return (await client.status(name)).waiter_count == 1

        await eventually(is_in_line)
        token = lock.token
        await asyncio.to_thread(coordinator.stop)
        await asyncio.to_thread(coordinator.start)
        await asyncio.to_thread(coordinator.kill)
        await asyncio.to_thread(coordinator.start)

        async def is_back():
            return lock.state == "held"

        await eventually(is_back)
        assert lock.token == token and not waiter.done()
        await lock.release()
        assert await waiter


@on_a_loop
async def test_a_coordinator_that_stands_still_costs_the_lock_in_time(coordinator, name):
    async with aio.Client(coordinator.address, ttl=2) as client:
        lock = client.lock(name)
        await lock.acquire()
        coordinator.pause()
        # Its clock says so within the lease; when its task is run is for the machine to say.
        assert await asyncio.wait_for(lock.lost(), DEADLINE) == "Expired"
        coordinator.go_on()


@on_a_loop
async def test_watches_leaders_and_events_are_told(server, name):
    client = aio.Client(server)
    leaders, watch, events = client.leaders(name), client.watch(name), client.events(name)
    first_event = asyncio.create_task(events.__anext__())
    assert await leaders.__anext__() is None and await watch.__anext__() is None
    async with client.elect(name, "10.0.0.7:80") as term:
        leader = await leaders.__anext__()
        assert (leader.value, leader.token) == ("10.0.0.7:80", term.token)
        assert (await watch.__anext__()).holder_count == 1
    assert await leaders.__anext__() is None
    assert (await first_event).claims[0].name == name
    for iterator in (leaders, watch, events):
        await iterator.aclose()
    assert (await client.status()).version
    await client.close()


@on_a_loop
async def test_a_session_tells_what_becomes_of_it(coordinator, name):
    async with (
        aio.Client(coordinator.address, ttl=60) as client,
        aio.Observer(coordinator.address) as observer,
    ):
        events = client.session_events()
        told = asyncio.create_task(events.__anext__())
        lock = client.lock(name)
        await lock.acquire()
        assert client.session and client.valid_for > 50 and 0 < await observer.ping() < 5
        assert await observer.contended() == [] and (await observer.journal()).start is not None
        await observer.revoke(name, lock.token)
        event = await told
        assert (event.kind, event.token, event.reason) == ("lost", lock.token, "Revoked")
        await client.close()
        assert [event.kind async for event in events] == ["closed"]


@on_a_loop
async def test_a_task_that_waits_is_told_its_place_in_line(server, name):
    places, client = [], aio.Client(server)
    async with client.lock(name):
        waits = asyncio.create_task(client.lock(name, on_queued=places.append).acquire())

        async def is_told():
            return places == [1]

        await eventually(is_told)
    assert await waits
    await client.close()


def test_loops_of_others_do_as_well(server, name):
    uvloop = pytest.importorskip("uvloop")

    async def use():
        async with aio.Client(server) as client:
            async with client.lock(name) as hold, client.lock(name + "/2"):
                watch = client.watch(name)
                assert hold.acquired and (await watch.__anext__()).holder_count == 1
                await watch.aclose()
                assert not await aio.Lock(name).acquire(timeout=0.02)
            assert await client.status(name) is None
        await aio.Lock(name).acquire()

    loop = uvloop.new_event_loop()
    loop.run_until_complete(use())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    assert cc.Lock(name).acquire(timeout=5)


@on_a_loop
async def test_who_looks_is_cancelled_though_an_answer_comes_at_the_same_moment(
    server, name, monkeypatch
):
    client, check = aio.Client(server), _look.check

    async def watch():
        async for _ in client.watch(name):
            pass

    async def ask():
        await client.status(name)
        await asyncio.sleep(DEADLINE)

    for work in (watch, ask):
        for answer in range(2):
            task, left = asyncio.create_task(work()), [answer]

            def heard(message, where):
                left[0] -= 1
                if left[0] == -1:
                    task.cancel()
                return check(message, where)

            monkeypatch.setattr(_look, "check", heard)
            _, pending = await asyncio.wait([task], timeout=10)
            assert not pending and task.cancelled(), "it goes on"
    await client.close()


@on_a_loop
async def test_tasks_that_share_an_object_release_what_is_theirs(server, name):
    permits, first_ends, first_is_out = aio.Semaphore(name, 2), asyncio.Event(), asyncio.Event()

    async def first():
        async with permits:
            await first_ends.wait()
        first_is_out.set()

    task = asyncio.create_task(first())
    await eventually(lambda: is_held(permits))
    async with permits as hold:
        first_ends.set()
        await first_is_out.wait()
        assert hold.acquired and permits.token == hold.token
    await task
    assert await permits.status() is None


@on_a_loop
async def test_a_body_may_end_in_another_task_while_others_hold_through_the_same_object(
    server, name
):
    lock = aio.SharedLock(name)

    async def generate():
        async with lock:
            yield

    generator = generate()
    await asyncio.create_task(generator.__anext__())
    assert await lock.acquire()
    mine = lock.token
    await generator.aclose()
    assert lock.token == mine and (await lock.status()).holder_count == 1
    with pytest.raises(cc.NotHeld, match="held by others through this object"):
        await asyncio.create_task(released_in_its_body(lock))
    assert lock.token == mine and not lock._left_early
    await lock.release()
    async with aio.RLock(name) as hold:
        assert not hold._is_of_a_body


async def released_in_its_body(lock):
    async with lock:
        await lock.release()


async def is_held(lock):
    return lock.acquired
