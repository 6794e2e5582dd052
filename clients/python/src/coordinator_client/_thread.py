"""What callers want of a session of threads.

They tell the core what they want under one lock, write what it has to say, and sleep until they are
told: by themselves, as `_lane` says, or by the thread of `_carrier`.

Only modules are imported, never names out of them: see `_carrier`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from typing import Callable, Iterator, List, Optional

from . import _clock, _dial, _last, _search
from ._carrier import FAREWELL_TIMEOUT
from ._core import Ask, Introduction
from ._desk import HELD, REFUSED, WAITING, Conversion, Grasp, nobody, not_free
from ._errors import Cancelled, Closed, LockError, silent, unavailable
from ._lane import Lane, is_mine
from ._link import WAIT_SLICE, Link, Signal
from ._report import Feed, SessionEvent
from ._terms import first_name

RELEASE_TIMEOUT = 5.0
# A server that does not answer at the end of a timeout is given so long.
ANSWER_GRACE = 2.0

_sessions: "weakref.WeakSet[Session]" = weakref.WeakSet()


def open_session(
    dialer: _search.Dialer, search: _search.Search, introduction: Introduction
) -> "Session":
    """A session with the first server that welcomes us. Raises `Unavailable` and others."""
    while True:
        session = Session(dialer, introduction)
        try:
            session.open(search.share(), search.plan())
            return session
        except BaseException as error:
            session.give_up()
            pause = search.after(error)
        time.sleep(pause)


class Session(Lane):
    """A session with a coordinator, and the thread that keeps it alive."""

    def __init__(self, dialer: _search.Dialer, introduction: Introduction):
        super().__init__(dialer, introduction)
        _sessions.add(self)
        _last.is_used()

    # --- the first connection ---

    def open(self, timeout: float, plan: _search.Plan) -> None:
        """Connects, and waits for the welcome; not with the lock held, for the thread needs it."""
        give_up_at = time.monotonic() + timeout
        try:
            server, sock = plan.connect(timeout)
        except OSError as error:
            raise unavailable(self.server, error) from error
        self._dialer.reached(server)
        with self._lock:
            self._begin()
            self._link = Link(self.desk.core.connection or 0)
            self._link.sock = sock
            self._thread = threading.Thread(
                target=self._run, name="coordinator-client", daemon=True
            )
        try:
            self._thread.start()
        except RuntimeError as error:
            self._thread = None
            raise unavailable(self.server, error) from error
        self._wait_event(self._welcome, give_up_at - time.monotonic())
        with self._lock:
            if self.desk.core.end is not None:
                raise self.desk.end_error()
            if self.desk.welcome is None:
                raise silent(self.server, timeout)

    def _wait_event(self, event: threading.Event, timeout: float) -> bool:
        give_up_at = time.monotonic() + timeout
        while True:
            left = give_up_at - time.monotonic()
            if event.wait(max(left if WAIT_SLICE is None else min(left, WAIT_SLICE), 0)):
                return True
            if left <= 0:
                return False

    @property
    def is_over(self) -> bool:
        """Whether nothing can be asked over it any more."""
        return self._over or self.pid != os.getpid() or self.desk.core.end is not None

    # --- what callers want ---

    def acquire(
        self,
        grasp: Grasp,
        timeout: Optional[float] = None,
        on_queued: Optional[Callable[[int], None]] = None,
    ) -> None:
        """Waits until the locks are held. Raises what comes instead."""
        self._check_free()
        signal = Signal()
        grasp.wake = signal.set
        try:
            if not self._carry(grasp, self.desk.begin, signal):
                self._do(lambda: self._ask(grasp))
            answered = grasp.stage == HELD or self._wait_for(grasp, signal, timeout, on_queued)
        except BaseException:
            # It leaves the line, if it can now, before anybody goes on; else soon.
            self.drop(grasp)
            self._do_and_wait(nobody)
            raise
        if not answered:
            # Whether it is busy is not known: that the time is up, the coordinator would have said.
            self._do_and_wait(lambda: self.desk.cancel(grasp))
            raise silent(self.server, (timeout or 0) + ANSWER_GRACE)
        grasp.wake = nobody
        if grasp.error is not None:
            raise grasp.error
        if _clock.now() >= self.desk.believed_here_until(grasp):
            # It came, and was over before anybody could look.
            self.drop(grasp)
            raise grasp.lost_error()

    def _wait_for(
        self,
        grasp: Grasp,
        signal: Signal,
        timeout: Optional[float],
        on_queued: Optional[Callable[[int], None]],
    ) -> bool:
        """Until it is answered, or will not be; meanwhile tells each place in line."""
        give_up_at = None if timeout is None else time.monotonic() + timeout + ANSWER_GRACE
        with self._patience(grasp):
            while True:
                position, grasp.position = grasp.position, None
                if position is not None and on_queued is not None:
                    on_queued(position)
                if grasp.stage != WAITING:
                    return True
                left = None if give_up_at is None else max(give_up_at - time.monotonic(), 0)
                if not signal.wait(left):
                    return False

    def _ask(self, grasp: Grasp) -> None:
        try:
            self._check()
            self.desk.begin(grasp)
        except LockError as error:
            grasp.stage, grasp.error = REFUSED, error
            grasp.wake()

    def convert(self, grasp: Grasp, ask: Ask, timeout: Optional[float] = None) -> None:
        """Waits until what is held is held in other modes."""
        self._check_free()
        signal = Signal()
        errors: List[LockError] = []
        conversions: List[Conversion] = []

        def begin() -> None:
            try:
                self.desk.check_held(grasp)
                conversions.append(self.desk.convert(grasp, ask, signal.set))
            except LockError as error:
                errors.append(error)
                signal.set()

        try:
            self._do(begin)
            with self._patience(grasp):
                if not signal.wait(None if timeout is None else timeout + ANSWER_GRACE):
                    raise silent(self.server, (timeout or 0) + ANSWER_GRACE)
        except BaseException:
            # Nobody knows whether it was converted: both are given back.
            self.drop(grasp)
            self._do_and_wait(nobody)
            raise
        for error in errors + [one.error for one in conversions if one.error is not None]:
            raise error

    def release(self, grasp: Grasp) -> None:
        """Gives back what is held. It is given back when this is called, not when it returns.

        Raises `Unavailable` if nobody says that it is free.
        """
        unknown = self._release(grasp)
        if unknown is not None:
            raise unknown

    def _release(self, grasp: Grasp) -> Optional[LockError]:
        """Why it is not known to be free."""
        signal = Signal()
        errors: List[LockError] = []
        if grasp.stage == HELD:
            grasp.wake = signal.set
        is_carried = grasp.stage == HELD and self._carry(grasp, self.desk.release, signal)
        if not is_carried:
            self._do(lambda: self._give_back(grasp, signal, errors))
        if not (is_carried and grasp.answered):
            self._wait_until_free(grasp, signal, errors)
        return self._end_release(grasp, errors)

    def let_go(self, grasp: Grasp) -> None:
        """The same, and waits only where not everything is in order.

        What the server says of it is then heard by nobody. Only a loss that crosses the release on
        its way is new in that.
        """
        is_written = self._hand_in(grasp) if grasp.stage == HELD else None
        if is_written is None:
            self._release(grasp)
        elif not is_written:
            signal = Signal()
            grasp.wake = signal.set
            if not grasp.answered:
                self._wait_until_free(grasp, signal, [])
            self._end_release(grasp, [])

    def _wait_until_free(self, grasp: Grasp, signal: Signal, errors: List[LockError]) -> None:
        if is_mine(self._lock):
            return
        give_up_at = time.monotonic() + RELEASE_TIMEOUT
        with self._patience(grasp):
            while signal.wait(max(give_up_at - time.monotonic(), 0)):
                # Or it was told to read, which it does no more.
                if errors or grasp.answered:
                    return

    def _end_release(self, grasp: Grasp, errors: List[LockError]) -> Optional[LockError]:
        grasp.wake = nobody
        for error in errors:
            raise error
        if not grasp.answered and not is_mine(self._lock):
            return silent(self.server, RELEASE_TIMEOUT)
        return not_free(grasp)

    @contextlib.contextmanager
    def _patience(self, grasp: Grasp) -> Iterator[None]:
        """While it waits to be told by the session's thread."""
        try:
            self._wait_with_thread(grasp)
            yield
        finally:
            self._patient.discard(grasp)

    def _give_back(self, grasp: Grasp, signal: Signal, errors: List[LockError]) -> None:
        try:
            self.desk.check_held(grasp)
            grasp.wake = signal.set
            self.desk.release(grasp)
        except LockError as error:
            errors.append(error)
            signal.set()

    def end_wait(self, grasp: Grasp) -> None:
        """Ends somebody's wait with `Cancelled`."""

        def end() -> None:
            if grasp.stage == WAITING:
                self.desk.cancel(grasp)
                grasp.error = Cancelled(f'the wait for "{first_name(grasp.ask)}" was cancelled')
                self._settle()  # Who waited finds itself out of the line, as soon as can be.
                grasp.wake()

        self._do(end)

    def _do(self, work: Callable[[], None]) -> None:
        """Does it with the lock held, and then what follows from it.

        In the main thread an exception of a signal's handler can come between any two steps. So
        nothing is changed there: the thread of the session does it. Nor in a handler or destructor
        that came between the steps of this thread.
        """
        if self.is_forked:
            return work()
        self._step_aside()
        is_main = threading.get_ident() == threading.main_thread().ident
        if is_main or is_mine(self._lock):
            self._commands.append(work)
            self._wake()
            if not self._over:
                return
        with self._lock:
            self._mend()
            self._take_commands()
            if not is_main:
                work()
            self._settle()

    def _do_and_wait(self, work: Callable[[], None]) -> None:
        """The same, and waits a moment until it is done."""
        done = Signal()

        def both() -> None:
            self._take_dropped()
            work()
            done.set()

        self._do(both)
        if not is_mine(self._lock):
            done.wait(ANSWER_GRACE)

    def _check_free(self) -> None:
        """Raises where nobody can be waited for."""
        if is_mine(self._lock) and not self.is_forked:
            raise upon_a_step()

    def drop(self, grasp: Grasp) -> None:
        """Gives back what nobody refers to any more. Never waits, not even for the lock."""
        if not self.is_forked and not self._over:
            self._dropped.append(grasp)
            self._wake()

    def is_held(self, grasp: Grasp) -> bool:
        """Whether it is held now."""
        if grasp.is_forked:
            return False
        with self._locked():
            return self.desk.is_held(grasp)

    def state(self, grasp: Grasp) -> str:
        """``held``, ``jeopardy`` or ``lost``."""
        if grasp.is_forked:
            return "lost"
        with self._locked():
            return self.desk.state(grasp)

    def valid_for(self, grasp: Grasp) -> float:
        """For how many seconds it is held if nothing more is heard."""
        if grasp.is_forked:
            return 0.0
        with self._locked():
            return max(0, self.desk.believed_until(grasp) - _clock.now()) / 1e6

    def when_over(self, grasp: Grasp, listener: Callable[[], None]) -> None:
        """Calls it when the grasp is lost or released, from the thread, which it must not keep."""
        with self._locked():
            if grasp.stage in (WAITING, HELD):
                grasp.on_over.append(listener)
                return
        listener()

    def listen(self, feed: Feed) -> None:
        """From now on it hears what becomes of the session."""
        self._do_and_wait(lambda: self.desk.listen(feed))

    def listen_no_more(self, feed: Feed) -> None:
        """The opposite."""
        self._do(lambda: self.desk.listen_no_more(feed))

    def next_event(self, feed: Feed) -> Optional[SessionEvent]:
        """What it heard next, if anything."""
        with self._locked():
            return feed.pop()

    def lease_left(self) -> float:
        """For how many seconds the session lives if nothing more is heard."""
        with self._locked():
            return self.desk.lease_left() / 1e6

    @property
    def is_forked(self) -> bool:
        """Whether this is the copy of another process."""
        return self.pid != os.getpid()

    def _check(self) -> None:
        if self.is_forked or self._over:
            raise Closed("the client was closed")
        if self.desk.core.end is not None:
            raise self.desk.end_error()

    # --- the end ---

    def close(self) -> None:
        """Says goodbye, which frees everything at once, and waits a moment for its answer.

        A handler that came upon a step does not wait: it is said after that.
        """
        if self.is_forked:
            return
        self._do(self._close)
        self._wake()
        thread = self._thread
        is_here = thread is not None and thread.ident == threading.get_ident()
        if thread is not None and not is_here and not is_mine(self._lock):
            thread.join(FAREWELL_TIMEOUT * 2 + 0.5)

    def leave(self) -> None:
        """Says goodbye once nothing is held and nobody waits: whose client is gone. Never waits."""
        self._leaving = True
        self._wake()

    def give_up(self) -> None:
        """An attempt to open it failed."""
        with self._lock:
            if self.desk.core.end is None:
                self.desk.core.goodbye()
                self._settle()
            self._farewell_until = 0
            self._wake()
        if self._thread is None:
            self._dispose()
        else:
            self._thread.join(FAREWELL_TIMEOUT)

    def forget_parent(self) -> None:
        """In a process that was just forked: lets go of the copies without a word.

        The locks may be held by threads that are not here. Nothing is unregistered, for the poll is
        shared with the parent; closing the copies takes nothing away from it.
        """
        self._lock = threading.RLock()
        self._over = True
        for link in (self._link, self._second):
            if link is not None:
                link.users = 0  # They are not here.
        self._dispose()


def upon_a_step() -> LockError:
    """What a signal's handler is told that comes in the middle of a step."""
    return LockError(
        "a signal's handler interrupted this client, and cannot wait for a lock now",
        "let the handler set a flag, and use the lock after it",
    )


def _after_fork_in_child() -> None:
    for session in list(_sessions):
        session.forget_parent()
    _sessions.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


@_last.at_the_end
def _say_goodbye() -> None:
    for session in list(_sessions):
        if not session.is_over:
            session.close()
