"""Moments and lengths of time, what goes into the core, and what is told by it."""

from __future__ import annotations

from typing import List, NamedTuple, Optional, Union

from . import _wire as wire
from ._wire import Rejection

MICROSECOND = 1_000
MILLISECOND = 1_000_000
SECOND = 1_000_000_000

TTL_DEFAULT_MS = 10_000
TTL_MIN_MS = 2_000
TTL_MAX_MS = 3_600_000
KEEP_ALIVES_PER_TTL = 4
KEEP_ALIVES_UNANSWERED_MAX = 16
ANSWERS_PER_TTL = 16
WELCOME_SIXTEENTHS = 6
WELCOME_SIXTEENTHS_OF_SEVERAL = 2
SILENCE_TTLS_MAX = 2
PAUSES_PER_TTL = 16
PAUSE_MIN = 50 * MILLISECOND
ATTEMPTS_PER_TTL = 6
PARTS_PER_ATTEMPT_MAX = 4
REQUESTS_AWAY_MAX = 65_536
ACCOUNT_IDS_MAX = 2_000
GENERATION_LEAP = 16

MOMENT_MAX = 2**64 - 2
LENGTH_MAX = 2**64 * SECOND


def after(moment: int, length: int) -> int:
    """The moment that is ``length`` later; the last of all moments if there is no such."""
    later = moment + length // MICROSECOND
    return later if later < MOMENT_MAX else MOMENT_MAX


def before(moment: int, length: int) -> int:
    """The moment that is ``length`` earlier; the first of all moments if there is no such."""
    return max(0, moment - length // MICROSECOND)


def since(moment: int, earlier: int) -> int:
    """How long ``earlier`` was before ``moment``; 0 if it was not."""
    return (moment - earlier) * MICROSECOND if moment > earlier else 0


def sure(length: int) -> int:
    """What is left of ``length`` by whatever clock: two that run 1 % wrong, and a margin."""
    return max(0, length * 98 // 100 - 50 * MILLISECOND)


def doubt(ttl: int) -> int:
    """How long there may be no answer until there is jeopardy."""
    return ttl * 2 // 3


def jeopardy(ttl: int) -> int:
    """For how long there is jeopardy before belief ends, whatever ends it."""
    return max(0, sure(ttl) - doubt(ttl))


class Introduction(NamedTuple):
    """What a client tells about itself in its Hello."""

    ttl_ms: int = 0
    linger_ms: Optional[int] = None
    identity: str = ""


class Reconnect(NamedTuple):
    """That a client which lost its connection makes another, and how."""

    attempt_max: int
    seed: int
    servers: int = 1
    """How many there are to come back to. Of several, one leads at a time."""


class Ask(NamedTuple):
    """What a request asks for, all but its id."""

    claims: List[wire.Claim]
    wait: wire.Wait = wire.Forever()
    owner: int = 0
    converts: Optional[int] = None
    progress: bool = False
    lock_delay_ms: int = 0
    at_least_ms: int = 0
    supersedes: bool = False
    note: str = ""


# --- why something ended, and what is told -------------------------------------------------------


class End(NamedTuple):
    """Why the client is at its end, or its connection at that of its own."""

    kind: str
    """``closed``, ``disconnected``, ``silent``, ``dismissed``, ``deposed`` or ``broken``."""
    silence: int = 0
    code: int = 0
    rejection: int = 0
    message: str = ""
    epoch: int = 0

    def __str__(self) -> str:
        if self.kind == "silent":
            return f"silent/{self.silence // MICROSECOND}"
        if self.kind == "dismissed":
            return f"dismissed/{self.code}/{self.rejection}"
        if self.kind == "deposed":
            return f"deposed/{self.epoch}"
        return self.kind


class Refusal(NamedTuple):
    """Why a request or a release did not succeed."""

    kind: str
    """``rejected``, ``lost``, ``away``, ``forgotten`` or ``ended``."""
    reason: int = 0
    rejected: Optional[wire.Rejected] = None

    def __str__(self) -> str:
        return f"{self.kind}/{self.reason}" if self.kind in ("rejected", "lost") else self.kind


class Welcomed(NamedTuple):
    """The session is open."""

    session: int
    secret: int
    generation: int
    epoch: int
    ttl_ms: int


class Granted(NamedTuple):
    """The request's locks are held."""

    request: int
    token: int


class Replaced(NamedTuple):
    """Another request, which is told to be granted next, has converted this one."""

    request: int


class Moved(NamedTuple):
    """The request's place in line changed."""

    request: int
    position: int


class Refused(NamedTuple):
    """The request is over without a grant."""

    request: int
    refusal: Refusal


class ReleaseAnswered(NamedTuple):
    """The release that was asked for is answered; None: as asked."""

    request: int
    refusal: Optional[Refusal]


class Doubted(NamedTuple):
    """After a restart, not confirmed yet: believed in no longer than this."""

    request: int
    until: int


class Confirmed(NamedTuple):
    """Believed in as long as the lease is, as ever."""

    request: int


class LostHold(NamedTuple):
    """The request's locks are no longer held, for good."""

    request: int
    reason: int


Effect = Union[
    Welcomed, Granted, Replaced, Moved, Refused, ReleaseAnswered, Doubted, Confirmed, LostHold
]

AWAY = Refusal("away")
ENDED = Refusal("ended")
FORGOTTEN = Refusal("forgotten")


def because_lost(reason: int) -> Refusal:
    return Refusal("lost", reason)


def timed_out(request: int) -> Refusal:
    rejected = wire.Rejected(request, Rejection.TIMED_OUT, "", None, [])
    return Refusal("rejected", Rejection.TIMED_OUT, rejected)


# --- what is kept --------------------------------------------------------------------------------


class Lease:
    """A lease as its client sees it."""

    __slots__ = ("confirmed", "ttl", "cut", "_until")

    def __init__(self, sent: int, ttl: int):
        self.confirmed = sent
        self.ttl = ttl
        self.cut: Optional[int] = None
        # Asked for at every step: computed when it changes.
        self._until = after(sent, sure(ttl))

    def confirm(self, sent: int) -> None:
        """The server answered what was sent then."""
        if sent > self.confirmed:
            self.confirmed = sent
            self._count()

    def cut_short(self, now: int, linger: int) -> None:
        """The connection is lost, and the server keeps the session only for ``linger`` more."""
        until = after(now, sure(linger))
        self.cut = until if self.cut is None else min(self.cut, until)
        self._count()

    def _count(self) -> None:
        end = after(self.confirmed, sure(self.ttl))
        self._until = end if self.cut is None else min(self.cut, end)

    def doubtful_from(self) -> int:
        """From when on to worry: two thirds of the ttl without an answer, or as long before the end
        if that is cut short.
        """
        silent = after(self.confirmed, doubt(self.ttl))
        return silent if self.cut is None else min(silent, before(self.cut, jeopardy(self.ttl)))

    def believed_until(self) -> int:
        """The moment from which on nothing is believed any more."""
        return self._until


class Backoff:
    """How long to wait between attempts: at first not at all, then longer each time."""

    __slots__ = ("attempts", "seed")

    def __init__(self, seed: int):
        self.attempts = 0
        self.seed = seed | 1

    def reward(self) -> None:
        """The connection proved itself."""
        self.attempts = 0

    def pause(self, longest: int) -> int:
        """The pause before the next attempt, no longer than that."""
        doublings = self.attempts - 1
        self.attempts += 1
        if doublings < 0:
            return 0
        half = min(PAUSE_MIN << min(doublings, 16), longest) // 2
        return half + half * self._number() // (2**32 - 1)

    def attempt_max(self, ttl: int, at_most: int, servers: int = 1) -> int:
        """How long the attempt after the latest pause may take: as long at each of the servers."""
        doublings = min(max(self.attempts - 1, 0) // servers, 16)
        return min(at_most, ttl // ATTEMPTS_PER_TTL * min(1 << doublings, PARTS_PER_ATTEMPT_MAX))

    def _number(self) -> int:
        seed = self.seed
        seed ^= seed << 13 & (2**64 - 1)
        seed ^= seed >> 7
        seed ^= seed << 17 & (2**64 - 1)
        self.seed = seed
        return seed >> 32
