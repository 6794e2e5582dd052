"""What a client believes, and until when: a state machine without a clock, a socket or a thread.

A port of ``src/client/core`` of the Rust client, and held to it by the corpus of traces
(``docs/traces``). Commands of the application, messages of the server, connections made and lost and
the passing of time go in; messages to send and effects come out. A driver carries them and decides
nothing.

Moments are microseconds, by a clock that goes on in suspend. Lengths are nanoseconds, divisions of
them round down, and what a moment is later by is cut to whole microseconds.

The rules it keeps:

- a hold is believed in only while the lease is, counted from when the last answered keep-alive was
  *sent*; what was lost once is never held again, whatever arrives later;
- a server that has restarted prolongs no hold before it has confirmed it;
- belief ends when a release, a cancel or a goodbye is sent, not when it is answered;
- a grant that crosses a cancel is never shown to anybody;
- a keep-alive without an answer is followed by the next, and a connection that ended by another:
  neither is a loss by itself;
- a connection that does not answer is kept until a second one is welcome.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from typing import Any, Deque, Dict, List, NamedTuple, Optional, Set, Tuple, Union

from . import _wire as wire
from ._wire import Code, Reason, Rejection

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
SILENCE_TTLS_MAX = 2
PAUSES_PER_TTL = 6
PAUSE_MIN = 50 * MILLISECOND
ATTEMPTS_PER_TTL = 6
PARTS_PER_ATTEMPT_MAX = 4
REQUESTS_AWAY_MAX = 65_536
ACCOUNT_IDS_MAX = 2_000
GENERATION_LEAP = 16

_MOMENT_MAX = 2**64 - 2
_LENGTH_MAX = 2**64 * SECOND


def after(moment: int, length: int) -> int:
    """The moment that is ``length`` later; the last of all moments if there is no such."""
    later = moment + length // MICROSECOND
    return later if later < _MOMENT_MAX else _MOMENT_MAX


def since(moment: int, earlier: int) -> int:
    """How long ``earlier`` was before ``moment``; 0 if it was not."""
    return (moment - earlier) * MICROSECOND if moment > earlier else 0


def sure(length: int) -> int:
    """What is left of ``length`` by whatever clock: two that run 1 % wrong, and a margin."""
    return max(0, length * 98 // 100 - 50 * MILLISECOND)


class Introduction(NamedTuple):
    """What a client tells about itself in its Hello."""

    ttl_ms: int = 0
    linger_ms: Optional[int] = None
    identity: str = ""


class Reconnect(NamedTuple):
    """That a client which lost its connection makes another, and how."""

    attempt_max: int
    seed: int


class Ask(NamedTuple):
    """What a request asks for, all but its id."""

    claims: List[wire.Claim]
    wait: wire.Wait = wire.Forever()
    owner: int = 0
    converts: Optional[int] = None
    progress: bool = False
    lock_delay_ms: int = 0
    at_least_ms: int = 0
    note: str = ""


# --- why something ended, and what is told -------------------------------------------------------


class End(NamedTuple):
    """Why the client is at its end, or its connection at that of its own."""

    kind: str
    """``closed``, ``disconnected``, ``silent``, ``dismissed`` or ``broken``."""
    silence: int = 0
    code: int = 0
    rejection: int = 0
    message: str = ""

    def __str__(self) -> str:
        if self.kind == "silent":
            return f"silent/{self.silence // MICROSECOND}"
        if self.kind == "dismissed":
            return f"dismissed/{self.code}/{self.rejection}"
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

_AWAY = Refusal("away")
_ENDED = Refusal("ended")
_FORGOTTEN = Refusal("forgotten")


def _because_lost(reason: int) -> Refusal:
    return Refusal("lost", reason)


def _timed_out(request: int) -> Refusal:
    rejected = wire.Rejected(request, Rejection.TIMED_OUT, "", None, [])
    return Refusal("rejected", Rejection.TIMED_OUT, rejected)


# --- what is kept --------------------------------------------------------------------------------


class Lease:
    """A lease as its client sees it."""

    __slots__ = ("confirmed", "ttl", "cut")

    def __init__(self, sent: int, ttl: int):
        self.confirmed = sent
        self.ttl = ttl
        self.cut: Optional[int] = None

    def confirm(self, sent: int) -> None:
        """The server answered what was sent then."""
        if sent > self.confirmed:
            self.confirmed = sent

    def cut_short(self, now: int, linger: int) -> None:
        """The connection is lost, and the server keeps the session only for ``linger`` more."""
        until = after(now, sure(linger))
        self.cut = until if self.cut is None else min(self.cut, until)

    def doubtful_from(self) -> int:
        """From when on to worry: two thirds of the ttl without an answer."""
        return after(self.confirmed, self.ttl * 2 // 3)

    def believed_until(self) -> int:
        """The moment from which on nothing is believed any more."""
        end = after(self.confirmed, sure(self.ttl))
        return end if self.cut is None else min(self.cut, end)


class Backoff:
    """How long to wait between attempts: at first not at all, then longer each time."""

    __slots__ = ("attempts", "seed")

    def __init__(self, seed: int):
        self.attempts = 0
        self.seed = seed | 1

    def reward(self) -> None:
        """The connection proved itself."""
        self.attempts = 0

    def pause(self, ttl: int) -> int:
        """The pause before the next attempt."""
        doublings = self.attempts - 1
        self.attempts += 1
        if doublings < 0:
            return 0
        half = min(PAUSE_MIN << min(doublings, 16), ttl // PAUSES_PER_TTL) // 2
        return half + half * self._number() // (2**32 - 1)

    def attempt_max(self, ttl: int, at_most: int) -> int:
        """How long the attempt after the latest pause may take."""
        doublings = min(max(self.attempts - 1, 0), 16)
        return min(at_most, ttl // ATTEMPTS_PER_TTL * min(1 << doublings, PARTS_PER_ATTEMPT_MAX))

    def _number(self) -> int:
        seed = self.seed
        seed ^= seed << 13 & (2**64 - 1)
        seed ^= seed >> 7
        seed ^= seed << 17 & (2**64 - 1)
        self.seed = seed
        return seed >> 32


class _Grant(NamedTuple):
    token: int
    seal: int
    since: int


# Where a request stands.
_WAITING, _UNCONFIRMED, _HELD, _RELEASING, _CANCELLING = range(5)


class _Request:
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
        self.stage = _WAITING
        # Of what is held or unconfirmed.
        self.grant = _Grant(0, 0, 0)
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
        if ask.at_least_ms:
            return wire.RequestWith(request, [wire.AtLeast(ask.at_least_ms)])
        return request

    def reclaim(self, number: int, now: int) -> wire.ClientMessage:
        """Asks a coordinator that has crashed for what it granted before."""
        ask, grant = self.ask, self.grant
        reclaim = wire.Reclaim(
            number, grant.token, grant.seal, ask.owner, ask.lock_delay_ms, ask.note, ask.claims
        )
        left = since(after(grant.since, ask.at_least_ms * MILLISECOND), now) // MILLISECOND
        return wire.ReclaimWith(reclaim, [wire.AtLeast(left)]) if left else reclaim


class _Session:
    """A session as its client knows it."""

    __slots__ = ("id", "secret", "generation", "epoch")

    def __init__(self, id: int, secret: int, generation: int, epoch: int):
        self.id = id
        self.secret = secret
        self.generation = generation
        self.epoch = epoch


class _Greeting:
    """Hello was sent, Welcome has not come."""

    __slots__ = ("hello_sent", "give_up_at")

    def __init__(self, hello_sent: int, give_up_at: Optional[int]):
        self.hello_sent = hello_sent
        self.give_up_at = give_up_at


class _Open:
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
        self.second: Optional[_Second] = None

    def given_up_at(self) -> Optional[int]:
        """When the server has been silent for too long; None while nothing is unanswered."""
        if not self.unanswered:
            return None
        asked = after(self.unanswered[0][1], self.silence_after_asking)
        return max(after(self.heard, self.silence_max), asked)


class _Pausing:
    """There is no connection: the next attempt is made then."""

    __slots__ = ("until",)

    def __init__(self, until: int):
        self.until = until


class _Dialing:
    """There is no connection: one is being made, until then at the latest."""

    __slots__ = ("until",)

    def __init__(self, until: int):
        self.until = until


class _Second:
    """A second connection beside one that does not answer: ``pausing``, ``dialing``, ``greeting``."""

    __slots__ = ("stage", "number", "until", "hello_sent")

    def __init__(self, stage: str, number: int, until: Optional[int], hello_sent: int = 0):
        self.stage = stage
        self.number = number
        self.until = until
        self.hello_sent = hello_sent

    @property
    def has_greeted(self) -> bool:
        return self.stage == "greeting"


_Phase = Union[_Greeting, _Open, _Pausing, _Dialing, End]

# What the server knows of the session.
_NOTHING, _EVERYTHING, _EVERYTHING_OR_NOTHING, _NOTHING_ANY_MORE = range(4)


class _Broken(Exception):
    """The server broke the protocol, in this way."""


class Core:
    """The state machine."""

    def __init__(self, introduction: Introduction, reconnect: Optional[Reconnect], now: int):
        self._phase: _Phase = _Greeting(now, None)
        self._introduction = introduction
        self._reconnect = reconnect
        self._backoff = Backoff(reconnect.seed if reconnect else 0)
        self._slowest = 0
        self._connections = 0
        self._current = 0
        self._trouble = End("disconnected")
        self._unreachable = False
        self._began = False
        self._session: Optional[_Session] = None
        self.lease: Optional[Lease] = None
        self._lapsed = False
        self._sequence = 0
        self._epoch_seen = 0
        self._token_seen = 0
        self._requests: Dict[int, _Request] = {}
        self._deadlines: List[Tuple[int, int]] = []
        self._doubts: List[Tuple[int, int]] = []
        self._conversions: Dict[int, int] = {}
        self._request_next = 1
        self._request_repeated = 0
        self._messages: List[wire.ClientMessage] = []
        self._effects: List[Effect] = []
        self._messages.append(self._hello())

    # --- what comes out ---

    def drain_messages(self) -> List[wire.ClientMessage]:
        """Takes what is to be sent, oldest first."""
        messages, self._messages = self._messages, []
        return messages

    def take_effects(self) -> List[Effect]:
        """Takes what is to be told, oldest first."""
        effects, self._effects = self._effects, []
        return effects

    @property
    def end(self) -> Optional[End]:
        """Why the client is at its end, if it is."""
        return self._phase if type(self._phase) is End else None

    @property
    def trouble(self) -> End:
        """Why there is no connection."""
        return self.end or self._trouble

    @property
    def is_open(self) -> bool:
        """Whether the server can be heard."""
        return type(self._phase) is _Open

    @property
    def connection(self) -> Optional[int]:
        """Which connection is wanted, or made, or there: another number is another connection."""
        return None if type(self._phase) in (_Pausing, End) else self._current

    @property
    def second_connection(self) -> Optional[int]:
        """The same of the second connection."""
        second = self._second()
        return None if second is None or second.stage == "pausing" else second.number

    def next_deadline(self) -> Optional[int]:
        """When `tick` has something to do, if nothing happens before."""
        phase = self._phase
        if isinstance(phase, End):
            return None
        earliest: Optional[int]
        if isinstance(phase, _Open):
            earliest = self._open_deadline(phase)
        elif isinstance(phase, _Greeting):
            earliest = phase.give_up_at
        else:
            earliest = phase.until
        moments = [] if earliest is None else [earliest]
        if self.lease is not None and not self._lapsed:
            moments.append(self.lease.believed_until())
        if self._doubts:
            moments.append(self._doubts[0][0])
        if self._deadlines and self._began and not isinstance(phase, _Open):
            moments.append(self._deadlines[0][0])
        return min(moments) if moments else None

    # --- time ---

    def tick(self, now: int) -> None:
        """Lets time pass: ends belief that has run out, keeps the session alive, comes back."""
        self._lapse_if_due(now)
        phase = self._phase
        if isinstance(phase, _Open):
            self._tick_open(now)
        elif isinstance(phase, _Greeting):
            if phase.give_up_at is not None and now >= phase.give_up_at:
                self._go_away(End("silent", self._attempt_max()), now)
        elif isinstance(phase, _Dialing):
            if now >= phase.until:
                self._go_away(End("silent", self._attempt_max()), now)
        elif isinstance(phase, _Pausing) and now >= phase.until:
            self._dial(now)
        self._stop_waiting_if_due(now)

    def _tick_open(self, now: int) -> None:
        self._keep_alive_if_due(now)
        self._try_second_if_due(now)
        phase = self._phase
        if not isinstance(phase, _Open):
            return
        given_up_at = phase.given_up_at()
        if given_up_at is None or now < given_up_at:
            return
        silent = End("silent", phase.silence_max)
        if self._can_reconnect():
            self._go_away(silent, now)
        else:
            self._messages.append(wire.Goodbye())
            self._finish(silent)

    def _keep_alive_if_due(self, now: int) -> None:
        phase = self._phase
        if not isinstance(phase, _Open) or now < phase.keep_alive_due:
            return
        self._sequence += 1
        ttl = self.lease.ttl if self.lease else TTL_DEFAULT_MS * MILLISECOND
        phase.keep_alive_due = after(now, ttl // KEEP_ALIVES_PER_TTL)
        if len(phase.unanswered) == KEEP_ALIVES_UNANSWERED_MAX:
            phase.unanswered.popleft()
        phase.unanswered.append((self._sequence, now))
        self._messages.append(wire.KeepAlive(self._sequence))

    def _lapse_if_due(self, now: int) -> None:
        """Ends every hold that is not believed in any more. First thing wherever time is told."""
        while self._doubts and self._doubts[0][0] <= now:
            self._lapse(self._doubts.pop(0)[1])
        if self.lease is None or self._lapsed or now < self.lease.believed_until():
            return
        self._lapsed = True
        for number in [n for n, known in self._requests.items() if known.stage == _HELD]:
            self._lapse(number)
        if not self._may_send():
            self._refuse_releases()

    def _lapse(self, number: int) -> None:
        known = self._requests.get(number)
        if known is None or known.stage != _HELD:
            return
        self._effects.append(LostHold(number, Reason.EXPIRED))
        if self._may_send():
            # If the server still keeps the session, the lock must not stay with nobody.
            self._releases(number, known, asked=False, lost=Reason.EXPIRED)
            self._messages.append(wire.Release(number, known.token))
        else:
            # The account that is given over the next connection does not list it.
            self._remove(number)
        self._give_up_conversion(number, Reason.EXPIRED)

    def _refuse_releases(self) -> None:
        """The lease is over and there is no connection: nobody waits to hear that it is free."""
        for number in [n for n, known in self._requests.items() if known.stage == _RELEASING]:
            known = self._requests[number]
            self._remove(number)
            if known.asked:
                refusal = _AWAY if known.lost is None else _because_lost(known.lost)
                self._effects.append(ReleaseAnswered(number, refusal))

    def _stop_waiting_if_due(self, now: int) -> None:
        """While there is no connection, requests stop waiting by our own clock."""
        if self.is_open or not self._began:
            return
        while self._deadlines and self._deadlines[0][0] <= now:
            _, number = self._deadlines.pop(0)
            known = self._requests.get(number)
            if known is not None and known.stage in (_WAITING, _UNCONFIRMED):
                self._refuse(number, _AWAY)

    # --- what the application wants ---

    def request(self, ask: Ask, now: int) -> int:
        """The application asks for locks; returns the request's id."""
        number = self._request_next
        self._request_next += 1
        known = _Request(ask, now)
        refusal = self._refuses(known)
        if refusal is not None:
            self._effects.append(Refused(number, refusal))
            return number
        if self._may_send():
            self._messages.append(known.message(number, now))
        if ask.converts is not None:
            self._conversions[ask.converts] = number
        elif known.deadline is not None:
            insort(self._deadlines, (known.deadline, number))
        self._requests[number] = known
        return number

    def _refuses(self, known: _Request) -> Optional[Refusal]:
        if isinstance(self._phase, End):
            return _ENDED
        if not self._can_convert(known):
            return _because_lost(Reason.EXPIRED)
        if isinstance(self._phase, _Open):
            return None
        full = len(self._requests) >= REQUESTS_AWAY_MAX
        return _AWAY if full or (self._unreachable and known.is_try()) else None

    def release(self, number: int, now: int) -> None:
        """The application gives back what a request holds. Always answered by an effect."""
        self._lapse_if_due(now)
        known = self._requests.get(number)
        refusal: Optional[Refusal]
        if known is not None and known.stage in (_HELD, _UNCONFIRMED):
            return self._give_back(number, known)
        if known is not None and known.stage == _RELEASING:
            if known.asked:
                return
            refusal = None if known.lost is None else _because_lost(known.lost)
        else:
            refusal = _ENDED if self.end else _because_lost(Reason.EXPIRED)
        self._effects.append(ReleaseAnswered(number, refusal))

    def _give_back(self, number: int, known: _Request) -> None:
        """Stops believing, then says so."""
        self._releases(number, known, asked=True, lost=None)
        if self._may_send():
            self._messages.append(wire.Release(number, known.token))
        elif self._lapsed:
            self._refuse_releases()

    def cancel(self, number: int) -> None:
        """The application gives a request up, whether it waits or was granted meanwhile."""
        known = self._requests.get(number)
        if known is None or known.stage in (_RELEASING, _CANCELLING):
            return
        self._set_stage(number, known, _CANCELLING)
        if self._may_send():
            self._messages.append(wire.Cancel(number))
        else:
            # The account that is given over the next connection does not list it.
            self._remove(number)

    def goodbye(self) -> None:
        """The application is done: everything is freed at once."""
        if self.end is None:
            if type(self._phase) in (_Greeting, _Open):
                self._messages.append(wire.Goodbye())
            self._finish(End("closed"))

    def protocol_broken(self, how: str) -> None:
        """What the server sent is not of this protocol."""
        if self.end is None:
            # The server may well understand us, and then the locks need not wait for the lease.
            self._messages.append(wire.Goodbye())
            self._finish(End("broken", message=how))

    # --- what is kept ---

    def _may_send(self) -> bool:
        """Whether what is asked goes out now, and not with the repetition after the next Welcome."""
        return type(self._phase) is _Open or (
            type(self._phase) is _Greeting and not self._began
        )

    def _set_stage(
        self, number: int, known: _Request, stage: int, doubted: Optional[int] = None
    ) -> None:
        if known.stage == _HELD and known.doubted is not None:
            _discard(self._doubts, (known.doubted, number))
        known.stage = stage
        known.doubted = doubted
        if stage == _HELD and doubted is not None:
            insort(self._doubts, (doubted, number))

    def _releases(
        self, number: int, known: _Request, *, asked: bool, lost: Optional[int]
    ) -> None:
        """From now on it is given back."""
        known.reclaimed = known.stage == _HELD and known.doubted is not None
        known.token, known.asked, known.lost = known.grant.token, asked, lost
        known.repeated = False
        self._set_stage(number, known, _RELEASING)

    def _remove(self, number: int) -> None:
        """Forgets a request that is over."""
        known = self._requests.pop(number, None)
        if known is None:
            return
        if known.deadline is not None:
            _discard(self._deadlines, (known.deadline, number))
        if known.stage == _HELD and known.doubted is not None:
            _discard(self._doubts, (known.doubted, number))
        converts = known.ask.converts
        if converts is not None and self._conversions.get(converts) == number:
            del self._conversions[converts]

    def _refuse(self, number: int, refusal: Refusal) -> None:
        self._remove(number)
        self._effects.append(Refused(number, refusal))

    def _lose(self, number: int, reason: int) -> None:
        """A hold is lost for good."""
        self._remove(number)
        self._effects.append(LostHold(number, reason))
        self._give_up_conversion(number, reason)

    def _finish(self, end: End) -> None:
        """The end: every hold is lost, whoever waits is told."""
        if self.end is not None:
            return
        reason = _lost_reason(end)
        self._phase = end
        self.lease = None
        self._deadlines.clear()
        self._doubts.clear()
        self._conversions.clear()
        requests, self._requests = self._requests, {}
        for number, known in requests.items():
            if known.stage in (_WAITING, _UNCONFIRMED):
                self._effects.append(Refused(number, _ENDED))
            elif known.stage == _HELD:
                self._effects.append(LostHold(number, reason))
            elif known.stage == _RELEASING and known.asked:
                refusal = _ENDED if known.lost is None else _because_lost(known.lost)
                self._effects.append(ReleaseAnswered(number, refusal))

    # --- conversions: a hold that becomes another ---

    def _can_convert(self, known: _Request) -> bool:
        converted = known.ask.converts
        if converted is None:
            return True
        return converted not in self._conversions and self._is_held(converted)

    def _is_held(self, number: int) -> bool:
        known = self._requests.get(number)
        return known is not None and known.stage == _HELD

    def _replace_converted(self, known: _Request) -> None:
        """A request is granted: what it converts, if it does, is over."""
        converted = known.ask.converts
        if converted is None:
            return
        self._conversions.pop(converted, None)
        before = self._requests.get(converted)
        # What is on its way back is not held, and its release will be answered.
        if before is None or before.stage != _HELD:
            return
        if before.doubted is not None:
            self._effects.append(Confirmed(converted))
        self._remove(converted)
        self._effects.append(Replaced(converted))

    def _give_up_conversion(self, converted: int, reason: int) -> None:
        """A hold is lost: what was to convert it has nothing to convert any more."""
        number = self._conversions.pop(converted, None)
        known = None if number is None else self._requests.get(number)
        if number is None or known is None or known.stage not in (_WAITING, _UNCONFIRMED):
            return
        self._effects.append(Refused(number, _because_lost(reason)))
        # It may have been granted meanwhile, and then it holds the locks.
        self.cancel(number)

    # --- what the server says ---

    def receive(self, message: wire.ServerMessage, now: int) -> None:
        """Handles a message that was read before ``now`` was."""
        self._lapse_if_due(now)
        if isinstance(self._phase, _Greeting):
            return self._greet(message, now)
        if not isinstance(self._phase, _Open):
            return  # What comes over a connection that was given up.
        self._phase.heard = now
        try:
            self._heard(message, now)
        except _Broken as how:
            self.protocol_broken(str(how))

    def _heard(self, message: wire.ServerMessage, now: int) -> None:
        if isinstance(message, wire.KeptAlive):
            self._kept_alive(message.sequence, now)
        elif isinstance(message, wire.Grant):
            self._granted(message, now)
        elif isinstance(message, wire.Released):
            self._released(message.request)
        elif isinstance(message, wire.Queued):
            known = self._requests.get(message.request)
            if known is not None and known.stage == _WAITING:
                known.ticket = message.ticket
                self._effects.append(Moved(message.request, message.position))
        elif isinstance(message, wire.Cancelled):
            self._cancelled(message.request)
        elif isinstance(message, wire.Lost):
            self._lost(message.request, message.token, message.reason)
        elif isinstance(message, wire.Rejected):
            self._rejected(message, now)
        elif isinstance(message, wire.Farewell):
            self._dismissed(message, now)
        elif isinstance(message, wire.Welcome):
            raise _Broken("a second Welcome")
        else:
            raise _Broken(f"{type(message).__name__}, which was never asked for")

    def _greet(self, message: wire.ServerMessage, now: int) -> None:
        """The first message of a connection."""
        if not isinstance(self._phase, _Greeting):
            return
        try:
            if isinstance(message, wire.Welcome):
                self._welcomed(self._phase.hello_sent, message, now)
            elif isinstance(message, wire.Farewell):
                self._dismissed(message, now)
            else:
                raise _Broken(f"{type(message).__name__} before Welcome")
        except _Broken as how:
            self.protocol_broken(str(how))

    def _kept_alive(self, sequence: int, now: int) -> None:
        phase, lease = self._phase, self.lease
        if not isinstance(phase, _Open) or lease is None:
            return
        if sequence > self._sequence:
            raise _Broken(f"an answer to keep-alive {sequence}, which was never sent")
        while phase.unanswered and phase.unanswered[0][0] <= sequence:
            sent_sequence, sent = phase.unanswered.popleft()
            if sent_sequence == sequence:
                lease.confirm(sent)
                self._answered(since(now, sent))
        self._backoff.reward()
        if phase.second is not None and not phase.second.has_greeted:
            phase.second = None
        if now >= lease.believed_until():
            return
        if self._lapsed:
            self._lapsed = False
            # The lease is good again: what was granted meanwhile is held from now on.
            for number, known in self._requests.items():
                if known.stage == _UNCONFIRMED:
                    self._set_stage(number, known, _HELD)
                    self._effects.append(Granted(number, known.grant.token))

    def _granted(self, message: wire.Grant, now: int) -> None:
        number, token = message.request, message.token
        self._token_seen = max(self._token_seen, token)
        known = self._requests.get(number)
        if known is None:
            return self._stray(number, f"a grant to request {number}, which is not")
        if known.stage == _WAITING:
            known.grant = _Grant(token, message.seal, now)
            if self.lease is not None and now < self.lease.believed_until():
                self._replace_converted(known)
                self._set_stage(number, known, _HELD)
                self._effects.append(Granted(number, token))
            else:
                self._set_stage(number, known, _UNCONFIRMED)
        elif known.stage == _HELD and known.grant.token == token:
            was_doubted = known.doubted is not None
            known.grant = _Grant(token, message.seal, known.grant.since)
            self._set_stage(number, known, _HELD)
            if was_doubted:
                self._effects.append(Confirmed(number))
        elif known.stage == _CANCELLING:
            pass
        elif known.stage == _UNCONFIRMED and known.grant.token == token:
            pass
        elif known.stage == _RELEASING and known.token == token:
            pass
        else:
            raise _Broken(f"request {number} granted twice, again with token {token}")

    def _released(self, number: int) -> None:
        known = self._requests.get(number)
        if known is not None and known.stage == _RELEASING:
            self._remove(number)
            if known.asked:
                refusal = None if known.lost is None else _because_lost(known.lost)
                self._effects.append(ReleaseAnswered(number, refusal))
        elif known is not None and (
            # It is converted, and what converted it is answered next.
            (known.stage == _HELD and known.doubted is not None and number in self._conversions)
            # So it was, and both are given up.
            or known.stage == _CANCELLING
        ):
            pass
        else:
            self._stray(number, f"request {number} released, which was not asked")

    def _cancelled(self, number: int) -> None:
        known = self._requests.get(number)
        if known is not None and known.stage == _CANCELLING:
            self._remove(number)
        else:
            self._stray(number, f"request {number} cancelled, which was not asked")

    def _lost(self, number: int, token: int, reason: int) -> None:
        not_held = f"request {number} lost, which did not hold {token}"
        known = self._requests.get(number)
        if known is None:
            return self._stray(number, not_held)
        if known.stage == _CANCELLING:
            pass
        elif known.stage == _HELD and known.grant.token == token:
            self._lose(number, reason)
        elif known.stage == _UNCONFIRMED and known.grant.token == token:
            self._refuse(number, _because_lost(reason))
        elif known.stage == _WAITING and number < self._request_repeated:
            # Its grant was lost with a connection, and then it was too.
            self._refuse(number, _because_lost(reason))
            converted = known.ask.converts
            if converted is not None and self._is_held(converted):
                self._lose(converted, reason)
        elif known.stage == _RELEASING and known.token == token:
            if known.lost is None:
                known.lost = reason
        else:
            raise _Broken(not_held)

    def _rejected(self, message: wire.Rejected, now: int) -> None:
        number, code = message.request, message.code
        unasked = f"request {number} rejected, which asked for nothing"
        known = self._requests.get(number)
        if known is None:
            return self._stray(number, unasked)
        if known.stage == _CANCELLING:
            pass
        elif known.stage == _WAITING:
            repeated = number < self._request_repeated
            if repeated and code == Rejection.REQUEST_FORGOTTEN:
                late = known.is_timed_out(now)
                self._refuse(number, _timed_out(number) if late else _FORGOTTEN)
            else:
                self._refuse(number, Refusal("rejected", code, message))
        elif known.stage == _HELD and known.doubted is not None:
            self._lose(number, Reason.NOT_RECLAIMED)
        elif known.stage == _RELEASING:
            if known.reclaimed and code != Rejection.NOT_HOLDER:
                # What was to be released could not be reclaimed; the release is answered next.
                if known.lost is None:
                    known.lost = Reason.NOT_RECLAIMED
                return
            self._remove(number)
            if known.asked:
                refusal: Optional[Refusal] = Refusal("rejected", code, message)
                if known.lost is not None:
                    refusal = _because_lost(known.lost)
                elif known.repeated:
                    refusal = None  # The first was done, and is forgotten.
                self._effects.append(ReleaseAnswered(number, refusal))
        else:
            raise _Broken(unasked)

    def _stray(self, number: int, how: str) -> None:
        """An answer to what does not wait for one: a leftover of an earlier connection, or an error."""
        if number < self._request_repeated and number not in self._requests:
            return
        raise _Broken(how)

    def _answered(self, took: int) -> None:
        """An answer came after this: the slowest of late counts, each answer makes it count less."""
        self._slowest = max(took, self._slowest * 3 // 4)

    def _answer_max(self) -> int:
        ttl = self._ttl()
        return min(max(ttl // ANSWERS_PER_TTL, self._slowest * 2), ttl)

    # --- from one connection to the next ---

    def _can_reconnect(self) -> bool:
        return self._reconnect is not None and self._began

    def connection_lost(self, now: int) -> None:
        """The connection ended without a goodbye, or could not be made."""
        if self.end is not None:
            return
        if self._can_reconnect():
            self._lapse_if_due(now)
            self._go_away(End("disconnected"), now)
        else:
            self._finish(End("disconnected"))

    def connected(self, now: int) -> None:
        """The connection that was wanted is made: says Hello."""
        if isinstance(self._phase, _Dialing):
            until = self._phase.until
            self._messages.append(self._hello())
            self._phase = _Greeting(now, until)

    def _hello(self) -> wire.Hello:
        attach: wire.Attach = wire.New()
        if self._session is not None:
            self._session.generation += 1
            session = self._session
            attach = wire.Resume(session.id, session.secret, session.generation)
        # What the server gave is what to ask for again: its default may be another by now.
        ttl_ms = self._introduction.ttl_ms
        if not ttl_ms and self.lease is not None:
            ttl_ms = self.lease.ttl // MILLISECOND
        return wire.Hello(
            wire.PROTOCOL, attach, ttl_ms, self._introduction.linger_ms,
            self._introduction.identity, self._epoch_seen, self._token_seen,
        )  # fmt: skip

    def _go_away(self, trouble: End, now: int) -> None:
        """There is no connection: a second one is waited for, or the next attempt made after a pause."""
        has_failed = not self.is_open
        second = self._take_second()
        self._leave(trouble, now)
        if has_failed:
            self._unreachable = True
            self._refuse_tries()
        if second is not None and self._go_on_with(second, now):
            return
        pause = self._backoff.pause(self._ttl())
        if pause == 0:
            self._dial(now)
        else:
            self._phase = _Pausing(after(now, pause))

    def _leave(self, trouble: End, now: int) -> None:
        """Gives up the connection, or the attempt to make one."""
        was_open = self.is_open
        self._trouble = trouble
        self._messages.clear()
        self._phase = _Pausing(now)
        if was_open:
            self._forget_what_the_account_covers()
            self._linger_from(now)
            self._lapse_if_due(now)

    def _linger_from(self, now: int) -> None:
        """The server may have seen the end of what it takes for the session's connection."""
        linger_ms = self._introduction.linger_ms
        if self.lease is not None and linger_ms is not None:
            self.lease.cut_short(now, linger_ms * MILLISECOND)

    def _dial(self, now: int) -> None:
        self._connections += 1
        self._current = self._connections
        self._phase = _Dialing(after(now, self._attempt_max()))

    def _attempt_max(self) -> int:
        at_most = self._reconnect.attempt_max if self._reconnect else _LENGTH_MAX
        return self._backoff.attempt_max(self._ttl(), at_most)

    def _ttl(self) -> int:
        if self.lease is not None:
            return self.lease.ttl
        return (self._introduction.ttl_ms or TTL_DEFAULT_MS) * MILLISECOND

    def _forget_what_the_account_covers(self) -> None:
        """What was given up is over; a grant in doubt will be told again if it still is one."""
        for number, known in list(self._requests.items()):
            if known.stage == _UNCONFIRMED:
                known.stage = _WAITING
            elif known.stage == _CANCELLING or (known.stage == _RELEASING and not known.asked):
                self._remove(number)

    def _refuse_tries(self) -> None:
        """Who would not wait for a lock does not wait for a server that cannot be reached."""
        for number, known in list(self._requests.items()):
            if known.stage == _WAITING and known.is_try() and known.ask.converts is None:
                self._refuse(number, _AWAY)

    def _dismissed(self, message: wire.Farewell, now: int) -> None:
        """The server said goodbye, or refused our Hello."""
        greets = not self.is_open
        code, rejection = message.code, message.rejection
        end = End("dismissed", code=code, rejection=rejection, message=message.message)
        if not self._can_reconnect():
            self._finish(end)
        elif code in _COME_BACK_AFTER or code not in wire.GOODBYES:
            self._go_away(end, now)
        elif code == Code.SESSION_EXPIRED:
            self._session_over(end, now)
        elif code == Code.REFUSED and greets:
            if rejection == Rejection.UNKNOWN_SESSION:
                self._session_over(end, now)
            elif rejection == Rejection.STALE_GENERATION:
                self._leap_generation()
                self._go_away(end, now)
            elif rejection in _TRY_AGAIN_AFTER:
                self._go_away(end, now)
            else:
                self._finish(end)  # What we say about ourselves is wrong, and will be again.
        elif code == Code.SUPERSEDED and self._superseded_itself():
            self._superseded(end, now)
        else:
            self._finish(end)

    def _leap_generation(self) -> None:
        """The server knows a later connection of the session than we do."""
        if self._session is not None:
            self._session.generation += GENERATION_LEAP

    def _superseded_itself(self) -> bool:
        """Whether a later Hello was said than that of this connection."""
        latest = self._session.generation if self._session else 0
        return isinstance(self._phase, _Open) and self._phase.generation < latest

    def _session_over(self, end: End, now: int) -> None:
        """The session is over: what it held is lost, what it awaits goes on in another."""
        for number, known in list(self._requests.items()):
            if self._requests.get(number) is not known:
                continue
            if known.stage in (_WAITING, _UNCONFIRMED):
                known.stage = _WAITING
                known.ticket = None
            elif known.stage == _HELD:
                self._lose(number, Reason.EXPIRED)
            elif known.stage == _RELEASING:
                self._released_by_itself(number, known)
            else:
                self._remove(number)
        self._session = None
        self._take_second()  # It resumes what is no more.
        if self.is_open:
            self._go_away(end, now)
        else:
            # The server is there, it only does not know us.
            self._leave(end, now)
            self._dial(now)

    def _released_by_itself(self, number: int, known: _Request) -> None:
        """Nobody holds any more what was to be released."""
        self._remove(number)
        if known.asked:
            refusal = None if known.lost is None else _because_lost(known.lost)
            self._effects.append(ReleaseAnswered(number, refusal))

    def _welcomed(self, hello_sent: int, welcome: wire.Welcome, now: int) -> None:
        """The connection is welcome."""
        if welcome.protocol != wire.PROTOCOL:
            raise _Broken(f"it speaks version {welcome.protocol}")
        if not TTL_MIN_MS <= welcome.ttl_ms <= TTL_MAX_MS:
            raise _Broken(f"a ttl of {welcome.ttl_ms} ms")
        known = self._known(welcome)
        if known not in (_NOTHING, _EVERYTHING):
            self._doubt_holds()
        generation = welcome.generation
        latest = max(self._session.generation if self._session else 0, generation)
        self._session = _Session(welcome.session, welcome.secret, latest, welcome.epoch)
        lease = Lease(hello_sent, welcome.ttl_ms * MILLISECOND)
        if known == _EVERYTHING and self.lease is not None:
            lease.confirm(self.lease.confirmed)
        self._answered(since(now, hello_sent))
        can_be_another = self._reconnect is not None and self._introduction.linger_ms is None
        self._phase = _Open(lease.ttl, generation, hello_sent, now, can_be_another)
        self.lease = lease
        self._lapsed = now >= lease.believed_until()
        self._unreachable = False
        self._epoch_seen = max(self._epoch_seen, welcome.epoch)
        self._effects.append(
            Welcomed(welcome.session, welcome.secret, latest, welcome.epoch, welcome.ttl_ms)
        )
        if self._began:
            self._repeat(known, now)
        self._began = True

    def _known(self, welcome: wire.Welcome) -> int:
        """What the server knows of the session that we asked for."""
        opened = isinstance(welcome.standing, wire.Opened)
        if self._session is None:
            if opened:
                return _NOTHING
            raise _Broken("the Welcome of an old session to a new one")
        if self._session.id != welcome.session:
            raise _Broken("the Welcome of another session than was asked for")
        if not isinstance(welcome.standing, wire.Resumed):
            return _NOTHING_ANY_MORE
        same = self._session.epoch == welcome.epoch
        return _EVERYTHING if same else _EVERYTHING_OR_NOTHING

    def _doubt_holds(self) -> None:
        """What is held is believed in as long as the lease was until now, unless it is confirmed."""
        if self.lease is None:
            return
        until = self.lease.believed_until()
        for number, known in self._requests.items():
            if known.stage == _HELD and known.doubted is None:
                self._set_stage(number, known, _HELD, until)
                self._effects.append(Doubted(number, until))

    def _repeat(self, what: int, now: int) -> None:
        """Says again what is not answered, and what is held."""
        self._request_repeated = self._request_next
        is_gone = what in (_NOTHING, _NOTHING_ANY_MORE)
        for number, known in list(self._requests.items()):
            if known.stage == _WAITING:
                # Not what was to convert: whether it was, and whom that let in, is not known here.
                if is_gone and known.ask.converts is None and known.is_timed_out(now):
                    self._refuse(number, _timed_out(number))
                else:
                    self._messages.append(known.message(number, now))
            elif known.stage == _HELD and known.doubted is not None:
                self._messages.append(known.reclaim(number, now))
            elif known.stage == _RELEASING:
                if is_gone:
                    self._released_by_itself(number, known)
                else:
                    self._messages.append(wire.Release(number, known.token))
                    known.repeated = True
        if not is_gone:
            self._give_account()

    def _give_account(self) -> None:
        """Lists what is held and awaited, over all ids that were ever used."""
        live = [
            (number, known)
            for number, known in self._requests.items()
            if known.stage in (_WAITING, _UNCONFIRMED, _HELD)
        ]
        last = self._request_next - 1
        start, begin = 1, 0
        while start <= last:
            part = live[begin : begin + ACCOUNT_IDS_MAX]
            begin += len(part)
            to = part[-1][0] if part and begin < len(live) else last
            held = [wire.Held(n, known.grant.token) for n, known in part if known.stage == _HELD]
            waiting = [number for number, known in part if known.stage != _HELD]
            self._messages.append(wire.Account(start, to, held, waiting))
            start = to + 1

    # --- a second connection beside one that does not answer ---

    def _second(self) -> Optional[_Second]:
        return self._phase.second if isinstance(self._phase, _Open) else None

    def _set_second(self, second: Optional[_Second]) -> None:
        if isinstance(self._phase, _Open):
            self._phase.second = second

    def _take_second(self) -> Optional[_Second]:
        second = self._second()
        self._set_second(None)
        return second

    def _open_deadline(self, phase: _Open) -> int:
        earliest = phase.keep_alive_due
        second = phase.second
        moment = self._overdue_at(phase) if second is None else second.until
        if moment is not None and moment < earliest:
            earliest = moment
        given_up_at = phase.given_up_at()
        if given_up_at is not None and given_up_at < earliest:
            earliest = given_up_at
        return earliest

    def _overdue_at(self, phase: _Open) -> Optional[int]:
        """When an answer is overdue, if there can be another connection."""
        if not phase.unanswered or not self._can_reconnect():
            return None
        return after(phase.unanswered[0][1], self._answer_max())

    def _is_overdue(self, now: int) -> bool:
        at = self._overdue_at(self._phase) if isinstance(self._phase, _Open) else None
        return at is not None and at <= now

    def _try_second_if_due(self, now: int) -> None:
        second = self._second()
        if second is None:
            if self._is_overdue(now):
                # That an answer is overdue is pause enough, whatever was tried before.
                self._backoff.reward()
                self._try_second(now)
        elif second.until is not None and now >= second.until:
            if second.stage == "pausing":
                self._dial_second(now)
            else:
                self._give_second_up(now)

    def _try_second(self, now: int) -> None:
        """Begins one, after the pause that is due."""
        pause = self._backoff.pause(self._ttl())
        if pause == 0:
            self._dial_second(now)
        else:
            self._set_second(_Second("pausing", 0, after(now, pause)))

    def _dial_second(self, now: int) -> None:
        self._connections += 1
        until = after(now, self._attempt_max())
        self._set_second(_Second("dialing", self._connections, until))

    def second_connected(self, now: int) -> Optional[wire.Hello]:
        """The second connection is made: gives what is to be said over it, and nothing else."""
        second = self._second()
        if second is None or second.stage != "dialing":
            return None
        until = None
        if self._introduction.linger_ms is None:
            until = after(now, self._ttl() // 16 * WELCOME_SIXTEENTHS)
        self._set_second(_Second("greeting", second.number, until, now))
        return self._hello()

    def second_lost(self, now: int) -> None:
        """The second connection ended, or could not be made."""
        self._give_second_up(now)

    def _give_second_up(self, now: int) -> None:
        second = self._take_second()
        if second is not None and second.has_greeted:
            # It may have been the session's.
            self._linger_from(now)
            self._lapse_if_due(now)
        if self._is_overdue(now):
            self._try_second(now)

    def receive_second(self, message: wire.ServerMessage, now: int) -> None:
        """Handles what was heard over the second connection. If it is welcome, it is the only one."""
        second = self._second()
        if second is None or not second.has_greeted:
            return
        self._lapse_if_due(now)
        if isinstance(message, wire.Welcome):
            self._replace_by(second, message, now)
        elif not isinstance(message, wire.Farewell):
            # Whoever that is: if the first connection is at its end, the next will tell.
            self._give_second_up(now)
        elif (message.code, message.rejection) == (Code.REFUSED, Rejection.UNKNOWN_SESSION):
            # The first connection is one of a session that is no more.
            self._replace_by(second, message, now)
        else:
            if (message.code, message.rejection) == (Code.REFUSED, Rejection.STALE_GENERATION):
                self._leap_generation()
            # No reason to let go of the first, which may only be slow.
            self._take_second()
            if self._is_overdue(now):
                self._try_second(now)

    def _replace_by(self, second: _Second, message: wire.ServerMessage, now: int) -> None:
        """The second connection takes the place of the first, and hears ``message``."""
        silence = since(now, self._phase.heard) if isinstance(self._phase, _Open) else 0
        self._trouble = End("silent", silence)
        self._messages.clear()
        self._forget_what_the_account_covers()
        if self._go_on_with(second, now):
            self._greet(message, now)

    def _superseded(self, end: End, now: int) -> None:
        """The first connection is superseded by one of our own."""
        second = self._take_second()
        if second is not None and second.has_greeted:
            # By this one: it is the session's, whose end nobody has seen.
            self._trouble = end
            self._messages.clear()
            self._forget_what_the_account_covers()
            self._go_on_with(second, now)
        else:
            self._go_away(end, now)  # By one that was given up.

    def _go_on_with(self, second: _Second, now: int) -> bool:
        """The second connection is the only one, if there is one."""
        if second.stage == "pausing":
            return False
        self._current = second.number
        if second.stage == "dialing":
            self._phase = _Dialing(second.until if second.until is not None else now)
        else:
            until = second.until
            if until is None:
                until = after(now, self._attempt_max())
            self._phase = _Greeting(second.hello_sent, until)
        return True


_COME_BACK_AFTER = frozenset(
    {
        Code.DRAINING, Code.HANDSHAKE_TIMEOUT, Code.IDLE_TIMEOUT, Code.TOO_MANY_CONNECTIONS,
        Code.SLOW_READER,
    }
)  # fmt: skip
_TRY_AGAIN_AFTER = frozenset(
    {Rejection.DRAINING, Rejection.TOO_MANY_SESSIONS, Rejection.UNAVAILABLE, Rejection.GRACE}
)


def _lost_reason(end: End) -> int:
    """Why holds are lost when the client ends like this."""
    if end.kind == "silent" or end.code == Code.SESSION_EXPIRED:
        return Reason.EXPIRED
    if end.kind == "dismissed" and end.code == Code.DRAINING:
        return Reason.STOPPED
    return Reason.DISCONNECTED


def _discard(ordered: List[Tuple[int, int]], entry: Tuple[int, int]) -> None:
    at = bisect_left(ordered, entry)
    if at < len(ordered) and ordered[at] == entry:
        del ordered[at]
