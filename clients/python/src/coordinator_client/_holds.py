"""The first floor of the core: requests, what is held, and until when."""

from __future__ import annotations

from bisect import insort
from typing import Dict, List, Optional, Tuple

from . import _wire as wire
from ._leader import Leader
from ._records import (
    CANCELLING, HELD, RELEASING, UNCONFIRMED, WAITING, Greeting, Open, Pausing, Phase, Request,
    Session, discard, lost_reason,
)  # fmt: skip
from ._values import (
    AWAY, ENDED, MILLISECOND, REQUESTS_AWAY_MAX, Ask, Backoff, Confirmed, Effect, End,
    Introduction, Lease, LostHold, Reconnect, Refusal, Refused, ReleaseAnswered, Replaced,
    because_lost,
)  # fmt: skip
from ._wire import Reason


class Holds:
    """Requests, what is held, and until when."""

    def __init__(self, introduction: Introduction, reconnect: Optional[Reconnect], now: int):
        self._phase: Phase = Greeting(now, None)
        self._introduction = introduction
        self._reconnect = reconnect
        self._backoff = Backoff(reconnect.seed if reconnect else 0)
        self._leader = Leader(reconnect)
        self._slowest = 0
        self._connections = 0
        self._current = 0
        self._trouble = End("disconnected")
        self._unreachable = False
        self._began = False
        self._session: Optional[Session] = None
        self.lease: Optional[Lease] = None
        self._lapsed = False
        self._sequence = 0
        self._epoch_seen = 0
        self._token_seen = 0
        self._requests: Dict[int, Request] = {}
        self._deadlines: List[Tuple[int, int]] = []
        self._doubts: List[Tuple[int, int]] = []
        self._conversions: Dict[int, int] = {}
        self._request_next = 1
        self._request_repeated = 0
        self._messages: List[wire.ClientMessage] = []
        self._effects: List[Effect] = []
        self._messages.append(self._hello())

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
        return type(self._phase) is Open

    @property
    def connection(self) -> Optional[int]:
        """Which connection is wanted, or made, or there: another number is another connection."""
        return None if type(self._phase) in (Pausing, End) else self._current

    def numbers(self) -> List[int]:
        """All requests that are not over."""
        return list(self._requests)

    # --- what the application wants ---

    def request(self, ask: Ask, now: int) -> int:
        """The application asks for locks; returns the request's id."""
        number = self._request_next
        self._request_next += 1
        known = Request(ask, now)
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

    def _refuses(self, known: Request) -> Optional[Refusal]:
        if isinstance(self._phase, End):
            return ENDED
        if not self._can_convert(known):
            return because_lost(Reason.EXPIRED)
        if isinstance(self._phase, Open):
            return None
        full = len(self._requests) >= REQUESTS_AWAY_MAX
        return AWAY if full or (self._unreachable and known.is_try()) else None

    def release(self, number: int, now: int) -> None:
        """The application gives back what a request holds. Always answered by an effect."""
        self._lapse_if_due(now)
        known = self._requests.get(number)
        refusal: Optional[Refusal]
        if known is not None and known.stage in (HELD, UNCONFIRMED):
            return self._give_back(number, known)
        if known is not None and known.stage == RELEASING:
            if known.asked:
                return
            refusal = None if known.lost is None else because_lost(known.lost)
        else:
            refusal = ENDED if self.end else because_lost(Reason.EXPIRED)
        self._effects.append(ReleaseAnswered(number, refusal))

    def _give_back(self, number: int, known: Request) -> None:
        """Stops believing, then says so."""
        self._releases(number, known, asked=True, lost=None)
        if self._may_send():
            self._messages.append(wire.Release(number, known.token))
        elif self._lapsed:
            self._refuse_releases()

    def cancel(self, number: int) -> None:
        """The application gives a request up, whether it waits or was granted meanwhile."""
        known = self._requests.get(number)
        if known is None or known.stage in (RELEASING, CANCELLING):
            return
        self._set_stage(number, known, CANCELLING)
        if self._may_send():
            self._messages.append(wire.Cancel(number))
        else:
            # The account that is given over the next connection does not list it.
            self._remove(number)

    def goodbye(self) -> None:
        """The application is done: everything is freed at once."""
        if self.end is None:
            if type(self._phase) in (Greeting, Open):
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
        """Whether what is asked goes out now, not repeated after the next Welcome."""
        return type(self._phase) is Open or (type(self._phase) is Greeting and not self._began)

    def _set_stage(
        self, number: int, known: Request, stage: int, doubted: Optional[int] = None
    ) -> None:
        if known.stage == HELD and known.doubted is not None:
            discard(self._doubts, (known.doubted, number))
        known.stage = stage
        known.doubted = doubted
        if stage == HELD and doubted is not None:
            insort(self._doubts, (doubted, number))

    def _releases(self, number: int, known: Request, *, asked: bool, lost: Optional[int]) -> None:
        """From now on it is given back."""
        known.reclaimed = known.stage == HELD and known.doubted is not None
        known.token, known.asked, known.lost = known.grant.token, asked, lost
        known.repeated = False
        self._set_stage(number, known, RELEASING)

    def _remove(self, number: int) -> None:
        """Forgets a request that is over."""
        known = self._requests.pop(number, None)
        if known is None:
            return
        if known.deadline is not None:
            discard(self._deadlines, (known.deadline, number))
        if known.stage == HELD and known.doubted is not None:
            discard(self._doubts, (known.doubted, number))
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
        reason = lost_reason(end)
        self._phase = end
        self.lease = None
        self._deadlines.clear()
        self._doubts.clear()
        self._conversions.clear()
        requests, self._requests = self._requests, {}
        for number, known in requests.items():
            if known.stage in (WAITING, UNCONFIRMED):
                self._effects.append(Refused(number, ENDED))
            elif known.stage == HELD:
                self._effects.append(LostHold(number, reason))
            elif known.stage == RELEASING and known.asked:
                refusal = ENDED if known.lost is None else because_lost(known.lost)
                self._effects.append(ReleaseAnswered(number, refusal))

    # --- what ends because time has passed ---

    def _lapse_if_due(self, now: int) -> None:
        """Ends every hold that is not believed in any more. First thing wherever time is told."""
        while self._doubts and self._doubts[0][0] <= now:
            self._lapse(self._doubts.pop(0)[1])
        if self.lease is None or self._lapsed or now < self.lease.believed_until():
            return
        self._lapsed = True
        for number in [n for n, known in self._requests.items() if known.stage == HELD]:
            self._lapse(number)
        if not self._may_send():
            self._refuse_releases()

    def _lapse(self, number: int) -> None:
        known = self._requests.get(number)
        if known is None or known.stage != HELD:
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
        for number in [n for n, known in self._requests.items() if known.stage == RELEASING]:
            known = self._requests[number]
            self._remove(number)
            if known.asked:
                refusal = AWAY if known.lost is None else because_lost(known.lost)
                self._effects.append(ReleaseAnswered(number, refusal))

    # --- conversions: a hold that becomes another ---

    def _can_convert(self, known: Request) -> bool:
        converted = known.ask.converts
        if converted is None:
            return True
        return converted not in self._conversions and self._is_held(converted)

    def _is_held(self, number: int) -> bool:
        known = self._requests.get(number)
        return known is not None and known.stage == HELD

    def _replace_converted(self, known: Request) -> None:
        """A request is granted: what it converts, if it does, is over."""
        converted = known.ask.converts
        if converted is None:
            return
        self._conversions.pop(converted, None)
        before = self._requests.get(converted)
        # What is on its way back is not held, and its release will be answered.
        if before is None or before.stage != HELD:
            return
        if before.doubted is not None:
            self._effects.append(Confirmed(converted))
        self._remove(converted)
        self._effects.append(Replaced(converted))

    def _give_up_conversion(self, converted: int, reason: int) -> None:
        """A hold is lost: what was to convert it has nothing to convert any more."""
        number = self._conversions.pop(converted, None)
        known = None if number is None else self._requests.get(number)
        if number is None or known is None or known.stage not in (WAITING, UNCONFIRMED):
            return
        self._effects.append(Refused(number, because_lost(reason)))
        # It may have been granted meanwhile, and then it holds the locks.
        self.cancel(number)
