"""Between the core and whoever waits: the same for threads and for a loop.

A driver owns one desk and calls it from one place at a time. The desk tells grasps what became of
them and calls their ``wake``, which must not block.
"""

from __future__ import annotations

import os
from typing import Callable, Dict, List, Optional

from . import _clock, _core, _wire as wire
from ._core import Ask, Core
from ._errors import Closed, LockError, LockLost, LockTimeout, NotHeld, ended, refused
from ._report import Feed, Reporter
from ._terms import first_name
from ._values import before, jeopardy
from ._wire import Reason

WAITING, HELD, RELEASED, LOST, REFUSED = "waiting", "held", "released", "lost", "refused"


def nobody() -> None:
    """The ``wake`` of what nobody waits for."""


# What changes nothing but a request.
_PLAIN = frozenset({wire.Grant, wire.Released, wire.Queued, wire.Cancelled, wire.Rejected})


class Conversion:
    """A grasp that is to become another: its request, and what came of it."""

    __slots__ = ("number", "ask", "wake", "error", "done")

    def __init__(self, number: int, ask: Ask, wake: Callable[[], None]):
        self.number = number
        self.ask = ask
        self.wake = wake
        self.error: Optional[LockError] = None
        self.done = False


class Grasp:
    """One request from its beginning to its end, through its conversions."""

    __slots__ = (
        "number", "ask", "pid", "stage", "token", "reason", "error", "doubted_until", "wake",
        "answered", "conversion", "on_over", "owner", "position",
    )  # fmt: skip

    def __init__(self, ask: Ask, wake: Callable[[], None], pid: int):
        self.number = 0
        self.ask = ask
        self.pid = pid
        self.stage = WAITING
        self.token = 0
        self.reason = 0
        self.error: Optional[LockError] = None
        self.doubted_until: Optional[int] = None
        # Called when the request is answered, when its place in line is another, and again when the
        # release is answered.
        self.wake = wake
        # Its place in line, while that was not told.
        self.position: Optional[int] = None
        # Whether the release is answered.
        self.answered = False
        self.conversion: Optional[Conversion] = None
        # Gives the object that users have of it, while there is one.
        self.owner: Optional[Callable[[], object]] = None
        # Called once when it is lost, or released.
        self.on_over: List[Callable[[], None]] = []

    @property
    def is_forked(self) -> bool:
        """Whether it is the copy of one that belongs to another process."""
        return self.pid != os.getpid()

    @property
    def is_told(self) -> bool:
        """Whether whoever waits for it has something to hear."""
        if self.stage == WAITING:
            return self.position is not None
        return self.stage != RELEASED or self.answered

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for what becomes of it."""
        return self.wake is not nobody

    def lost_error(self) -> LockLost:
        """Why it is not held any more."""
        reason = Reason.FORKED if self.is_forked else self.reason or Reason.EXPIRED
        return LockLost(first_name(self.ask), self.token, reason)


def not_free(grasp: Grasp) -> Optional[LockError]:
    """Why what was released is not known to be free. Raises what else there is to say of it."""
    error = grasp.error
    if error is None or isinstance(error, Closed):
        return None  # A goodbye frees it, too.
    if isinstance(error, ConnectionError):
        return error
    raise error


class Desk:
    """The core, and who is to be told."""

    def __init__(self, core: Core, server: str):
        self.core = core
        self.server = server
        self.pid = os.getpid()
        self.grasps: Dict[int, Grasp] = {}
        # What the last connection ended with, for people.
        self.cause: Optional[BaseException] = None
        self.welcome: Optional[_core.Welcomed] = None
        self.on_welcome: Callable[[], None] = lambda: None
        # Of several servers, the one that was reached last.
        self.peer: Callable[[], Optional[str]] = lambda: None
        # There once somebody listens to what becomes of the session.
        self._reporter: Optional[Reporter] = None

    # --- what is wanted ---

    def request(self, ask: Ask, wake: Callable[[], None]) -> Grasp:
        """Asks for locks."""
        grasp = Grasp(ask, wake, self.pid)
        self.begin(grasp)
        return grasp

    def begin(self, grasp: Grasp) -> None:
        """The same for a grasp that is there, unless it was given up meanwhile."""
        if grasp.stage == WAITING:
            grasp.number = self.core.request(grasp.ask, _clock.now())
            self.grasps[grasp.number] = grasp

    def convert(self, grasp: Grasp, ask: Ask, wake: Callable[[], None]) -> Conversion:
        """Asks for what the grasp holds, in other modes."""
        ask = ask._replace(converts=grasp.number, owner=grasp.ask.owner)
        conversion = Conversion(0, ask, wake)
        conversion.number = self.core.request(ask, _clock.now())
        grasp.conversion = conversion
        self.grasps[conversion.number] = grasp
        return conversion

    def release(self, grasp: Grasp) -> None:
        """Gives back what is held: from now on nobody here believes in it."""
        grasp.stage = RELEASED
        self._give_conversion_up(grasp)
        self.core.release(grasp.number, _clock.now())
        self._tell_that_it_is_over(grasp)

    def _tell_that_it_is_over(self, grasp: Grasp) -> None:
        listeners, grasp.on_over = grasp.on_over, []
        for listener in listeners:
            listener()

    def cancel(self, grasp: Grasp) -> None:
        """Gives a request up, whether it waits or was granted meanwhile."""
        if grasp.stage in (WAITING, HELD):
            grasp.stage = REFUSED
            self._give_conversion_up(grasp)
            if self.grasps.pop(grasp.number, None) is not None:
                self.core.cancel(grasp.number)

    def abandon(self, grasp: Grasp) -> None:
        """Gives up what was begun by halves, while there is no connection."""
        self.grasps.pop(grasp.number, None)
        if grasp.stage in (WAITING, HELD):
            grasp.stage = REFUSED
        for number in self.core.numbers():
            if number not in self.grasps:
                self.core.cancel(number)

    def _give_conversion_up(self, grasp: Grasp) -> None:
        """As simple as can be: with the conversion goes what it was to convert."""
        if grasp.conversion is not None:
            number, grasp.conversion = grasp.conversion.number, None
            self.grasps.pop(number, None)
            self.core.cancel(number)

    # --- what is believed ---

    def believed_until(self, grasp: Grasp) -> int:
        """Until when it is held if nothing more is heard; 0 if it is not."""
        return 0 if grasp.is_forked else self.believed_here_until(grasp)

    def believed_here_until(self, grasp: Grasp) -> int:
        """The same where it is known that this is its process."""
        lease = self.core.lease
        if grasp.stage != HELD or lease is None:
            return 0
        until = lease.believed_until()
        return until if grasp.doubted_until is None else min(until, grasp.doubted_until)

    def lease_left(self) -> int:
        """How long the session lives, and all that is sure in it, if nothing more is heard."""
        lease = self.core.lease
        return 0 if lease is None else max(0, lease.believed_until() - _clock.now())

    def is_held(self, grasp: Grasp) -> bool:
        """Whether it is held now, by our own clock: nobody else can have it then."""
        return _clock.now() < self.believed_until(grasp)

    def check_held(self, grasp: Grasp) -> None:
        """Raises what a release of it has to say if it is not held."""
        if grasp.is_forked:
            raise NotHeld(
                f'"{first_name(grasp.ask)}" is held by the process that forked this one',
                "acquire it in this process",
            )
        if grasp.stage not in (HELD, LOST):
            raise NotHeld(f'"{first_name(grasp.ask)}" is not held by this object')
        if not self.is_held(grasp):
            # Our clock knows, and the core is told at once.
            self.core.tick(_clock.now())
            raise grasp.lost_error()

    def state(self, grasp: Grasp) -> str:
        """``held``, ``jeopardy`` or ``lost``."""
        now, lease = _clock.now(), self.core.lease
        if lease is None or now >= self.believed_until(grasp):
            return "lost"
        doubtful_from = lease.doubtful_from()
        if grasp.doubted_until is not None:
            doubtful_from = min(doubtful_from, before(grasp.doubted_until, jeopardy(lease.ttl)))
        return "held" if now < doubtful_from else "jeopardy"

    # --- what becomes of the session ---

    def listen(self, feed: Feed) -> None:
        """From now on it hears of the session."""
        if self._reporter is None:
            self._reporter = Reporter(self)
        self._reporter.add(feed)

    def listen_no_more(self, feed: Feed) -> None:
        """The opposite."""
        if self._reporter is not None:
            self._reporter.remove(feed)

    def next_deadline(self) -> Optional[int]:
        """When there is something to do, if nothing happens before."""
        deadline = self.core.next_deadline()
        due = self._reporter.due() if self._reporter is not None else None
        if due is None or deadline is None:
            return deadline
        return min(deadline, due)

    # --- what is heard, and told ---

    def hear(self, connection: int, frames: wire.Frames, data: bytes, now: int) -> bool:
        """What was read comes to the core; whether it was nothing but answers to requests."""
        core, is_plain = self.core, True
        try:
            for payload in frames.feed(data):
                message = wire.decode_server(payload)
                is_plain = is_plain and type(message) in _PLAIN
                # Once the second is welcome, it is the connection.
                if core.connection == connection:
                    core.receive(message, now)
                elif core.second_connection == connection:
                    core.receive_second(message, now)
        except wire.WireError as error:
            is_plain = False
            if core.connection == connection:
                core.protocol_broken(str(error))
            else:
                core.second_lost(now)
        return is_plain

    def lose(self, connection: int, error: Optional[BaseException], now: int) -> None:
        """A connection ended, or could not be made."""
        if self.core.connection == connection:
            self.cause = error
            self.core.connection_lost(now)
        elif self.core.second_connection == connection:
            self.core.second_lost(now)

    def settle(self) -> bytes:
        """Tells who waits, and gives what is to be written."""
        if self._reporter is not None:
            self._reporter.disconnected()
        for effect in self.core.take_effects():
            self._tell(effect)
        if self._reporter is not None:
            self._reporter.settled()
        messages = self.core.drain_messages()
        if not messages:
            return b""
        return b"".join([wire.encode(message) for message in messages])

    def _tell(self, effect: _core.Effect) -> None:
        if isinstance(effect, _core.Welcomed):
            self.welcome = effect
            self.on_welcome()
            if self._reporter is not None:
                self._reporter.welcomed(effect.session, effect.epoch)
            return
        number = effect.request
        grasp = self.grasps.get(number)
        if grasp is None:
            return
        if isinstance(effect, _core.Granted):
            self._granted(grasp, effect)
        elif isinstance(effect, _core.ReleaseAnswered):
            del self.grasps[number]
            if effect.refusal is not None and grasp.error is None:
                grasp.error = self._error(effect.refusal, grasp.ask, grasp.token)
            grasp.answered = True
            grasp.wake()
        elif isinstance(effect, _core.Refused):
            del self.grasps[number]
            self._refused(grasp, number, effect.refusal)
        elif isinstance(effect, _core.LostHold):
            self._lost(grasp, number, effect.reason)
        elif isinstance(effect, _core.Moved):
            if grasp.ask.progress:
                grasp.position = effect.position
                grasp.wake()
        elif isinstance(effect, _core.Doubted):
            grasp.doubted_until = effect.until
        elif isinstance(effect, _core.Confirmed):
            grasp.doubted_until = None
        elif isinstance(effect, _core.Replaced):
            # What is held is held on, by the request that is granted next.
            del self.grasps[number]

    def _granted(self, grasp: Grasp, effect: _core.Granted) -> None:
        conversion = grasp.conversion
        grasp.token = effect.token
        if conversion is not None and conversion.number == effect.request:
            grasp.number, grasp.ask, grasp.conversion = conversion.number, conversion.ask, None
            conversion.done = True
            conversion.wake()
        else:
            grasp.stage = HELD
            grasp.wake()

    def _refused(self, grasp: Grasp, number: int, refusal: _core.Refusal) -> None:
        conversion = grasp.conversion
        if conversion is not None and conversion.number == number:
            conversion.error = self._error(refusal, conversion.ask, grasp.token)
            grasp.conversion = None
            conversion.done = True
            conversion.wake()
        else:
            grasp.stage = REFUSED
            grasp.error = self._error(refusal, grasp.ask, 0)
            grasp.wake()

    def _lost(self, grasp: Grasp, number: int, reason: int) -> None:
        if grasp.stage == RELEASED:
            # It is answered next, and wants to hear of it.
            grasp.error = LockLost(first_name(grasp.ask), grasp.token, reason)
            return
        del self.grasps[number]
        if self._reporter is not None:
            self._reporter.lost(grasp.token, reason)
        grasp.stage, grasp.reason = LOST, reason
        self._tell_that_it_is_over(grasp)

    def _error(self, refusal: _core.Refusal, ask: Ask, token: int) -> LockError:
        name = first_name(ask)
        failure, peer = self.cause, self.peer()
        error = refused(refusal, self.server, self.core.trouble, failure, name, token, peer)
        if isinstance(error, LockTimeout):
            timeout = ask.wait.ms / 1000 if isinstance(ask.wait, wire.Timeout) else 0
            return LockTimeout(error.lock, timeout)
        return error

    def end_error(self) -> LockError:
        """Why nothing can be asked any more."""
        return ended(self.server, self.core.trouble, self.cause, self.peer())
