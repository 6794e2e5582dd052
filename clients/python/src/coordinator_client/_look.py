"""What is asked by who only looks, without a socket: the same for threads and for a loop.

A look is a generator that yields queries, is sent their answers, and returns what was seen.
"""

from __future__ import annotations

import time
from typing import Any, Generator, Iterable, List, NamedTuple, Optional, Tuple, TypeVar, Union

from . import _clock, _core, _terms, _wire as wire
from ._errors import LockError, NoLeader, ProtocolError, Rejected, ended, rejected

PAGES_MAX = 1_000_000
KEEP_ALIVE_EVERY = 10.0
Seen = TypeVar("Seen")
Look = Generator[wire.Query, Any, Seen]


class Leader(NamedTuple):
    """Who leads."""

    value: str
    """What it stood for election with."""
    token: int
    """The token of its term, greater than that of every term before."""
    identity: str
    """Who it is: the identity of its session."""
    session: int
    held_ms: int
    """For how long it had led when this was seen."""


def server_status() -> Look[wire.ServerStatus]:
    """Status of the coordinator."""
    answer = yield wire.QueryServer()
    return _expect(answer, wire.ServerSeen).status  # type: ignore[no-any-return]


def lock(name: str) -> Look[Optional[wire.LockStatus]]:
    """One lock; None if nobody holds it or waits for it."""
    answer = yield wire.QueryLock(_terms.lock_name(name))
    locks = _expect(answer, wire.LocksSeen).locks
    return locks[0] if locks else None


def outlook(name: str) -> Look[Optional[wire.Outlook]]:
    """Until when one lock is not to be had; None if nothing is known of that."""
    answer = yield wire.QueryOutlook(_terms.lock_name(name))
    locks = _expect(answer, wire.OutlooksSeen).locks
    return locks[0] if locks else None


def cluster() -> Look[Optional[wire.ClusterStatus]]:
    """The cluster that the coordinator leads; None: it is in none."""
    answer = yield wire.QueryCluster()
    return _expect(answer, wire.ClusterSeen).status  # type: ignore[no-any-return]


def waited() -> Look[wire.WaitedStatus]:
    """For how long grants were waited for in this run of the coordinator."""
    answer = yield wire.QueryWaited()
    return _expect(answer, wire.WaitedSeen).status  # type: ignore[no-any-return]


def rights(name: str) -> Look[List[str]]:
    """What may be done with a lock: verbs of an access file."""
    answer = yield wire.QueryRights(_terms.lock_name(name))
    return _expect(answer, wire.Rights).verbs  # type: ignore[no-any-return]


def journal() -> Look[wire.JournalStatus]:
    """The journal, and how the coordinator's run began."""
    answer = yield wire.QueryJournal()
    return _expect(answer, wire.JournalSeen).status  # type: ignore[no-any-return]


def pages(query: Any, kind: Any, field: str) -> Look[List[Any]]:
    """All pages of a long answer."""
    seen: List[Any] = []
    cursor = 0
    for _ in range(PAGES_MAX):
        answer = _expect((yield query(cursor)), kind)
        seen += getattr(answer, field)
        if answer.next is None:
            return seen
        cursor = answer.next
    raise ProtocolError("a list without an end")


def _expect(answer: Any, kind: Any) -> Any:
    if not isinstance(answer, kind):
        raise ProtocolError(f"{type(answer).__name__} is no answer to what was asked")
    return answer


def hello() -> bytes:
    """What an observer says first."""
    identity = _terms.default_identity()
    return wire.encode(wire.Hello(wire.PROTOCOL, wire.Observer(), 0, None, identity, 0, 0))


def check(message: wire.ServerMessage, server: str) -> wire.ServerMessage:
    """Raises what a message says that is a *no*, or the end."""
    if isinstance(message, wire.Rejected):
        raise rejected(message.code, message.message)
    if isinstance(message, wire.Farewell):
        end = _core.End("dismissed", 0, message.code, message.rejection, message.message)
        raise ended(server, end)
    return message


def no_welcome(server: str, why: object) -> ProtocolError:
    """What answers there is no coordinator, or is met in another way than it expects."""
    return ProtocolError(f"{server} does not follow the protocol: {why}")


def is_retryable(error: BaseException) -> bool:
    """Whether a watch goes on after that, over another connection."""
    if isinstance(error, Rejected):
        return error.code in ("Draining", "Unavailable", "Grace")
    return isinstance(error, (ConnectionError, TimeoutError, OSError, wire.WireError)) or (
        isinstance(error, LockError) and not isinstance(error, (ValueError, ProtocolError))
    )


def named_leader(error: BaseException) -> Optional[str]:
    """Where the leader is, if what ended the connection says so."""
    return error.leader if isinstance(error, NoLeader) else None


class Gap(NamedTuple):
    """The connection was lost: what happened until the next is not told."""

    cause: LockError
    """Why."""


class Interest:
    """What somebody wants to hear of, over one connection after another."""

    # Whether of what came together only the last counts.
    is_state = False

    def __init__(self) -> None:
        self._backoff = _core.Backoff(_clock.seed())
        self._connected: Optional[float] = None

    def request(self, query_id: int) -> wire.ClientMessage:
        """What is asked over each connection."""
        raise NotImplementedError

    def news(self, message: wire.ServerMessage, is_first: bool) -> Iterable[Any]:
        """What there is to tell of a message, the first of a connection or a later one."""
        raise NotImplementedError

    def gap(self, cause: BaseException) -> Iterable[Any]:
        """What there is to tell of a connection that is lost."""
        return ()

    @property
    def has_begun(self) -> bool:
        """Whether it was heard of: then a connection that is lost is followed by others."""
        return self._has_begun

    _has_begun = False

    def connected(self) -> None:
        """It is asked over another connection."""
        self._connected, self._has_begun = time.monotonic(), True

    def pause(self, patience: float) -> float:
        """How long to wait before the next connection."""
        connected, self._connected = self._connected, None
        # One that begins and is cut at once does not begin again at once.
        if connected is not None and time.monotonic() - connected > patience:
            self._backoff.reward()
        return self._backoff.pause(10 * _core.SECOND // 6) / _core.SECOND


class Watching(Interest):
    """The state of a lock, and what was told of it."""

    is_state = True

    def __init__(self, name: str):
        super().__init__()
        self.name = _terms.lock_name(name)
        self._told: Optional[Tuple[Any, int]] = None

    def request(self, query_id: int) -> wire.Watch:
        return wire.Watch(query_id, self.name)

    def news(
        self, message: wire.ServerMessage, is_first: bool
    ) -> Union[Tuple[()], Tuple[Optional[wire.LockStatus]]]:
        """What there is to tell: nothing if a new connection shows what was told already."""
        locks = _expect(message, wire.LocksSeen).locks
        seen: Optional[wire.LockStatus] = locks[0] if locks else None
        listed = [(h.session, h.request, h.token, h.mode) for h in seen.holders] if seen else []
        holders = (listed, seen.holder_count if seen else 0)
        known = is_first and holders == self._told and holders[1] == len(listed)
        self._told = holders
        return () if known else (seen,)


class Listening(Interest):
    """Events of requests."""

    def __init__(self, name: Optional[str]):
        super().__init__()
        self.name = None if name is None else _terms.lock_name(name)

    def request(self, query_id: int) -> wire.Subscribe:
        return wire.Subscribe(query_id, self.name)

    def news(
        self, message: wire.ServerMessage, is_first: bool
    ) -> Union[Tuple[()], Tuple[Union[wire.Event, wire.Missed]]]:
        return (message,) if isinstance(message, (wire.Event, wire.Missed)) else ()

    def gap(self, cause: BaseException) -> Tuple[Gap]:
        error = cause if isinstance(cause, LockError) else LockError(str(cause))
        return (Gap(error),)


class Terms:
    """The leaders among what is seen of a lock."""

    def __init__(self) -> None:
        self._told: Optional[int] = None
        self._has_told = False

    def news(self, seen: Optional[wire.LockStatus]) -> Union[Tuple[()], Tuple[Optional[Leader]]]:
        """The leader, if it is another than before."""
        leader = None
        if seen is not None and seen.holders:
            h = seen.holders[0]
            leader = Leader(h.note, h.token, h.identity, h.session, h.held_ms)
        token = leader.token if leader else None
        if self._has_told and token == self._told:
            return ()
        self._has_told, self._told = True, token
        return (leader,)
