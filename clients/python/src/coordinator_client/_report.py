"""What becomes of a session, for logs and health checks: the same for threads and for a loop."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Callable, Deque, List, NamedTuple, Optional

from . import _clock, _wire as wire
from ._errors import LockError

if TYPE_CHECKING:
    from ._desk import Desk

EVENTS_MAX = 1_024


class SessionEvent(NamedTuple):
    """Something that happened to a session."""

    kind: str
    """``connected``: by a new session, the one before was away too long; ``resumed``: by the same
    session, with all it holds; ``disconnected``: another connection is being made, and what is held
    stays held as long as the lease; ``jeopardy``: there was no answer for two thirds of the ttl;
    ``recovered``: there is one again; ``lost``: a lock; ``missed``: events were read too slowly;
    ``closed``: the last event.
    """
    session: int = 0
    """``connected`` and ``resumed``: the session."""
    epoch: int = 0
    """The same: the run of the coordinator."""
    token: int = 0
    """``lost``: the token of the grant."""
    reason: str = ""
    """``lost``: why, as in `LockLost.reason`."""
    cause: Optional[LockError] = None
    """``disconnected`` and ``closed``: why."""
    missed: int = 0
    """``missed``: how many events."""


class Feed:
    """Events for one reader: the latest, and how many were dropped before them."""

    def __init__(self, wake: Callable[[], None]):
        self._events: Deque[SessionEvent] = deque()
        self._missed = 0
        self._wake = wake

    def push(self, event: SessionEvent) -> None:
        """An event happens."""
        if len(self._events) == EVENTS_MAX:
            self._events.popleft()
            self._missed += 1
        self._events.append(event)
        self._wake()

    def pop(self) -> Optional[SessionEvent]:
        """The next event, if there is one."""
        if self._missed:
            missed, self._missed = self._missed, 0
            return SessionEvent("missed", missed=missed)
        return self._events.popleft() if self._events else None


class Reporter:
    """What was told last. There is one once somebody listens."""

    def __init__(self, desk: "Desk"):
        self._desk = desk
        self._feeds: List[Feed] = []
        self._session = desk.welcome.session if desk.welcome else None
        self._is_open = desk.core.is_open
        self._is_sure = self._is_sure_now()
        self._has_ended = False

    def _is_sure_now(self) -> bool:
        lease = self._desk.core.lease
        return lease is not None and _clock.now() < lease.doubtful_from()

    def add(self, feed: Feed) -> None:
        """Somebody else listens."""
        self._feeds.append(feed)
        if self._has_ended:
            feed.push(SessionEvent("closed", cause=self._desk.end_error()))

    def remove(self, feed: Feed) -> None:
        """Does not listen any more."""
        if feed in self._feeds:
            self._feeds.remove(feed)

    def _tell(self, event: SessionEvent) -> None:
        for feed in self._feeds:
            feed.push(event)

    def welcomed(self, session: int, epoch: int) -> None:
        """The session is welcome, over whichever connection."""
        kind = "resumed" if session == self._session else "connected"
        self._session, self._is_open = session, True
        self._tell(SessionEvent(kind, session, epoch))

    def lost(self, token: int, reason: int) -> None:
        """What was granted with that token is lost."""
        name = wire.LOST_REASONS.get(reason, f"Unknown({reason})")
        self._tell(SessionEvent("lost", token=token, reason=name))

    def disconnected(self) -> None:
        """Before what follows from it: tells if the connection is gone."""
        desk, is_open = self._desk, self._desk.core.is_open
        was_open, self._is_open = self._is_open, is_open
        if was_open and not is_open and desk.core.end is None:
            self._tell(SessionEvent("disconnected", cause=desk.end_error()))

    def settled(self) -> None:
        """After everything else: how sure the lease is, and the end."""
        if self._desk.core.end is not None:
            if not self._has_ended:
                self._has_ended = True
                self._tell(SessionEvent("closed", cause=self._desk.end_error()))
            return
        was_sure, self._is_sure = self._is_sure, self._is_sure_now()
        if was_sure != self._is_sure:
            self._tell(SessionEvent("recovered" if self._is_sure else "jeopardy"))

    def due(self) -> Optional[int]:
        """When the lease will no longer be sure."""
        lease = self._desk.core.lease
        return lease.doubtful_from() if self._is_sure and lease is not None else None
