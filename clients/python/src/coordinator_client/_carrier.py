"""The thread that owns a connection, and makes the next.

It waits for bytes, for connections and for the core's next deadline, and never for anything else: a
lock that is lost is told in time whatever the application does. Everything else is done with its
lock held, and nobody sleeps while holding that.

Only modules are imported, never names out of them, so that gevent and eventlet can put their own in
their place at any time: then the thread is a greenlet.
"""

from __future__ import annotations

import collections
import os
import selectors
import socket
import threading
import time
from typing import Any, Callable, Deque, List, Optional, Tuple

from . import _clock, _core, _dial, _search, _wire as wire
from ._core import Core, Introduction, Reconnect
from ._desk import HELD, WAITING, Desk, Grasp
from ._link import Link

FAREWELL_TIMEOUT = 1.0
SLEEP_MAX = 3600.0
SWEEP_EVERY = 1.0
READ_BYTES_MAX = 64 * 1024


class Carrier:
    """A session's thread, its connections and its core."""

    def __init__(self, dialer: _search.Dialer, introduction: Introduction):
        self.pid = os.getpid()
        self.server = _dial.shown(dialer.servers)
        self._introduction = introduction
        self._dialer = dialer
        # One that knows whose it is: see `_lane`.
        self._lock = threading.RLock()
        self._link: Optional[Link] = None
        self._second: Optional[Link] = None
        self._begin()
        self._selector = selectors.DefaultSelector()
        self._inner, self._outer = socket.socketpair()
        self._inner.setblocking(False)
        self._outer.setblocking(False)
        self._dialed: Deque[Tuple[Link, Any, Optional[_dial.Server]]] = collections.deque()
        # What was dropped without being released; a deque, for it may happen at any moment.
        self._dropped: Deque[Grasp] = collections.deque()
        # What the main thread wants done.
        self._commands: Deque[Callable[[], None]] = collections.deque()
        # What is to be told by a thread that could not be started.
        self._unstarted: List[threading.Thread] = []
        # What was read by who cannot be the one to hear it, and when.
        self._unread: Deque[Tuple[Link, bytes, int]] = collections.deque()
        # The connection, while everything is in order and nothing is left to the thread.
        self._smooth: Optional[Link] = None
        # When the thread is awake at the latest.
        self._sleeps_until: Optional[int] = None
        self._thread: Optional[threading.Thread] = None
        self._farewell_until: Optional[float] = None
        # Whether an interrupt has cost it its connection, and until when a goodbye waits for another.
        self._is_cut = False
        self._closes_at: Optional[float] = None
        self._sweep_at = 0.0
        self._over = False
        self._leaving = False
        self._welcome = threading.Event()

    def _begin(self) -> None:
        """Hello is said now, and the lease counts from now."""
        attempt_max = int(self._dialer.timeout * _core.SECOND)
        reconnect = Reconnect(attempt_max, _clock.seed(), len(self._dialer.servers))
        self.desk = Desk(Core(self._introduction, reconnect, _clock.now()), self.server)
        self.desk.on_welcome = self._welcomed
        self.desk.peer = lambda: self._dialer.peer

    def _welcomed(self) -> None:
        self._is_cut = False
        self._dialer.welcomed()
        self._welcome.set()

    # --- with the lock held ---

    def _settle(self) -> None:
        """Tells who waits, writes what there is to say, wakes the thread if need be."""
        core, link = self.desk.core, self._link
        data = self.desk.settle()
        if link is not None and (link.number == core.connection or core.end is not None):
            link.put(data)
        if core.end is not None:
            self._welcome.set()
        if self._thread is not None and self._thread.ident != threading.get_ident():
            deadline = self.desk.next_deadline()
            sooner = deadline is not None and (
                self._sleeps_until is None or deadline < self._sleeps_until
            )
            unwritten = link is not None and link.is_stuck
            moved = (link.number if link else None) != core.connection
            if sooner or unwritten or moved or core.end is not None:
                self._wake()

    # Never `threading.current_thread()`: it makes a Thread for one of another library, for ever.

    def _wake(self) -> None:
        """There is something that the thread has to do first."""
        self._smooth = None
        self._ring()

    def _ring(self) -> None:
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
                    self._mend()
                    while self._unread:
                        self._hear(*self._unread.popleft())
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
                with self._lock:
                    self._dispose()
                    self._take_commands()

    def _handle(self, link: Optional[Link], events: int) -> None:
        if link is None:
            try:
                self._inner.recv(4096)
            except OSError:
                pass
            return
        if events & selectors.EVENT_WRITE:
            link.flush()
        if events & selectors.EVENT_READ and link.sock is not None and not self._is_read(link):
            self._read(link)

    def _read(self, link: Link) -> None:
        assert link.sock is not None
        try:
            data = link.sock.recv(READ_BYTES_MAX)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            # What TLS was told says more than that nothing can be written.
            why = error if hasattr(error, "hint") else link.failure or error
            return self._connection_over(link, why)
        # The time is taken after the read, never before.
        self._hear(link, data, _clock.now())

    def _hear(self, link: Link, data: bytes, now: int) -> None:
        """What was read comes to the core."""
        if data:
            self.desk.hear(link.number, link.frames, data, now)
        else:
            self._connection_over(link, link.failure)

    def _connection_over(self, link: Link, error: Optional[OSError]) -> None:
        self._forget(link)
        if self.desk.core.end is not None:
            self._farewell_until = 0
        else:
            self.desk.lose(link.number, error, _clock.now())

    def _turn(self) -> Optional[float]:
        """Does what there is to do; for how long to sleep, None: no more."""
        core = self.desk.core
        while self._unread:
            self._hear(*self._unread.popleft())
        self._mend()
        # What was given up, before what is wanted after that.
        self._take_dropped()
        self._take_commands()
        self._sweep()
        if self._leaving and not self.desk.grasps:
            core.goodbye()
        if self._closes_at is not None:
            self._close()
        self._take_dialed()
        core.tick(_clock.now())
        if core.end is None:
            self._follow()
        self._settle()
        if core.end is not None:
            return self._leave()
        for link in (self._link, self._second):
            self._watch(link)
        self._sleeps_until = deadline = self.desk.next_deadline()
        left = SLEEP_MAX
        if deadline is not None:
            left = min(max(deadline - _clock.now(), 0) / 1e6, SLEEP_MAX)
        is_smooth = core.is_open and self._second is None
        self._smooth = self._link if is_smooth else None
        if self._unstarted:
            left = min(left, SWEEP_EVERY)
        if self._closes_at is not None:
            left = min(left, max(self._closes_at - time.monotonic(), 0))
        # Last, for whoever leaves something does that first, and then wakes.
        if self._commands or self._dropped or self._unread or self._leaving:
            self._smooth = None
        return self._look_again(left)

    def _take_dialed(self) -> None:
        core = self.desk.core
        while self._dialed:
            link, result, server = self._dialed.popleft()
            if link is not self._link and link is not self._second:
                if not isinstance(result, OSError):
                    result.close()
                continue
            now, is_first = _clock.now(), core.connection == link.number
            if isinstance(result, OSError):
                if is_first:
                    self.desk.cause = result
                    core.connection_lost(now)
                else:
                    core.second_lost(now)
                continue
            link.sock = result
            if server is not None:
                self._dialer.reached(server)
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

    def _dial(self, number: int) -> Link:
        core = self.desk.core
        is_second = number != core.connection
        link, plan = Link(number), self._dialer.begin(core.hint(number), is_second)

        def dial() -> None:
            def is_wanted() -> bool:
                return not self._over and (link is self._link or link is self._second)

            server: Optional[_dial.Server] = None
            result: Any
            try:
                server, result = plan.connect(self._dialer.timeout, is_wanted)
            except OSError as error:
                result = error
            self._dialed.append((link, result, server))
            self._wake()

        # Only once the link is known to be wanted is it looked for.
        starter = threading.Thread(target=dial, name="coordinator-client-dial", daemon=True)
        link_is_known = number == self.desk.core.connection
        if link_is_known:
            self._link = link
        else:
            self._second = link
        try:
            starter.start()
        except RuntimeError as error:
            # There are as many as there can be; perhaps less in a moment.
            self._dialed.append((link, OSError(str(error)), None))
            self._wake()
        return link

    def _watch(self, link: Optional[Link]) -> None:
        if link is None or link.sock is None:
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.is_stuck else 0)
        if not link.watched:
            self._selector.register(link.sock, events, link)
        elif link.watched != events:
            self._selector.modify(link.sock, events, link)
        else:
            return
        link.watched, link.is_hidden = events, False

    def _forget(self, link: Link) -> None:
        self._smooth = None
        if link.sock is not None:
            if link.watched:
                self._selector.unregister(link.sock)
                link.watched = 0
            link.close()
        if link is self._link:
            self._link = None
        if link is self._second:
            self._second = None

    def _close(self) -> None:
        """Says goodbye; over another connection, if an interrupt has cost it this one: soon, or never."""
        now = time.monotonic()
        if self._closes_at is None:
            self._closes_at = now + FAREWELL_TIMEOUT
        if self.desk.core.is_open or not self._is_cut or now >= self._closes_at:
            self._closes_at = None
            self.desk.core.goodbye()

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
        self._over, self._smooth = True, None
        for link in (self._link, self._second):
            if link is not None:
                link.close()
        self._selector.close()
        self._inner.close()
        self._outer.close()

    # --- what was left to it ---

    def _mend(self) -> None:
        raise NotImplementedError

    def _look_again(self, left: float) -> float:
        raise NotImplementedError

    def _is_read(self, link: Link) -> bool:
        raise NotImplementedError

    def _take_commands(self) -> None:
        while self._commands:
            self._commands.popleft()()

    def start_soon(self, thread: threading.Thread) -> None:
        """Starts it; where there are as many threads as there can be, once there are less."""
        try:
            thread.start()
        except RuntimeError:
            self._unstarted.append(thread)

    def _sweep(self) -> None:
        """Finds what nobody refers to any more, where a destructor was interrupted, too."""
        now = time.monotonic()
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_EVERY
        unstarted, self._unstarted = self._unstarted, []
        for thread in unstarted:
            self.start_soon(thread)
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
