"""The thread that owns a connection, and makes the next.

Callers tell the core what they want under one lock, write what it has to say, and sleep until the
thread wakes them. The thread waits for bytes, for connections and for the core's next deadline.
Nobody sleeps with the lock held, and the thread never waits for anything else: a lock that is lost
is told in time whatever the application does.

Only modules are imported, never names out of them, so that gevent and eventlet can put their own in
their place at any time: then the thread is a greenlet.
"""

from __future__ import annotations

import atexit
import collections
import os
import random
import selectors
import socket
import sys
import threading
import time
import weakref
from typing import Any, Callable, Deque, List, Optional, Tuple

from . import _clock, _core, _dial, _wire as wire
from ._core import Ask, Core, Introduction, Reconnect
from ._desk import HELD, LOST, REFUSED, WAITING, Conversion, Desk, Grasp
from ._errors import Cancelled, Closed, LockError, LockTimeout, NotHeld, unavailable, unknown_lock
from ._terms import first_name

FAREWELL_TIMEOUT = 1.0
RELEASE_TIMEOUT = 5.0
# A server that does not answer at the end of a timeout is given so long.
ANSWER_GRACE = 1.0
SLEEP_MAX = 3600.0
SWEEP_EVERY = 1.0
READ_BYTES_MAX = 64 * 1024
# Before 3.14, Ctrl-C on Windows does not wake who waits for a lock (cpython#125541).
WAIT_SLICE = 0.5 if sys.platform == "win32" else None

_sessions: "weakref.WeakSet[Session]" = weakref.WeakSet()


class _Signal:
    """Something that happens once, and who waits for it: an Event for a fifth of its price."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """It happens; a second time means nothing."""
        try:
            self._lock.release()
        except RuntimeError:
            pass

    def wait(self, timeout: Optional[float]) -> bool:
        """Until it happens; Ctrl-C and other signals' exceptions come through."""
        if timeout is None and WAIT_SLICE is None:
            return bool(self._lock.acquire())
        give_up_at = None if timeout is None else time.monotonic() + timeout
        while True:
            left = WAIT_SLICE
            if give_up_at is not None:
                rest = max(give_up_at - time.monotonic(), 0)
                left = rest if left is None else min(left, rest)
            if self._lock.acquire(timeout=min(left or 0, threading.TIMEOUT_MAX)):
                return True
            if give_up_at is not None and time.monotonic() >= give_up_at:
                return False


class _Link:
    """A connection: being made, or there."""

    def __init__(self, number: int):
        self.number = number
        self.sock: Optional[socket.socket] = None
        self.frames = wire.Frames()
        self.outbox = b""
        self.failure: Optional[OSError] = None
        self.watched = 0

    def put(self, data: bytes) -> None:
        if self.sock is not None and self.failure is None and data:
            self.outbox = self.outbox + data if self.outbox else data
            self.flush()

    def flush(self) -> None:
        """Writes what can be written without waiting."""
        while self.outbox and self.sock is not None:
            try:
                sent = self.sock.send(self.outbox)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                # What the server said before is still read: it may say why.
                self.failure, self.outbox = error, b""
                return
            self.outbox = self.outbox[sent:]

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None


def open_session(
    servers: List[_dial.Server],
    introduction: Introduction,
    connect_timeout: float,
    timeout: Optional[float] = None,
) -> "Session":
    """A session with the first server that welcomes us. Raises `Unavailable` and others."""
    timeout = connect_timeout if timeout is None else min(timeout, connect_timeout)
    give_up_at = time.monotonic() + timeout
    dialer = _dial.Dialer(servers, connect_timeout)
    for attempts_left in reversed(range(len(servers))):
        left = max(give_up_at - time.monotonic(), 0)
        share = min(left, timeout / len(servers)) if attempts_left else left
        session = Session(dialer, introduction)
        try:
            session.open(share)
            return session
        except BaseException as error:
            session.give_up()
            if not (attempts_left and isinstance(error, ConnectionError)):
                raise
    raise AssertionError("there is at least one server")


class Session:
    """A session with a coordinator, and the thread that keeps it alive."""

    def __init__(self, dialer: _dial.Dialer, introduction: Introduction):
        self.pid = os.getpid()
        self.server = _dial.shown(dialer.servers)
        self._introduction = introduction
        self._dialer = dialer
        self._lock = threading.Lock()
        self._link: Optional[_Link] = None
        self._second: Optional[_Link] = None
        self._begin()
        self._selector = selectors.DefaultSelector()
        self._inner, self._outer = socket.socketpair()
        self._inner.setblocking(False)
        self._outer.setblocking(False)
        self._dialed: Deque[Tuple[_Link, Any, int]] = collections.deque()
        # What was dropped without being released; a deque, for it may happen at any moment.
        self._dropped: Deque[Grasp] = collections.deque()
        # What the main thread wants done.
        self._commands: Deque[Callable[[], None]] = collections.deque()
        self._sleeps_until: Optional[int] = None
        self._thread: Optional[threading.Thread] = None
        self._farewell_until: Optional[float] = None
        self._sweep_at = 0.0
        self._over = False
        self._leaving = False
        self._welcome = threading.Event()
        _sessions.add(self)

    def _begin(self) -> None:
        """Hello is said now, and the lease counts from now."""
        attempt_max = int(self._dialer.timeout * _core.SECOND)
        reconnect = Reconnect(attempt_max, random.getrandbits(63))
        self.desk = Desk(Core(self._introduction, reconnect, _clock.now()), self.server)
        self.desk.on_welcome = self._welcomed

    # --- the first connection ---

    def open(self, timeout: float) -> None:
        """Connects, and waits for the welcome; not with the lock held, for the thread needs it."""
        give_up_at = time.monotonic() + timeout
        try:
            number, sock = _dial.connect_first(self._dialer.servers, self._dialer.begin(), timeout)
        except OSError as error:
            raise unavailable(self.server, error) from error
        self._dialer.reached(number)
        with self._lock:
            self._begin()
            self._link = _Link(self.desk.core.connection or 0)
            self._link.sock = sock
            self._thread = threading.Thread(
                target=self._run, name="coordinator-client", daemon=True
            )
        self._thread.start()
        self._wait_event(self._welcome, give_up_at - time.monotonic())
        with self._lock:
            if self.desk.core.end is not None:
                raise self.desk.end_error()
            if self.desk.welcome is None:
                raise unavailable(self.server, f"no answer within {timeout:.3g} s")

    def _welcomed(self) -> None:
        self._dialer.welcomed()
        self._welcome.set()

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

    def acquire(self, grasp: Grasp, timeout: Optional[float] = None) -> None:
        """Waits until the locks are held. Raises what comes instead."""
        signal = _Signal()
        grasp.wake, ask = signal.set, grasp.ask

        def begin() -> None:
            try:
                self._check()
                self.desk.begin(grasp)
            except LockError as error:
                grasp.stage, grasp.error = REFUSED, error
                signal.set()

        try:
            self._do(begin)
            answered = signal.wait(None if timeout is None else timeout + ANSWER_GRACE)
        except BaseException:
            # It leaves the line, if it can now, before anybody goes on; else soon.
            self.drop(grasp)
            self._do_and_wait(_nothing)
            raise
        if not answered:
            self._do_and_wait(lambda: self.desk.cancel(grasp))
            raise LockTimeout(unknown_lock(first_name(ask)), timeout or 0)
        grasp.wake = _nothing
        if grasp.error is not None:
            raise grasp.error
        if not self.is_held(grasp):
            # It came, and was over before anybody could look.
            self.drop(grasp)
            raise grasp.lost_error()

    def convert(self, grasp: Grasp, ask: Ask) -> None:
        """Waits until what is held is held in other modes."""
        signal = _Signal()
        errors: List[LockError] = []
        conversions: List[Conversion] = []

        def begin() -> None:
            try:
                self._check_held(grasp)
                conversions.append(self.desk.convert(grasp, ask, signal.set))
            except LockError as error:
                errors.append(error)
                signal.set()

        try:
            self._do(begin)
            signal.wait(None)
        except BaseException:
            # Nobody knows whether it was converted: both are given back.
            self.drop(grasp)
            self._do_and_wait(_nothing)
            raise
        for error in errors + [one.error for one in conversions if one.error is not None]:
            raise error

    def release(self, grasp: Grasp) -> None:
        """Gives back what is held. It is given back when this is called, not when it returns."""
        signal = _Signal()
        errors: List[LockError] = []

        def end() -> None:
            try:
                self._check_held(grasp)
                grasp.wake = signal.set
                self.desk.release(grasp)
            except LockError as error:
                errors.append(error)
                signal.set()

        self._do(end)
        signal.wait(RELEASE_TIMEOUT)
        grasp.wake = _nothing
        if grasp.error is not None and not isinstance(grasp.error, (ConnectionError, Closed)):
            errors.append(grasp.error)
        for error in errors:
            raise error

    def end_wait(self, grasp: Grasp) -> None:
        """Ends somebody's wait with `Cancelled`."""

        def end() -> None:
            if grasp.stage == WAITING:
                self.desk.cancel(grasp)
                grasp.error = Cancelled(f'the wait for "{first_name(grasp.ask)}" was cancelled')
                grasp.wake()

        self._do(end)

    def _do(self, work: Callable[[], None]) -> None:
        """Does it with the lock held, and then what follows from it.

        In the main thread an exception of a signal's handler can come between any two steps. So
        nothing is changed there: the thread of the session does it.
        """
        if self.is_forked:
            return work()
        if threading.current_thread() is threading.main_thread():
            self._commands.append(work)
            self._wake()
            if not self._over:
                return
        with self._lock:
            self._take_commands()
            if threading.current_thread() is not threading.main_thread():
                work()
            self._settle()

    def _do_and_wait(self, work: Callable[[], None]) -> None:
        """The same, and waits a moment until it is done."""
        done = _Signal()

        def both() -> None:
            self._take_dropped()
            work()
            done.set()

        self._do(both)
        done.wait(ANSWER_GRACE)

    def _take_commands(self) -> None:
        while self._commands:
            self._commands.popleft()()

    def _sweep(self) -> None:
        """Finds what nobody refers to any more, where a destructor was interrupted, too."""
        now = time.monotonic()
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_EVERY
        for grasp in list(self.desk.grasps.values()):
            if grasp.owner is not None and grasp.owner() is None:
                self._dropped.append(grasp)
        self._take_dropped()

    def _take_dropped(self) -> None:
        while self._dropped:
            grasp = self._dropped.popleft()
            if grasp.stage == HELD:
                self.desk.release(grasp)
            elif grasp.stage == WAITING:
                self.desk.cancel(grasp)

    def drop(self, grasp: Grasp) -> None:
        """Gives back what nobody refers to any more. Never waits, not even for the lock."""
        if not self.is_forked and not self._over:
            self._dropped.append(grasp)
            self._wake()

    def is_held(self, grasp: Grasp) -> bool:
        """Whether it is held now."""
        if grasp.is_forked:
            return False
        with self._lock:
            return self.desk.is_held(grasp)

    def state(self, grasp: Grasp) -> str:
        """``held``, ``jeopardy`` or ``lost``."""
        if grasp.is_forked:
            return "lost"
        with self._lock:
            return self.desk.state(grasp)

    def valid_for(self, grasp: Grasp) -> float:
        """For how many seconds it is held if nothing more is heard."""
        if grasp.is_forked:
            return 0.0
        with self._lock:
            return max(0, self.desk.believed_until(grasp) - _clock.now()) / 1e6

    def when_over(self, grasp: Grasp, listener: Callable[[], None]) -> None:
        """Calls it when the grasp is lost or released, from the thread, which it must not keep."""
        with self._lock:
            if grasp.stage in (WAITING, HELD):
                grasp.on_over.append(listener)
                return
        listener()

    @property
    def is_forked(self) -> bool:
        """Whether this is the copy of another process."""
        return self.pid != os.getpid()

    def _check(self) -> None:
        if self.is_forked or self._over:
            raise Closed("the client was closed")
        if self.desk.core.end is not None:
            raise self.desk.end_error()

    def _check_held(self, grasp: Grasp) -> None:
        if grasp.is_forked or self.is_forked:
            raise NotHeld(
                f'"{first_name(grasp.ask)}" is held by the process that forked this one',
                "acquire it in this process",
            )
        if grasp.stage not in (HELD, LOST):
            raise NotHeld(f'"{first_name(grasp.ask)}" is not held by this object')
        if not self.desk.is_held(grasp):
            if grasp.stage == HELD:
                # Our clock knows, and the core is told at once.
                self.desk.core.tick(_clock.now())
                self._settle()
            raise grasp.lost_error()

    # --- with the lock held ---

    def _settle(self) -> None:
        """Tells who waits, writes what there is to say, wakes the thread if need be."""
        core, link = self.desk.core, self._link
        data = self.desk.settle()
        if link is not None and (link.number == core.connection or core.end is not None):
            link.put(data)
        if core.end is not None:
            self._welcome.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            deadline = core.next_deadline()
            sooner = deadline is not None and (
                self._sleeps_until is None or deadline < self._sleeps_until
            )
            unwritten = link is not None and bool(link.outbox)
            moved = (link.number if link else None) != core.connection
            if sooner or unwritten or moved or core.end is not None:
                self._wake()

    def _wake(self) -> None:
        try:
            self._outer.send(b"\0")
        except OSError:
            pass  # It is full, so it wakes; or closed, and nobody is there.

    # --- the thread ---

    def _run(self) -> None:
        pid = self.pid
        try:
            self._selector.register(self._inner, selectors.EVENT_READ, None)
            with self._lock:
                timeout = self._turn()
            while timeout is not None and os.getpid() == pid:
                ready = self._selector.select(timeout)
                with self._lock:
                    for key, events in ready:
                        self._handle(key.data, events)
                    timeout = self._turn()
        except Exception as error:  # Whoever waits must not wait for a thread that is gone.
            with self._lock:
                if os.getpid() == pid and self.desk.core.end is None:
                    self.desk.core.protocol_broken(f"the client failed: {error!r}")
                    self.desk.settle()
            self._over = True
            self._welcome.set()
            raise
        finally:
            if os.getpid() == pid:
                self._dispose()
                with self._lock:
                    self._take_commands()

    def _handle(self, link: Optional[_Link], events: int) -> None:
        if link is None:
            try:
                self._inner.recv(4096)
            except OSError:
                pass
            return
        if events & selectors.EVENT_WRITE:
            link.flush()
        if events & selectors.EVENT_READ and link.sock is not None:
            self._read(link)

    def _read(self, link: _Link) -> None:
        core = self.desk.core
        assert link.sock is not None
        try:
            data = link.sock.recv(READ_BYTES_MAX)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            return self._connection_over(link, link.failure or error)
        # The time is taken after the read, never before.
        now = _clock.now()
        if not data:
            return self._connection_over(link, link.failure)
        try:
            for payload in link.frames.feed(data):
                message = wire.decode_server(payload)
                # Once the second is welcome, it is the connection.
                if core.connection == link.number:
                    core.receive(message, now)
                elif core.second_connection == link.number:
                    core.receive_second(message, now)
        except wire.WireError as error:
            if core.connection == link.number:
                core.protocol_broken(str(error))
            else:
                core.second_lost(now)

    def _connection_over(self, link: _Link, error: Optional[OSError]) -> None:
        core, now = self.desk.core, _clock.now()
        self._forget(link)
        if core.end is not None:
            self._farewell_until = 0
        elif core.connection == link.number:
            self.desk.cause = error
            core.connection_lost(now)
        elif core.second_connection == link.number:
            core.second_lost(now)

    def _turn(self) -> Optional[float]:
        """Does what there is to do; for how long to sleep, None: no more."""
        core = self.desk.core
        self._take_commands()
        self._take_dropped()
        self._sweep()
        if self._leaving and not self.desk.grasps:
            core.goodbye()
        self._take_dialed()
        core.tick(_clock.now())
        if core.end is None:
            self._follow()
        self._settle()
        if core.end is not None:
            return self._leave()
        for link in (self._link, self._second):
            self._watch(link)
        self._sleeps_until = deadline = core.next_deadline()
        if deadline is None:
            return SLEEP_MAX
        return min(max(deadline - _clock.now(), 0) / 1e6, SLEEP_MAX)

    def _take_dialed(self) -> None:
        core = self.desk.core
        while self._dialed:
            link, result, number = self._dialed.popleft()
            if link is not self._link and link is not self._second:
                if isinstance(result, socket.socket):
                    result.close()
                continue
            now, is_first = _clock.now(), core.connection == link.number
            if not isinstance(result, socket.socket):
                if is_first:
                    self.desk.cause = result
                    core.connection_lost(now)
                else:
                    core.second_lost(now)
                continue
            link.sock = result
            self._dialer.reached(number)
            if is_first:
                core.connected(now)
            else:
                hello = core.second_connected(now)
                if hello is not None:
                    link.put(wire.encode(hello))

    def _follow(self) -> None:
        """Gives up the connections that are not wanted any more, begins to make those that are."""
        core = self.desk.core
        wanted = core.connection
        if wanted != (self._link.number if self._link else None):
            if self._link is not None:
                self._forget(self._link)
            if self._second is not None and self._second.number == wanted:
                self._link, self._second = self._second, None
            else:
                self._link = None if wanted is None else self._dial(wanted)
        wanted = core.second_connection
        if wanted != (self._second.number if self._second else None):
            if self._second is not None:
                self._forget(self._second)
            self._second = None if wanted is None else self._dial(wanted)

    def _dial(self, number: int) -> _Link:
        link, first = _Link(number), self._dialer.begin()

        def dial() -> None:
            def is_wanted() -> bool:
                return not self._over and (link is self._link or link is self._second)

            result: Any
            try:
                reached, result = _dial.connect_first(
                    self._dialer.servers, first, self._dialer.timeout, is_wanted
                )
            except OSError as error:
                reached, result = -1, error
            self._dialed.append((link, result, reached))
            self._wake()

        # Only once the link is known to be wanted is it looked for.
        starter = threading.Thread(target=dial, name="coordinator-client-dial", daemon=True)
        link_is_known = number == self.desk.core.connection
        if link_is_known:
            self._link = link
        else:
            self._second = link
        starter.start()
        return link

    def _watch(self, link: Optional[_Link]) -> None:
        if link is None or link.sock is None:
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.outbox else 0)
        if not link.watched:
            self._selector.register(link.sock, events, link)
        elif link.watched != events:
            self._selector.modify(link.sock, events, link)
        link.watched = events

    def _forget(self, link: _Link) -> None:
        if link.sock is not None:
            if link.watched:
                self._selector.unregister(link.sock)
                link.watched = 0
            link.close()
        if link is self._link:
            self._link = None
        if link is self._second:
            self._second = None

    def _leave(self) -> Optional[float]:
        """Brings the last words out, and waits a moment for the server to have heard them."""
        links = [link for link in (self._link, self._second) if link and link.sock]
        if self._farewell_until is None:
            if self._second is not None:
                # Over a second connection too, whose Hello the server may have heard.
                self._second.put(wire.encode(wire.Goodbye()))
            self._farewell_until = time.monotonic() + FAREWELL_TIMEOUT
        left = self._farewell_until - time.monotonic()
        if not links or left <= 0:
            return None
        for link in links:
            self._watch(link)
        return left

    def _dispose(self) -> None:
        """Closes everything. Nobody uses it any more."""
        self._over = True
        for link in (self._link, self._second):
            if link is not None:
                link.close()
        self._selector.close()
        self._inner.close()
        self._outer.close()

    # --- the end ---

    def close(self) -> None:
        """Says goodbye, which frees everything at once, and waits a moment for its answer."""
        if self.is_forked:
            return
        self._do(lambda: self.desk.core.goodbye())
        self._wake()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(FAREWELL_TIMEOUT + 0.5)

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
        self._lock = threading.Lock()
        self._over = True
        self._dispose()


def _nothing() -> None:
    pass


def _after_fork_in_child() -> None:
    for session in list(_sessions):
        session.forget_parent()
    _sessions.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


@atexit.register
def _say_goodbye() -> None:
    for session in list(_sessions):
        if not session.is_over:
            session.close()
