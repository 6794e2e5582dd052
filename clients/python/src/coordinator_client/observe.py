"""Connections that only observe, or revoke a lock.

>>> with Observer() as observer:
...     observer.lock("doctest/nobody-uses-it") is None
True
"""

from __future__ import annotations

import socket
import time
from typing import Any, Callable, Iterator, List, Optional, TypeVar, Union

from . import _dial, _look, _search, _terms, _wire as wire
from ._errors import Unavailable, unavailable
from ._look import KEEP_ALIVE_EVERY, Gap, Interest, Leader, Listening, Terms, Watching
from ._wire import (
    ClusterStatus, Event, Holder, JournalStatus, LockStatus, Missed, Outlook, ServerStatus,
    SessionStatus, WaitedStatus, Waiter,
)  # fmt: skip

Seen = TypeVar("Seen")


class _Line:
    """A connection without a session."""

    def __init__(self, dialer: _search.Dialer, plan: _search.Plan, share: float):
        self.server, self._timeout = _dial.shown(dialer.servers), dialer.timeout
        self._frames, self._messages = wire.Frames(), []  # type: ignore[var-annotated]
        self._next_id = 1
        self._asked: Optional[float] = None
        try:
            server, self._socket = plan.connect(share)
        except OSError as error:
            raise unavailable(self.server, error) from error
        dialer.reached(server)
        try:
            self.send(_look.hello())
            dialer.check_welcome(self.receive(share))
        except wire.WireError as error:
            self.close()
            raise _look.no_welcome(self.server, error) from error
        except BaseException:
            self.close()
            raise

    def send(self, data: bytes) -> None:
        try:
            self._socket.settimeout(self._timeout)
            self._socket.sendall(data)
        except OSError as error:
            raise unavailable(self.server, error) from error

    def receive(self, timeout: float) -> wire.ServerMessage:
        """The next message but `KeptAlive`; raises `Unavailable` if none comes in time."""
        give_up_at = time.monotonic() + timeout
        while True:
            message = self.next_if()
            if message is not None:
                return message
            left = give_up_at - time.monotonic()
            if left <= 0:
                raise unavailable(self.server, f"no answer within {timeout:g} s")
            self._wait(left)

    def next_if(self) -> Optional[wire.ServerMessage]:
        """A message that is there already."""
        while self._messages:
            message = self._messages.pop(0)
            if isinstance(message, wire.KeptAlive):
                self._asked = None
                continue
            return _look.check(message, self.server)
        return None

    def _wait(self, timeout: float) -> None:
        """Reads what there is, or waits until there is something."""
        try:
            self._socket.settimeout(max(timeout, 0.001))
            data = self._socket.recv(64 * 1024)
        except (socket.timeout, BlockingIOError):
            return
        except OSError as error:
            raise unavailable(self.server, error) from error
        if not data:
            raise unavailable(self.server, "it closed the connection")
        payloads = self._frames.feed(data)
        self._messages += [wire.decode_server(payload) for payload in payloads]

    def query_id(self) -> int:
        self._next_id += 1
        return self._next_id

    def ask(self, build: Callable[[int], Any]) -> wire.ServerMessage:
        """Asks, and waits for the answer."""
        self.send(wire.encode(build(self.query_id())))
        return self.receive(self._timeout)

    def listen(self) -> wire.ServerMessage:
        """The next message, however long that takes, while the server is there."""
        while True:
            message = self.next_if()
            if message is not None:
                return message
            self._wait(KEEP_ALIVE_EVERY if self._asked is None else self._timeout)
            now = time.monotonic()
            if self._messages:
                continue
            if self._asked is not None and now - self._asked > self._timeout:
                raise unavailable(self.server, f"nothing was heard for {self._timeout:g} s")
            if self._asked is None:
                self._asked = now
                self.send(wire.encode(wire.KeepAlive(self.query_id())))

    def close(self) -> None:
        try:
            self._socket.close()
        except AttributeError:
            pass


def _connect(dialer: _search.Dialer, hint: Optional[str] = None) -> _Line:
    """A line to whoever welcomes us; of a cluster, to its leader."""
    search = _search.Search(dialer, dialer.timeout, hint=hint)
    while True:
        try:
            return _Line(dialer, search.plan(), search.share())
        except BaseException as error:
            pause = search.after(error)
        time.sleep(pause)


class Observer:
    """Observes a coordinator, and revokes grants.

    It connects at its first use, and again after errors.
    """

    def __init__(
        self,
        server: Optional[_dial.Servers] = None,
        *,
        timeout: float = 5.0,
        tls: Optional[_dial.AnyTls] = None,
        credential: Optional[str] = None,
    ):
        self._dialer = _search.Dialer(_dial.parse_servers(server, tls, credential), timeout)
        self._timeout = _terms.patience_to_connect(timeout)
        self._line: Optional[_Line] = None

    def _ask(self, build: Callable[[int], Any]) -> wire.ServerMessage:
        if self._line is None:
            self._line = _connect(self._dialer)
        try:
            return self._line.ask(build)
        except Unavailable:
            self.close()
            raise

    def _look(self, look: "_look.Look[Seen]") -> Seen:
        try:
            query = next(look)
            while True:
                query = look.send(self._ask(lambda number: wire.Inspect(number, query)))
        except StopIteration as seen:
            return seen.value  # type: ignore[no-any-return]

    def server_status(self) -> ServerStatus:
        """Status of the coordinator."""
        return self._look(_look.server_status())

    def cluster(self) -> Optional[ClusterStatus]:
        """The cluster that the coordinator leads; None: it is in none."""
        return self._look(_look.cluster())

    def waited(self) -> WaitedStatus:
        """For how long grants were waited for in this run of the coordinator."""
        return self._look(_look.waited())

    def rights(self, name: str) -> List[str]:
        """What may be done with a lock: of `lock`, `share`, `see` and `break`."""
        return self._look(_look.rights(name))

    def journal(self) -> JournalStatus:
        """The journal of the coordinator, and how its run began."""
        return self._look(_look.journal())

    def ping(self) -> float:
        """How many seconds the coordinator takes to answer."""
        asked = time.perf_counter()
        self.server_status()
        return time.perf_counter() - asked

    def locks(self) -> List[LockStatus]:
        """All locks in use. Changes during the listing may be in the list or not."""
        return self._look(_look.pages(wire.QueryLocks, wire.LocksSeen, "locks"))

    def contended(self) -> List[LockStatus]:
        """The locks that somebody waits for: the only ones to look at where many are in use."""
        return self._look(_look.pages(wire.QueryContended, wire.LocksSeen, "locks"))

    def lock(self, name: str) -> Optional[LockStatus]:
        """Holders and waiters of the lock; None if it has none."""
        return self._look(_look.lock(name))

    def sessions(self) -> List[SessionStatus]:
        """All sessions."""
        return self._look(_look.pages(wire.QuerySessions, wire.SessionsSeen, "sessions"))

    def outlook(self, name: str) -> Optional[Outlook]:
        """When the lock will be free, as far as known; None if unknown."""
        return self._look(_look.outlook(name))

    def outlooks(self) -> List[Outlook]:
        """The same for all locks of which it is known."""
        return self._look(_look.pages(wire.QueryOutlooks, wire.OutlooksSeen, "locks"))

    def revoke(self, name: str, token: int) -> None:
        """Revokes the grant with this token, and notifies its holder."""
        _terms.lock_name(name)
        self._ask(lambda number: wire.Revoke(number, name, token))

    def watch(self, name: str) -> Iterator[Optional[LockStatus]]:
        """The state of the lock, now and after each change of its holders; None while unused.

        Each replaces the one before. It is information, not a proof: act on it with the token.
        """
        return self._follow(Watching(name), None)

    def leaders(self, name: str) -> Iterator[Optional[Leader]]:
        """The leader, now and after each change; None while there is none."""
        watch, terms = self.watch(name), Terms()
        return (leader for seen in watch for leader in terms.news(seen))

    def events(self, name: Optional[str] = None) -> Iterator[Union[Event, Missed, Gap]]:
        """What happens to requests from now on, of one lock or of all.

        `Missed` counts what was read too slowly. After a `Gap`, over another connection, nobody
        counted.
        """
        listening = Listening(name)
        line = _connect(self._dialer)
        line.ask(listening.request)
        listening.connected()
        return self._follow(listening, line)

    def _follow(self, interest: Interest, line: Optional[_Line]) -> Iterator[Any]:
        """Tells what there is to tell, over one connection after another."""
        leader = None
        while True:
            try:
                if line is None:
                    line = _connect(self._dialer, leader)
                    first = line.ask(interest.request)
                    interest.connected()
                    yield from interest.news(first, True)
                while True:
                    heard = line.listen()
                    later = line.next_if() if interest.is_state else None
                    while later is not None:
                        heard, later = later, line.next_if()
                    yield from interest.news(heard, False)
            except Exception as error:
                if not interest.has_begun or not _look.is_retryable(error):
                    raise
                leader = _look.named_leader(error)
                if line is not None:
                    yield from interest.gap(error)
            finally:
                if line is not None:
                    line.close()
            line = None
            time.sleep(interest.pause(self._timeout))

    def close(self) -> None:
        """Closes the connection, if there is one."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def __enter__(self) -> "Observer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


__all__ = [
    "ClusterStatus", "Event", "Gap", "Holder", "JournalStatus", "Leader", "LockStatus", "Missed",
    "Observer", "Outlook", "ServerStatus", "SessionStatus", "WaitedStatus", "Waiter",
]  # fmt: skip
