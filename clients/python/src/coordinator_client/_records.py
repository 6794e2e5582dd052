"""What the core keeps: requests, the session, the connection at whatever stage."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import Deque, List, NamedTuple, Optional, Tuple, Union

from . import _wire as wire
from ._wire import Code, Reason, Rejection
from ._values import KEEP_ALIVES_PER_TTL, MILLISECOND, SILENCE_TTLS_MAX, Ask, End, after, since


class Grant(NamedTuple):
    token: int
    seal: int
    since: int


# Where a request stands.
WAITING, UNCONFIRMED, HELD, RELEASING, CANCELLING = range(5)


class Request:
    """A request that is not over."""

    __slots__ = (
        "ask", "deadline", "ticket", "stage", "grant", "doubted",
        "token", "asked", "lost", "reclaimed", "repeated",
    )  # fmt: skip

    def __init__(self, ask: Ask, now: int):
        self.ask = ask
        self.deadline = (
            after(now, ask.wait.ms * MILLISECOND) if isinstance(ask.wait, wire.Timeout) else None
        )
        self.ticket: Optional[wire.Ticket] = None
        self.stage = WAITING
        # Of what is held or unconfirmed.
        self.grant = Grant(0, 0, 0)
        # Of what is held: until when it is believed in though the server has not confirmed it.
        self.doubted: Optional[int] = None
        # Of what is given back: its token, whether the application asked, why it was lost before,
        # whether it was reclaimed before, and whether this was said before.
        self.token = 0
        self.asked = False
        self.lost: Optional[int] = None
        self.reclaimed = False
        self.repeated = False

    def is_try(self) -> bool:
        return isinstance(self.ask.wait, wire.Never)

    def is_timed_out(self, now: int) -> bool:
        return self.deadline is not None and self.deadline <= now

    def message(self, number: int, now: int) -> wire.ClientMessage:
        """The request, for the first time or again: then for as long as it still would wait."""
        ask = self.ask
        wait = ask.wait
        if self.deadline is not None:
            left = -(-since(self.deadline, now) // MILLISECOND)
            wait = wire.Timeout(max(left, 1))
        request = wire.Request(
            number, ask.owner, ask.converts, wait, ask.progress, ask.lock_delay_ms, ask.note,
            self.ticket, ask.claims,
        )  # fmt: skip
        extras: List[wire.Extra] = []
        if ask.at_least_ms:
            extras.append(wire.AtLeast(ask.at_least_ms))
        if ask.supersedes:
            extras.append(wire.Supersede())
        return wire.RequestWith(request, extras) if extras else request

    def reclaim(self, number: int, now: int) -> wire.ClientMessage:
        """Asks a coordinator that has crashed for what it granted before."""
        ask, grant = self.ask, self.grant
        reclaim = wire.Reclaim(
            number, grant.token, grant.seal, ask.owner, ask.lock_delay_ms, ask.note, ask.claims
        )
        left = since(after(grant.since, ask.at_least_ms * MILLISECOND), now) // MILLISECOND
        return wire.ReclaimWith(reclaim, [wire.AtLeast(left)]) if left else reclaim


class Session:
    """A session as its client knows it."""

    __slots__ = ("id", "secret", "generation", "epoch")

    def __init__(self, id: int, secret: int, generation: int, epoch: int):
        self.id = id
        self.secret = secret
        self.generation = generation
        self.epoch = epoch


class Greeting:
    """Hello was sent, Welcome has not come."""

    __slots__ = ("hello_sent", "give_up_at")

    def __init__(self, hello_sent: int, give_up_at: Optional[int]):
        self.hello_sent = hello_sent
        self.give_up_at = give_up_at


class Open:
    """Welcome has come."""

    __slots__ = (
        "generation", "keep_alive_due", "unanswered", "heard", "silence_max",
        "silence_after_asking", "second",
    )  # fmt: skip

    def __init__(self, ttl: int, generation: int, sent: int, now: int, can_be_another: bool):
        every = ttl // KEEP_ALIVES_PER_TTL
        self.generation = generation
        self.keep_alive_due = after(sent, every)
        self.unanswered: Deque[Tuple[int, int]] = deque()
        self.heard = now
        self.silence_max = ttl * 2 // 3 if can_be_another else ttl * SILENCE_TTLS_MAX
        self.silence_after_asking = max(0, self.silence_max - every)
        self.second: Optional[Second] = None

    def given_up_at(self) -> Optional[int]:
        """When the server has been silent for too long; None while nothing is unanswered."""
        if not self.unanswered:
            return None
        asked = after(self.unanswered[0][1], self.silence_after_asking)
        return max(after(self.heard, self.silence_max), asked)


class Pausing:
    """There is no connection: the next attempt is made then."""

    __slots__ = ("until",)

    def __init__(self, until: int):
        self.until = until


class Dialing:
    """There is no connection: one is being made, until then at the latest."""

    __slots__ = ("until",)

    def __init__(self, until: int):
        self.until = until


class Second:
    """A second connection beside one that does not answer, at some stage."""

    __slots__ = ("stage", "number", "until", "hello_sent")

    def __init__(self, stage: str, number: int, until: Optional[int], hello_sent: int = 0):
        self.stage = stage
        self.number = number
        self.until = until
        self.hello_sent = hello_sent

    @property
    def has_greeted(self) -> bool:
        return self.stage == "greeting"


Phase = Union[Greeting, Open, Pausing, Dialing, End]

# What the server knows of the session.
NOTHING, EVERYTHING, EVERYTHING_OR_NOTHING, NOTHING_ANY_MORE = range(4)


class Broken(Exception):
    """The server broke the protocol, in this way."""


COME_BACK_AFTER = frozenset(
    {
        Code.DRAINING, Code.HANDSHAKE_TIMEOUT, Code.IDLE_TIMEOUT, Code.TOO_MANY_CONNECTIONS,
        Code.SLOW_READER,
    }
)  # fmt: skip
TRY_AGAIN_AFTER = frozenset(
    {Rejection.DRAINING, Rejection.TOO_MANY_SESSIONS, Rejection.UNAVAILABLE, Rejection.GRACE}
)


def lost_reason(end: End) -> int:
    """Why holds are lost when the client ends like this."""
    if end.kind == "silent" or end.code == Code.SESSION_EXPIRED:
        return Reason.EXPIRED
    if end.kind == "dismissed" and end.code == Code.DRAINING:
        return Reason.STOPPED
    if end.kind == "dismissed" and end.code == Code.REFUSED:
        return Reason.REFUSED
    return Reason.DISCONNECTED


def discard(ordered: List[Tuple[int, int]], entry: Tuple[int, int]) -> None:
    at = bisect_left(ordered, entry)
    if at < len(ordered) and ordered[at] == entry:
        del ordered[at]
