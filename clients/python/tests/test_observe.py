"""Who looks on, servers in order, and connections that die without a word."""

import socket
import threading
import time

import pytest
from conftest import eventually
from proxy import Proxy

import coordinator_client as cc
from coordinator_client import Client, Lock, _dial, _report, _wire as wire
from coordinator_client.observe import Gap, Observer


def test_everything_can_be_looked_at(server, name):
    with Client(server, identity="ann@build7:8123") as client, Observer(server) as observer:
        with client.lock(name, note="deploy"), client.lock(name + "/kept", at_least=60):
            assert observer.server_status().held >= 2
            holder = observer.lock(name).holders[0]
            assert (holder.identity, holder.note, holder.connected) == (
                "ann@build7:8123", "deploy", True,
            )  # fmt: skip
            assert {name, name + "/kept"} <= {lock.name for lock in observer.locks()}
            assert "ann@build7:8123" in {session.identity for session in observer.sessions()}
        assert observer.lock(name) is None and observer.outlook(name) is None
        pause = observer.outlook(name + "/kept").pauses[0]
        assert pause.length_ms == 60_000 and 0 < pause.left_ms <= 60_000
        assert name + "/kept" in {outlook.name for outlook in observer.outlooks()}
        observer.revoke(name + "/kept", pause.token)
        with pytest.raises(cc.Rejected) as caught:
            observer.revoke(name, 1)
        assert caught.value.code == "NoSuchGrant"
        assert client.status().version and client.status(name) is None
        assert 0 < observer.ping() < 5
        assert observer.journal().start is not None
        assert observer.cluster() is None, "there are no others"
        waited = observer.waited()
        assert len(waited.counts) == len(waited.bounds_us) + 1 and sum(waited.counts) > 0
        assert "break" in observer.rights(name), "there is no access file"


def test_only_locks_that_somebody_waits_for_are_contended(server, name):
    with Client(server) as client, Observer(server) as observer:
        with client.lock(name + "/alone"), client.lock(name):
            waits = client.lock(name)
            thread = threading.Thread(target=lambda: pytest.raises(cc.Cancelled, waits.acquire))
            thread.start()
            eventually(lambda: observer.lock(name).waiter_count == 1, "it waits")
            contended = {lock.name: lock.waiter_count for lock in observer.contended()}
            assert contended[name] == 1 and name + "/alone" not in contended
            waits.cancel()
            thread.join()


def test_leaders_are_told_as_they_come_and_go(server, name):
    with Client(server) as client:
        leaders = client.leaders(name)
        assert next(leaders) is None
        with client.elect(name, "10.0.0.7:80") as term:
            leader = next(leaders)
            assert (leader.value, leader.token) == ("10.0.0.7:80", term.token)
        assert next(leaders) is None
        leaders.close()


def test_a_watch_goes_on_over_a_restart(coordinator, name):
    with Client(coordinator.address) as client:
        watch = client.watch(name)
        assert next(watch) is None
        lock = client.lock(name)
        lock.acquire()
        assert next(watch).holders[0].token == lock.token
        coordinator.stop()
        coordinator.start()
        eventually(lambda: lock.state == "held")
        lock.release()
        assert next(watch) is None
        watch.close()


def test_events_are_told(server, name):
    with Client(server) as client:
        events = client.events(name)
        with client.lock(name):
            pass
        kinds = [type(next(events).what).__name__ for _ in range(3)]
        assert kinds == ["HappenedRequested", "HappenedGranted", "HappenedReleased"]
        events.close()


def test_events_go_on_after_a_gap(shared_coordinator, server, name):
    proxy = Proxy(shared_coordinator.port)
    with Client(server) as client:
        events = Observer(proxy.address).events(name)
        proxy.cut()
        gap = next(events)
        assert isinstance(gap, Gap) and isinstance(gap.cause, cc.Unavailable)
        heard = []
        thread = threading.Thread(target=lambda: heard.append(next(events)))
        thread.start()

        def lock_until_heard():
            with client.lock(name):
                return heard

        eventually(lock_until_heard, "it is subscribed again")
        thread.join()
        assert isinstance(heard[0], wire.Event)
        events.close()
    proxy.close()


def test_a_session_tells_what_becomes_of_it(shared_coordinator, server, name):
    proxy = Proxy(shared_coordinator.port)
    client = Client(proxy.address, ttl=60)
    assert (client.session, client.epoch, client.generation) == (None, None, None)
    assert (client.ttl, client.valid_for) == (60, 0)
    events = client.session_events()
    session, generation = client.session, client.generation
    assert session in {one.session for one in Observer(server).sessions()}
    assert 0 < client.valid_for < 60 and client.epoch == Observer(server).server_status().epoch
    lock = client.lock(name)
    lock.acquire()
    proxy.cut()
    seen = [next(events) for _ in range(2)]
    # It is back long before anybody doubts.
    assert [event.kind for event in seen] == ["disconnected", "resumed"]
    assert isinstance(seen[0].cause, cc.Unavailable)
    assert (seen[1].session, seen[1].epoch) == (session, client.epoch)
    assert client.session == session and client.generation > generation
    token = lock.token
    Observer(server).revoke(name, token)
    lost = next(events)
    assert (lost.kind, lost.token, lost.reason) == ("lost", token, "Revoked")
    client.close()
    assert [event.kind for event in events] == ["closed"]
    proxy.close()


def test_who_reads_session_events_slowly_misses_the_oldest():
    feed = _report.Feed(lambda: None)
    for token in range(_report.EVENTS_MAX + 3):
        feed.push(cc.SessionEvent("lost", token=token))
    assert feed.pop() == cc.SessionEvent("missed", missed=3)
    assert feed.pop().token == 3


def test_errors_say_whether_to_try_again(server, name):
    with Lock(name):
        with pytest.raises(cc.LockBusy) as caught:
            Lock(name, blocking=False).__enter__()
        assert caught.value.is_retryable
    with pytest.raises(cc.InvalidRequest) as caught:
        Lock("")
    assert not caught.value.is_retryable
    with pytest.raises(cc.Rejected) as caught:
        Observer(server).revoke(name, 1)
    assert not caught.value.is_retryable


def test_a_connection_that_was_forgotten_costs_nothing(shared_coordinator, name):
    proxy = Proxy(shared_coordinator.port)
    with Client(proxy.address, ttl=4) as client:
        lock = client.lock(name)
        lock.acquire()
        proxy.hush()
        # The next keep-alive is due after 1 s, and overdue a quarter of a second later.
        eventually(lambda: proxy.accepted == 2, "a second connection is made")
        assert lock.acquired and lock.valid_for > 4 / 3
        time.sleep(0.1)
        token = lock.token
        lock.release()
        with lock:
            assert lock.token > token
    proxy.close()


def test_a_connection_that_is_cut_is_followed_by_another(shared_coordinator, name):
    proxy = Proxy(shared_coordinator.port)
    with Client(proxy.address) as client:
        lock = client.lock(name)
        for _ in range(5):
            lock.acquire()
            proxy.cut()
            lock.release()
        with lock:
            proxy.cut()
            eventually(lambda: lock.state == "held")
    proxy.close()


def test_another_server_of_the_list_is_gone_on_with(shared_coordinator, name):
    one, other = Proxy(shared_coordinator.port), Proxy(shared_coordinator.port)
    with Client(f"{one.address},{other.address}") as client:
        lock = client.lock(name)
        lock.acquire()
        token = lock.token
        one.close()
        eventually(lambda: other.accepted and lock.state == "held")
        assert lock.token == token
        lock.release()
    other.close()


def test_an_address_that_does_not_answer_keeps_none_from_being_tried(server, monkeypatch):
    host, port = server.split(":")
    hangs = socket.socket()
    hangs.bind(("127.0.0.1", 0))
    hangs.listen(0)
    # Its backlog is full: who connects next hears nothing.
    fillers = [socket.socket() for _ in range(3)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(hangs.getsockname())
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address)
             for address in (hangs.getsockname(), (host, int(port)))]  # fmt: skip
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    began = time.monotonic()
    number, connected = _dial.connect_first([_dial.Server("several", 1)], 0, 5)
    assert number == 0 and connected.getpeername() == (host, int(port))
    assert time.monotonic() - began < 4.5
    for sock in (connected, hangs, *fillers):
        sock.close()


@pytest.mark.parametrize(
    "text", ["", "a:0", "a:65536", "a:b", "[::1", "[::1]x", ":5", "a/b", "tls://", "tls://a/b"]
)
def test_servers_that_are_none_are_refused(text):
    with pytest.raises(ValueError):
        _dial.parse_servers(text)


def test_the_server_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("COORDINATOR_SERVER", "lock.internal")
    assert _dial.parse_servers(None) == [_dial.Server("lock.internal", 5625)]
    monkeypatch.delenv("COORDINATOR_SERVER")
    assert _dial.parse_servers(None) == [_dial.Server("127.0.0.1", 5625)]


def test_what_is_not_a_coordinator_is_told():
    listener = socket.create_server(("127.0.0.1", 0))

    def answer():
        sock, _ = listener.accept()
        sock.recv(100)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        sock.close()

    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(cc.ProtocolError, match="does not follow the protocol"):
        Lock("x", server="127.0.0.1:%d" % listener.getsockname()[1]).acquire()
    thread.join()
    listener.close()
