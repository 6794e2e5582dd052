"""Clients of a cluster: they find who leads, and go on when that changes."""

import asyncio
import socket
import threading
from types import SimpleNamespace

import pytest

import coordinator_client as cc
from conftest import eventually
from coordinator_client import Client, _dial, _search, aio
from coordinator_client.observe import Gap, Observer
from members import Member


@pytest.fixture
def pair(shared_coordinator):
    leader = Member(shared_coordinator.port)
    return Member(leader=leader.address), leader


TAKEN = []


def nobody():
    """A port where nobody listens, and nobody will: whoever asks for any port is given another."""
    TAKEN.append(socket.socket())
    TAKEN[-1].bind(("127.0.0.1", 0))
    return "127.0.0.1:%d" % TAKEN[-1].getsockname()[1]


def test_a_client_goes_on_to_the_leader_that_it_was_not_told_of(pair, name):
    standby, leader = pair
    with Client(standby.address) as client, client.lock(name):
        assert client.status(name).holder_count == 1
    assert leader.accepted and standby.accepted


def test_an_observer_does_too(pair, name):
    standby, _ = pair
    with Observer(standby.address) as observer:
        assert observer.lock(name) is None


def test_an_asyncio_client_does_too(pair, name):
    standby, _ = pair

    async def main():
        async with aio.Client(standby.address) as client:
            async with client.lock(name):
                assert (await client.status(name)).holder_count == 1

    asyncio.run(main())


def test_locks_events_and_watches_go_on_at_the_next_leader(shared_coordinator, pair, name):
    standby, leader = pair
    servers = f"{leader.address},{standby.address}"
    with Client(servers, ttl=60) as client:
        told = client.session_events()
        lock = client.lock(name)
        lock.acquire()
        watch = Observer(servers).watch(name)
        events = Observer(servers).events(name)
        assert next(watch).holders[0].token == lock.token
        standby.leads_to = shared_coordinator.port
        leader.hand_over_to(standby)
        seen = [next(told) for _ in range(2)]
        assert [event.kind for event in seen] == ["disconnected", "resumed"]
        assert f"names {standby.address}" in str(seen[0].cause)
        gap = next(events)
        assert isinstance(gap, Gap) and isinstance(gap.cause, cc.NoLeader)
        heard = []
        thread = threading.Thread(target=lambda: heard.append(next(events)))
        thread.start()
        assert lock.acquired
        eventually(lambda: client.try_lock(name) is None and heard, "events go on")
        thread.join()
        lock.release()
        assert next(watch) is None
        events.close()


def test_a_dead_leader_is_followed_by_the_next(shared_coordinator, pair, name):
    standby, leader = pair
    with Client(f"{leader.address},{standby.address}", ttl=60) as client:
        with client.lock(name) as hold:
            standby.leads_to = shared_coordinator.port
            leader.die()
            assert hold.acquired
            with client.lock(name + "/other"):
                pass


def test_who_finds_no_leader_is_told_what_each_said():
    standby, dead = Member(), nobody()
    client = Client(f"{dead},{standby.address}", connect_timeout=1)
    with pytest.raises(cc.NoLeader, match="knows nobody who does") as raised:
        client.lock("x").acquire()
    assert standby.address in str(raised.value) and raised.value.is_retryable


def test_who_comes_before_there_is_a_leader_waits_for_it(shared_coordinator, name):
    standby = Member()
    client = Client(standby.address)
    thread = threading.Thread(target=lambda: client.lock(name).acquire())
    thread.start()
    eventually(lambda: standby.accepted > 1, "it was turned away")
    standby.leads_to = shared_coordinator.port
    thread.join()
    client.close()


def test_two_that_name_each_other_are_no_storm():
    one, other = Member(), Member()
    one.leader, other.leader = other.address, one.address
    with pytest.raises(cc.NoLeader):
        Observer(f"{one.address},{other.address}", timeout=0.5).server_status()
    assert one.accepted + other.accepted < 50


@pytest.mark.parametrize("hint", ["", "no address", "x" * 10_000, "\x1b[2J:1", "a:1,b:2", "b:0"])
def test_what_is_no_address_is_no_hint(hint):
    with pytest.raises(cc.NoLeader) as raised:
        Observer(Member(leader=hint).address, timeout=0.5).server_status()
    assert len(str(raised.value)) < 300 and raised.value.leader is None


def test_each_that_cannot_be_reached_is_told_with_its_reason():
    one, other = nobody(), nobody()
    with pytest.raises(cc.Unavailable) as raised:
        Client(f"{one},{other}").lock("x").acquire()
    assert f"{one}: connection refused; {other}: connection refused" in str(raised.value)


def test_the_time_of_a_search_counts_from_its_first_attempt(monkeypatch):
    now = 0.0
    monkeypatch.setattr(_search, "time", SimpleNamespace(monotonic=lambda: now))
    dialer = _search.Dialer(_dial.parse_servers("a"), 0.3)
    search = _search.Search(dialer, 0.3)
    now = 0.001  # A slow machine: what was asked for is given, and is what an error tells.
    assert search.share() == pytest.approx(0.3, abs=1e-9)
