"""A coordinator that stands still: nobody takes that for a lock that is busy, or free."""

import asyncio
import threading

import pytest
from conftest import DEADLINE, eventually

import coordinator_client as cc
from coordinator_client import Client, _loop, _thread, aio


@pytest.fixture
def still(coordinator):
    """One that can be made to stand still; it goes on before it is disposed of."""
    yield coordinator
    coordinator.go_on()


@pytest.fixture
def hasty(monkeypatch):
    """Nobody waits long for an answer that does not come."""
    for module in (_thread, _loop):
        monkeypatch.setattr(module, "ANSWER_GRACE", 0.1)
        monkeypatch.setattr(module, "RELEASE_TIMEOUT", 0.1)


def hasty_client(client):
    """It is connected: a limit as short as this is not meant for that."""
    client.connect_timeout = 0.1
    return client


def test_silence_is_not_taken_for_busy(still, hasty, name):
    with hasty_client(Client(still.address, ttl=60).connect()) as client:
        still.pause()
        for arguments in ({"blocking": False}, {"timeout": 0.05}):
            with pytest.raises(cc.Unavailable, match="no answer within"):
                client.lock(name).acquire(**arguments)
        with pytest.raises(cc.Unavailable):
            client.try_lock(name)
        still.go_on()


def test_a_release_that_nobody_answers_is_told_and_the_end_of_a_body_is_not(still, hasty, name):
    with Client(still.address, ttl=60) as client:
        lock, permits = client.lock(name), client.semaphore(name + "/2", 2)
        lock.acquire(), permits.acquire(), permits.acquire()
        with client.lock(name + "/3"):
            still.pause()
        with pytest.raises(cc.Unavailable, match="no answer within 0.1 s"):
            lock.release()
        assert not lock.acquired
        with pytest.raises(cc.Unavailable):
            permits.release(2)
        assert not permits.acquired
        still.go_on()
        with Client(still.address) as other:
            assert other.lock_all([name, name + "/3"]).acquire(timeout=DEADLINE)
            assert other.semaphore(name + "/2", 2, take=2).acquire(timeout=DEADLINE)


@pytest.mark.parametrize("patience", [{"timeout": 0.05}, {"blocking": False}])
def test_an_upgrade_waits_no_longer_than_was_said_and_is_given_back(still, hasty, name, patience):
    with hasty_client(Client(still.address, ttl=60).connect()) as client:
        lock = client.lock(name, shared=True)
        lock.acquire()
        still.pause()
        with pytest.raises(cc.Unavailable, match="no answer within"):
            lock.upgrade(**patience)
        assert not lock.acquired
        still.go_on()
        with Client(still.address) as other:
            assert other.lock(name).acquire(timeout=DEADLINE)


def test_the_same_is_told_to_tasks(still, hasty, name):
    async def work():
        async with hasty_client(await aio.Client(still.address, ttl=60).connect()) as client:
            lock, shared = client.lock(name), client.lock(name + "/2", shared=True)
            await lock.acquire()
            await shared.acquire()
            async with client.lock(name + "/3"):
                still.pause()
            for arguments in ({"blocking": False}, {"timeout": 0.05}):
                with pytest.raises(cc.Unavailable, match="no answer within"):
                    await client.lock(name + "/4").acquire(**arguments)
            with pytest.raises(cc.Unavailable, match="no answer within"):
                await lock.release()
            with pytest.raises(cc.Unavailable, match="no answer within"):
                await shared.upgrade(timeout=0.05)
            assert not lock.acquired and not shared.acquired
            still.go_on()

    asyncio.run(asyncio.wait_for(work(), DEADLINE))
    with Client(still.address) as other:
        names = [f"{name}{end}" for end in ("", "/2", "/3", "/4")]
        assert other.lock_all(names).acquire(timeout=DEADLINE)
