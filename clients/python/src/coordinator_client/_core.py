"""What a client believes, and until when: a state machine without a clock, a socket or a thread.

A port of ``src/client/core`` of the Rust client, and held to it by the corpus of traces
(``docs/traces``). Commands of the application, messages of the server, connections made and lost
and the passing of time go in; messages to send and effects come out. A driver carries them and
decides nothing.

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

from typing import Optional

from . import _wire as wire
from ._connections import Connections
from ._records import (
    CANCELLING, HELD, RELEASING, UNCONFIRMED, WAITING, Broken, Dialing, Grant, Greeting, Open,
    Pausing,
)  # fmt: skip
from ._values import *  # noqa: F403
from ._values import (
    AWAY, FORGOTTEN, KEEP_ALIVES_PER_TTL, KEEP_ALIVES_UNANSWERED_MAX,
    MILLISECOND, TTL_DEFAULT_MS, Confirmed, End, Granted, Moved, Refusal, ReleaseAnswered,
    after, because_lost, since, timed_out,
)  # fmt: skip
from ._wire import Reason, Rejection


class Core(Connections):
    """The state machine."""

    def next_deadline(self) -> Optional[int]:
        """When `tick` has something to do, if nothing happens before."""
        phase = self._phase
        if isinstance(phase, End):
            return None
        earliest: Optional[int]
        if isinstance(phase, Open):
            earliest = self._open_deadline(phase)
        elif isinstance(phase, Greeting):
            earliest = phase.give_up_at
        else:
            earliest = phase.until
        moments = [] if earliest is None else [earliest]
        if self.lease is not None and not self._lapsed:
            moments.append(self.lease.believed_until())
        if self._doubts:
            moments.append(self._doubts[0][0])
        if self._deadlines and self._began and not isinstance(phase, Open):
            moments.append(self._deadlines[0][0])
        return min(moments) if moments else None

    # --- time ---

    def tick(self, now: int) -> None:
        """Lets time pass: ends belief that has run out, keeps the session alive, comes back."""
        self._lapse_if_due(now)
        phase = self._phase
        if isinstance(phase, Open):
            self._tick_open(now)
        elif isinstance(phase, Greeting):
            if phase.give_up_at is not None and now >= phase.give_up_at:
                self._go_away(End("silent", self._attempt_max()), now)
        elif isinstance(phase, Dialing):
            if now >= phase.until:
                self._go_away(End("silent", self._attempt_max()), now)
        elif isinstance(phase, Pausing) and now >= phase.until:
            self._dial(now)
        self._stop_waiting_if_due(now)

    def _tick_open(self, now: int) -> None:
        self._keep_alive_if_due(now)
        self._try_second_if_due(now)
        phase = self._phase
        if not isinstance(phase, Open):
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
        if not isinstance(phase, Open) or now < phase.keep_alive_due:
            return
        self._sequence += 1
        ttl = self.lease.ttl if self.lease else TTL_DEFAULT_MS * MILLISECOND
        phase.keep_alive_due = after(now, ttl // KEEP_ALIVES_PER_TTL)
        if len(phase.unanswered) == KEEP_ALIVES_UNANSWERED_MAX:
            phase.unanswered.popleft()
        phase.unanswered.append((self._sequence, now))
        self._messages.append(wire.KeepAlive(self._sequence))

    def _stop_waiting_if_due(self, now: int) -> None:
        """While there is no connection, requests stop waiting by our own clock."""
        if self.is_open or not self._began:
            return
        while self._deadlines and self._deadlines[0][0] <= now:
            _, number = self._deadlines.pop(0)
            known = self._requests.get(number)
            if known is not None and known.stage in (WAITING, UNCONFIRMED):
                self._refuse(number, AWAY)

    # --- what the server says ---

    def receive(self, message: wire.ServerMessage, now: int) -> None:
        """Handles a message that was read before ``now`` was."""
        self._lapse_if_due(now)
        if isinstance(self._phase, Greeting):
            return self._greet(message, now)
        if not isinstance(self._phase, Open):
            return  # What comes over a connection that was given up.
        self._phase.heard = now
        try:
            self._heard(message, now)
        except Broken as how:
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
            if known is not None and known.stage == WAITING:
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
            raise Broken("a second Welcome")
        else:
            raise Broken(f"{type(message).__name__}, which was never requested")

    def _kept_alive(self, sequence: int, now: int) -> None:
        phase, lease = self._phase, self.lease
        if not isinstance(phase, Open) or lease is None:
            return
        if sequence > self._sequence:
            raise Broken(f"an answer to keep-alive {sequence}, which was never sent")
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
                if known.stage == UNCONFIRMED:
                    self._set_stage(number, known, HELD)
                    self._effects.append(Granted(number, known.grant.token))

    def _granted(self, message: wire.Grant, now: int) -> None:
        number, token = message.request, message.token
        self._token_seen = max(self._token_seen, token)
        known = self._requests.get(number)
        if known is None:
            return self._stray(number, f"a grant to request {number}, which does not exist")
        if known.stage == WAITING:
            known.grant = Grant(token, message.seal, now)
            if self.lease is not None and now < self.lease.believed_until():
                self._replace_converted(known)
                self._set_stage(number, known, HELD)
                self._effects.append(Granted(number, token))
            else:
                self._set_stage(number, known, UNCONFIRMED)
        elif known.stage == HELD and known.grant.token == token:
            was_doubted = known.doubted is not None
            known.grant = Grant(token, message.seal, known.grant.since)
            self._set_stage(number, known, HELD)
            if was_doubted:
                self._effects.append(Confirmed(number))
        elif known.stage == CANCELLING:
            pass
        elif known.stage == UNCONFIRMED and known.grant.token == token:
            pass
        elif known.stage == RELEASING and known.token == token:
            pass
        else:
            raise Broken(f"request {number} granted twice, again with token {token}")

    def _released(self, number: int) -> None:
        known = self._requests.get(number)
        if known is not None and known.stage == RELEASING:
            self._remove(number)
            if known.asked:
                refusal = None if known.lost is None else because_lost(known.lost)
                self._effects.append(ReleaseAnswered(number, refusal))
        elif known is not None and (
            # It is converted, and what converted it is answered next.
            (known.stage == HELD and known.doubted is not None and number in self._conversions)
            # So it was, and both are given up.
            or known.stage == CANCELLING
        ):
            pass
        else:
            self._stray(number, f"request {number} released without a release")

    def _cancelled(self, number: int) -> None:
        known = self._requests.get(number)
        if known is not None and known.stage == CANCELLING:
            self._remove(number)
        else:
            self._stray(number, f"request {number} cancelled without a cancel")

    def _lost(self, number: int, token: int, reason: int) -> None:
        not_held = f"a loss of token {token}, which request {number} did not hold"
        known = self._requests.get(number)
        if known is None:
            return self._stray(number, not_held)
        if known.stage == CANCELLING:
            pass
        elif known.stage == HELD and known.grant.token == token:
            self._lose(number, reason)
        elif known.stage == UNCONFIRMED and known.grant.token == token:
            self._refuse(number, because_lost(reason))
        elif known.stage == WAITING and number < self._request_repeated:
            # Its grant was lost with a connection, and then it was too.
            self._refuse(number, because_lost(reason))
            converted = known.ask.converts
            if converted is not None and self._is_held(converted):
                self._lose(converted, reason)
        elif known.stage == RELEASING and known.token == token:
            if known.lost is None:
                known.lost = reason
        else:
            raise Broken(not_held)

    def _rejected(self, message: wire.Rejected, now: int) -> None:
        number, code = message.request, message.code
        unasked = f"a rejection of request {number}, which awaited no answer"
        known = self._requests.get(number)
        if known is None:
            return self._stray(number, unasked)
        if known.stage == CANCELLING:
            pass
        elif known.stage == WAITING:
            repeated = number < self._request_repeated
            if repeated and code == Rejection.REQUEST_FORGOTTEN:
                late = known.is_timed_out(now)
                self._refuse(number, timed_out(number) if late else FORGOTTEN)
            else:
                self._refuse(number, Refusal("rejected", code, message))
        elif known.stage == HELD and known.doubted is not None:
            self._lose(number, Reason.NOT_RECLAIMED)
        elif known.stage == RELEASING:
            if known.reclaimed and code != Rejection.NOT_HOLDER:
                # What was to be released could not be reclaimed; the release is answered next.
                if known.lost is None:
                    known.lost = Reason.NOT_RECLAIMED
                return
            self._remove(number)
            if known.asked:
                refusal: Optional[Refusal] = Refusal("rejected", code, message)
                if known.lost is not None:
                    refusal = because_lost(known.lost)
                elif known.repeated:
                    refusal = None  # The first was done, and is forgotten.
                self._effects.append(ReleaseAnswered(number, refusal))
        else:
            raise Broken(unasked)

    def _stray(self, number: int, how: str) -> None:
        """An answer to what does not wait for one: a leftover of an earlier connection, or an
        error.
        """
        if number < self._request_repeated and number not in self._requests:
            return
        raise Broken(how)
