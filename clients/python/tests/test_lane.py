"""Who waits reads: what the short way promises beside being short."""

import _socket
import select
import socket
import threading
import time

import pytest
from conftest import eventually
from test_processes import needs_fork, python

import coordinator_client as cc
from coordinator_client import Client, _lane, _link, _wire as wire
from coordinator_client.observe import Observer

needs_epoll = pytest.mark.skipif(
    not hasattr(select, "epoll"), reason="only Linux lets another thread say what is waited for"
)


def in_the_main_thread(work):
    work()


def in_another_thread(work):
    failures = []

    def run():
        try:
            work()
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    for failure in failures:
        raise failure


anywhere = pytest.mark.parametrize("anywhere", [in_the_main_thread, in_another_thread])


def link_of(client):
    return client._session._link


def has_loss(link):
    """Whether there is a `Lost` that nobody has read."""
    try:
        frames = wire.Frames().feed(link.sock.recv(65_536, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    return any(isinstance(wire.decode_server(frame), wire.Lost) for frame in frames)


def use_one_after_the_other(client, name):
    """Until the session's thread has ceased to watch the connection."""

    def is_hidden():
        for _ in range(20):
            with client.lock(name):
                pass
        return link_of(client).is_hidden

    eventually(is_hidden, "the session's thread looks away")


@needs_epoll
@anywhere
def test_the_end_of_a_body_is_one_message_and_no_wait(server, name, anywhere, monkeypatch):
    client, sent, waits = Client(server, ttl=60), [], []
    use_one_after_the_other(client, name)
    wait, link = _link.Link.wait, link_of(client)

    def send(sock, data):
        if sock is link.sock:
            sent.append(data)
        return _socket.socket.send(sock, data)

    monkeypatch.setattr(socket.socket, "send", send, raising=False)
    monkeypatch.setattr(
        _link.Link, "wait", lambda link, length: (waits.append(link), wait(link, length))
    )

    def pairs():
        for _ in range(10):
            sent.clear()
            with client.lock(name):
                assert waits and len(sent) == 1
                waits.clear()
            assert not waits and len(sent) == 2

    anywhere(pairs)
    client.close()


@anywhere
def test_the_end_of_a_body_does_not_wait_for_the_server(coordinator, name, anywhere):
    client = Client(coordinator.address, ttl=60)
    client.connect()

    def body():
        with client.lock(name):
            coordinator.pause()
            began = time.monotonic()
        assert time.monotonic() - began < 4

    anywhere(body)
    coordinator.go_on()
    with Client(coordinator.address) as other:
        assert other.lock(name).acquire(timeout=20)
    client.close()


@anywhere
def test_a_lock_is_free_for_everybody_when_release_returns(server, name, anywhere):
    with Client(server) as client, Client(server) as other:

        def releases():
            mine, its = client.lock(name), other.lock(name)
            for _ in range(50):
                mine.acquire()
                mine.release()
                assert its.acquire(blocking=False)
                its.release()

        anywhere(releases)


@anywhere
def test_a_lock_is_free_for_its_own_process_when_the_body_ends(server, name, anywhere):
    with Client(server) as client:

        def bodies():
            for _ in range(50):
                with client.lock(name):
                    pass
                lock = client.lock(name)
                assert lock.acquire(blocking=False)
                lock.release()

        anywhere(bodies)


@needs_epoll
@anywhere
def test_a_loss_that_has_come_is_told_at_the_end_of_the_body_though_nobody_read_it(
    server, name, anywhere, monkeypatch
):
    client = Client(server, ttl=60)
    monkeypatch.setattr(_lane, "UNHEARD_MAX", 0)

    def body():
        use_one_after_the_other(client, name)
        with pytest.raises(cc.LockLost, match="operator"):
            with client.lock(name) as hold, Observer(server) as observer:
                observer.revoke(name, hold.token)
                eventually(lambda: has_loss(link_of(client)) or not hold.acquired, "it is here")

    for _ in range(5):
        anywhere(body)
    client.close()


@needs_epoll
def test_one_of_many_reads_for_all(server, name, monkeypatch):
    client, reads = Client(server, ttl=60), []
    hear = _lane.Lane._hear_answers

    def hear_and_count(session, link, grasp, data):
        came = hear(session, link, grasp, data)
        if came:
            reads.append(threading.get_ident())
        return came

    def pairs(number):
        for _ in range(200):
            with client.lock(f"{name}/{number}") as hold:
                assert hold.acquired

    client.connect()
    monkeypatch.setattr(_lane.Lane, "_hear_answers", hear_and_count)
    threads = [threading.Thread(target=pairs, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Each of 1,600 pairs has two answers.
    assert len(reads) < 1_600
    client.close()


@needs_epoll
def test_who_waits_for_long_does_not_depend_on_who_reads(server, name):
    client, got = Client(server, ttl=60), []

    def wait():
        with client.lock(name):
            got.append(True)

    with Client(server) as other, other.lock(name):
        use_one_after_the_other(client, name + "/more")
        waiter = threading.Thread(target=wait)
        waiter.start()
        eventually(lambda: client._session._patient, "it waits for the session's thread")
        for _ in range(50):
            with client.lock(name + "/more"):
                pass
            assert not link_of(client).is_hidden
    waiter.join()
    assert got == [True]
    client.close()


@needs_epoll
def test_the_sessions_thread_watches_again_when_all_is_over(server, name):
    client = Client(server, ttl=60)
    for _ in range(3):
        use_one_after_the_other(client, name)
        eventually(lambda: not link_of(client).is_hidden, "it watches again")
        assert client._session._reader is None and not client._session._followers
    client.close()


@needs_fork
def test_a_release_at_the_end_of_a_process_is_heard(server, name):
    script = """
        import os, sys
        from coordinator_client import Lock
        for _ in range(20):
            with Lock(sys.argv[1]):
                pass
        os._exit(0)
        """
    for _ in range(3):
        assert python(script, name).wait(30) == 0
        with Client(server) as client:
            assert client.lock(name).acquire(timeout=8), "though nobody said goodbye"
