"""The second floor of the core: from one connection to the next.

When one ends, nothing is decided: belief runs on, and what is asked meanwhile is kept. Over the
next the session says what it still waits for, in the old order and under the old ids. What is asked
for over a second connection beside the first is a Hello and nothing else, until it is welcome.
"""

from __future__ import annotations

from typing import Optional

from . import _wire as wire
from ._holds import Holds
from ._records import (
    CANCELLING, COME_BACK_AFTER, EVERYTHING, EVERYTHING_OR_NOTHING, HELD, NOTHING,
    NOTHING_ANY_MORE, RELEASING, TRY_AGAIN_AFTER, UNCONFIRMED, WAITING, Broken, Dialing,
    Greeting, Open, Pausing, Request, Second, Session,
)  # fmt: skip
from ._values import (
    ACCOUNT_IDS_MAX, ANSWERS_PER_TTL, ATTEMPTS_PER_TTL, AWAY, GENERATION_LEAP, LENGTH_MAX,
    MILLISECOND, PAUSES_PER_TTL, TTL_DEFAULT_MS, TTL_MAX_MS, TTL_MIN_MS, WELCOME_SIXTEENTHS,
    WELCOME_SIXTEENTHS_OF_SEVERAL,
    Doubted, End, Lease,
    ReleaseAnswered, Welcomed, after,
    because_lost, since, timed_out,
)  # fmt: skip
from ._wire import Code, Reason, Rejection


class Connections(Holds):
    """From one connection to the next."""

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

    def connection_cut(self, now: int) -> None:
        """The same, by our own doing: there is no reason to pause before the next."""
        self._backoff.reward()
        self.connection_lost(now)

    def connected(self, now: int) -> None:
        """The connection that was wanted is made: says Hello."""
        if isinstance(self._phase, Dialing):
            until = self._phase.until
            self._messages.append(self._hello())
            self._phase = Greeting(now, until)

    def _go_away(self, trouble: End, now: int) -> None:
        """There is no connection: a second one is waited for, or the next attempt made after a
        pause.
        """
        has_failed = not self.is_open
        second = self._take_second()
        self._leave(trouble, now)
        if has_failed:
            self._unreachable = True
            self._refuse_tries()
        if second is not None and self._go_on_with(second, now):
            return
        pause = self._pause(now)
        if pause == 0:
            self._dial(now)
        else:
            self._phase = Pausing(after(now, pause))

    def _pause(self, now: int) -> int:
        """How long to wait before the next attempt."""
        self._leader.pauses()
        return self._backoff.pause(self._pause_max(now))

    def _leave(self, trouble: End, now: int) -> None:
        """Gives up the connection, or the attempt to make one."""
        was_open = self.is_open
        self._trouble = trouble
        self._messages.clear()
        self._phase = Pausing(now)
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
        self._leader.attempt(self._current)
        self._phase = Dialing(after(now, self._attempt_max()))

    def _pause_max(self, now: int) -> int:
        """Short, as long as nobody needs to notice that there is no connection."""
        is_sure = self.lease is not None and now < self.lease.doubtful_from()
        return self._ttl() // (PAUSES_PER_TTL if is_sure else ATTEMPTS_PER_TTL)

    def _attempt_max(self) -> int:
        if self._reconnect is None:
            return self._backoff.attempt_max(self._ttl(), LENGTH_MAX)
        at_most, _, servers = self._reconnect
        return self._backoff.attempt_max(self._ttl(), at_most, servers)

    def _ttl(self) -> int:
        if self.lease is not None:
            return self.lease.ttl
        return (self._introduction.ttl_ms or TTL_DEFAULT_MS) * MILLISECOND

    def _forget_what_the_account_covers(self) -> None:
        """What was given up is over; a grant in doubt will be told again if it still is one."""
        for number, known in list(self._requests.items()):
            if known.stage == UNCONFIRMED:
                known.stage = WAITING
            elif known.stage == CANCELLING or (known.stage == RELEASING and not known.asked):
                self._remove(number)

    def _refuse_tries(self) -> None:
        """Who would not wait for a lock does not wait for a server that cannot be reached."""
        for number, known in list(self._requests.items()):
            if known.stage == WAITING and known.is_try() and known.ask.converts is None:
                self._refuse(number, AWAY)

    def _dismissed(self, message: wire.Farewell, now: int) -> None:
        """The server said goodbye, or refused our Hello."""
        greets = not self.is_open
        code, rejection = message.code, message.rejection
        end = End("dismissed", code=code, rejection=rejection, message=message.message)
        if not self._can_reconnect():
            self._finish(end)
        elif code == Code.NOT_LEADER:
            self._not_the_leader(end, message.message, now)
        elif code in COME_BACK_AFTER or code not in wire.GOODBYES:
            self._go_away(end, now)
        elif code == Code.SESSION_EXPIRED:
            self._session_over(end, now)
        elif code == Code.REFUSED and greets:
            if rejection == Rejection.UNKNOWN_SESSION:
                self._session_over(end, now)
            elif rejection == Rejection.STALE_GENERATION:
                self._leap_generation()
                self._go_away(end, now)
            elif rejection in TRY_AGAIN_AFTER:
                self._go_away(end, now)
            else:
                self._finish(end)  # What we say about ourselves is wrong, and will be again.
        elif code == Code.SUPERSEDED and self._superseded_itself():
            self._superseded(end, now)
        else:
            self._finish(end)

    # --- who leads ---

    def hint(self, connection: Optional[int]) -> Optional[str]:
        """Where it is to be tried first: somebody says that the leader is there."""
        latest = self._leader.latest
        return latest[1] if latest is not None and latest[0] == connection else None

    def _not_the_leader(self, end: End, hint: str, now: int) -> None:
        """The server does not lead, and this is what it says of who does."""
        at_once = self._leader.hear(hint)
        second = self._second()
        # One over which Hello was said may be the session's by now.
        if not at_once or (second is not None and second.has_greeted):
            return self._go_away(end, now)
        self._take_second()
        self._leave(end, now)
        self._dial(now)

    def _second_not_the_leader(self, hint: str, now: int) -> None:
        """The same, of the second connection."""
        at_once = self._leader.hear(hint)
        self._take_second()
        if not self._is_overdue(now):
            self._leader.next = None
        elif at_once:
            self._dial_second(now)
        else:
            self._try_second(now)

    def _is_deposed(self, epoch: int) -> bool:
        """Whether a server of this epoch was deposed by one that we have heard of."""
        is_older = self._leader.is_one_of_several and epoch < self._epoch_seen
        return is_older and self._can_reconnect()

    def _leap_generation(self) -> None:
        """The server knows a later connection of the session than we do."""
        if self._session is not None:
            self._session.generation += GENERATION_LEAP

    def _superseded_itself(self) -> bool:
        """Whether a later Hello was said than that of this connection."""
        latest = self._session.generation if self._session else 0
        return isinstance(self._phase, Open) and self._phase.generation < latest

    def _session_over(self, end: End, now: int) -> None:
        """The session is over: what it held is lost, what it awaits goes on in another."""
        for number, known in list(self._requests.items()):
            if self._requests.get(number) is not known:
                continue
            if known.stage in (WAITING, UNCONFIRMED):
                known.stage = WAITING
                known.ticket = None
            elif known.stage == HELD:
                self._lose(number, Reason.EXPIRED)
            elif known.stage == RELEASING:
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

    def _released_by_itself(self, number: int, known: Request) -> None:
        """Nobody holds any more what was to be released."""
        self._remove(number)
        if known.asked:
            refusal = None if known.lost is None else because_lost(known.lost)
            self._effects.append(ReleaseAnswered(number, refusal))

    def _welcomed(self, hello_sent: int, welcome: wire.Welcome, now: int) -> None:
        """The connection is welcome."""
        if welcome.protocol != wire.PROTOCOL:
            raise Broken(f"it speaks protocol {welcome.protocol}")
        if self._is_deposed(welcome.epoch):
            return self._go_away(End("deposed", epoch=welcome.epoch), now)
        if not TTL_MIN_MS <= welcome.ttl_ms <= TTL_MAX_MS:
            raise Broken(f"a ttl of {welcome.ttl_ms} ms")
        known = self._known(welcome)
        if known not in (NOTHING, EVERYTHING):
            self._doubt_holds()
        generation = welcome.generation
        latest = max(self._session.generation if self._session else 0, generation)
        self._session = Session(welcome.session, welcome.secret, latest, welcome.epoch)
        lease = Lease(hello_sent, welcome.ttl_ms * MILLISECOND)
        if known == EVERYTHING and self.lease is not None:
            lease.confirm(self.lease.confirmed)
        self._leader.next = None  # What was said of others before is out of date.
        self._answered(since(now, hello_sent))
        can_be_another = self._reconnect is not None and self._introduction.linger_ms is None
        self._phase = Open(lease.ttl, generation, hello_sent, now, can_be_another)
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
                return NOTHING
            raise Broken("a Welcome that resumes a session, where a new one was requested")
        if self._session.id != welcome.session:
            raise Broken("a Welcome of another session than the requested one")
        if not isinstance(welcome.standing, wire.Resumed):
            return NOTHING_ANY_MORE
        same = self._session.epoch == welcome.epoch
        return EVERYTHING if same else EVERYTHING_OR_NOTHING

    def _doubt_holds(self) -> None:
        """What is held is believed in as long as the lease was, unless it is confirmed."""
        if self.lease is None:
            return
        until = self.lease.believed_until()
        for number, known in self._requests.items():
            if known.stage == HELD and known.doubted is None:
                self._set_stage(number, known, HELD, until)
                self._effects.append(Doubted(number, until))

    def _repeat(self, what: int, now: int) -> None:
        """Says again what is not answered, and what is held."""
        self._request_repeated = self._request_next
        is_gone = what in (NOTHING, NOTHING_ANY_MORE)
        for number, known in list(self._requests.items()):
            if known.stage == WAITING:
                # Not what was to convert: whether it was, and whom that let in, is not known here.
                if is_gone and known.ask.converts is None and known.is_timed_out(now):
                    self._refuse(number, timed_out(number))
                else:
                    self._messages.append(known.message(number, now))
            elif known.stage == HELD and known.doubted is not None:
                self._messages.append(known.reclaim(number, now))
            elif known.stage == RELEASING:
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
            if known.stage in (WAITING, UNCONFIRMED, HELD)
        ]
        last = self._request_next - 1
        start, begin = 1, 0
        while start <= last:
            part = live[begin : begin + ACCOUNT_IDS_MAX]
            begin += len(part)
            to = part[-1][0] if part and begin < len(live) else last
            held = [wire.Held(n, known.grant.token) for n, known in part if known.stage == HELD]
            waiting = [number for number, known in part if known.stage != HELD]
            self._messages.append(wire.Account(start, to, held, waiting))
            start = to + 1

    def _greet(self, message: wire.ServerMessage, now: int) -> None:
        """The first message of a connection."""
        if not isinstance(self._phase, Greeting):
            return
        try:
            if isinstance(message, wire.Welcome):
                self._welcomed(self._phase.hello_sent, message, now)
            elif isinstance(message, wire.Farewell):
                self._dismissed(message, now)
            else:
                raise Broken(f"{type(message).__name__} before Welcome")
        except Broken as how:
            self.protocol_broken(str(how))

    def _answered(self, took: int) -> None:
        """An answer came after this: the slowest counts, and less with each answer."""
        self._slowest = max(took, self._slowest * 3 // 4)

    def _answer_max(self) -> int:
        ttl = self._ttl()
        return min(max(ttl // ANSWERS_PER_TTL, self._slowest * 2), ttl)

    # --- a second connection beside one that does not answer ---

    @property
    def second_connection(self) -> Optional[int]:
        """The same of the second connection."""
        second = self._second()
        return None if second is None or second.stage == "pausing" else second.number

    def _second(self) -> Optional[Second]:
        return self._phase.second if isinstance(self._phase, Open) else None

    def _set_second(self, second: Optional[Second]) -> None:
        if isinstance(self._phase, Open):
            self._phase.second = second

    def _take_second(self) -> Optional[Second]:
        second = self._second()
        self._set_second(None)
        return second

    def _open_deadline(self, phase: Open) -> int:
        earliest = phase.keep_alive_due
        second = phase.second
        moment = self._overdue_at(phase) if second is None else second.until
        if moment is not None and moment < earliest:
            earliest = moment
        given_up_at = phase.given_up_at()
        if given_up_at is not None and given_up_at < earliest:
            earliest = given_up_at
        return earliest

    def _overdue_at(self, phase: Open) -> Optional[int]:
        """When an answer is overdue, if there can be another connection."""
        if not phase.unanswered or not self._can_reconnect():
            return None
        return after(phase.unanswered[0][1], self._answer_max())

    def _is_overdue(self, now: int) -> bool:
        at = self._overdue_at(self._phase) if isinstance(self._phase, Open) else None
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
        pause = self._pause(now)
        if pause == 0:
            self._dial_second(now)
        else:
            self._set_second(Second("pausing", 0, after(now, pause)))

    def _dial_second(self, now: int) -> None:
        self._connections += 1
        self._leader.attempt(self._connections)
        until = after(now, self._attempt_max())
        self._set_second(Second("dialing", self._connections, until))

    def second_connected(self, now: int) -> Optional[wire.Hello]:
        """The second connection is made: gives what is to be said over it, and nothing else."""
        second = self._second()
        if second is None or second.stage != "dialing":
            return None
        until = None
        if self._introduction.linger_ms is None:
            several = self._leader.is_one_of_several
            sixteenths = WELCOME_SIXTEENTHS_OF_SEVERAL if several else WELCOME_SIXTEENTHS
            until = after(now, self._ttl() // 16 * sixteenths)
        self._set_second(Second("greeting", second.number, until, now))
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
        """Handles what the second connection brought. If it is welcome, it is the only one."""
        second = self._second()
        if second is None or not second.has_greeted:
            return
        self._lapse_if_due(now)
        if isinstance(message, wire.Welcome):
            if self._is_deposed(message.epoch):
                self._give_second_up(now)
            else:
                self._replace_by(second, message, now)
        elif not isinstance(message, wire.Farewell):
            # Whoever that is: if the first connection is at its end, the next will tell.
            self._give_second_up(now)
        elif message.code == Code.NOT_LEADER:
            self._second_not_the_leader(message.message, now)
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

    def _replace_by(self, second: Second, message: wire.ServerMessage, now: int) -> None:
        """The second connection takes the place of the first, and hears ``message``."""
        silence = since(now, self._phase.heard) if isinstance(self._phase, Open) else 0
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

    def _go_on_with(self, second: Second, now: int) -> bool:
        """The second connection is the only one, if there is one."""
        if second.stage == "pausing":
            return False
        self._current = second.number
        if second.stage == "dialing":
            self._phase = Dialing(second.until if second.until is not None else now)
        else:
            until = second.until
            if until is None:
                until = after(now, self._attempt_max())
            self._phase = Greeting(second.hello_sent, until)
        return True
