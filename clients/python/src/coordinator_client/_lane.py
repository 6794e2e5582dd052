"""The short way: who waits reads.

Asking the session's thread costs two switches between threads, which is more than all the rest. So
who asks writes the question, and one of those who wait for answers reads at the socket for all of
them (leader and followers). The session's thread does not watch it meanwhile: while locks are used
one after the other, it only looks every few milliseconds whether that is over. Who has no answer
after a moment goes the long way, and is told by the session's thread: somebody holds the lock, for
who knows how long.

In the main thread an exception of a signal's handler can come between any two steps. While it waits
nothing is lost by that. At any other step nobody knows what was read and written: the session's
thread makes another connection then, over which the session goes on, and gives up what was asked.
So the main thread hears nothing but its own answers.

Such a handler, or a destructor, may also use a lock itself, in the middle of a step. It changes
nothing then: what it wants is done after it.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
import struct
import threading
from typing import Any, Callable, Iterator, List, Optional, Set

from . import _clock, _search, _wire as wire
from ._carrier import READ_BYTES_MAX, Carrier
from ._core import Introduction
from ._desk import HELD, WAITING, Grasp
from ._link import Link, Signal

READ = selectors.EVENT_READ
# How long to wait for an answer at the socket.
ANSWER_MS = 5
# How often the session's thread looks whether locks are still used one after the other, in
# microseconds: what comes while nobody reads is heard so much later at most.
LOOK_EVERY = 10_000
# What came so long before the end of a body, in microseconds, is heard by it.
UNHEARD_MAX = 1_000
# How an answer begins.
_BEGINS = struct.Struct("<IIQ")
_GRANT, _RELEASED = map(wire.CHOICES["ServerMessage"].index, (wire.Grant, wire.Released))


class Lane(Carrier):
    """A session whose callers carry their own."""

    def __init__(self, dialer: _search.Dialer, introduction: Introduction):
        super().__init__(dialer, introduction)
        # Only Linux lets another thread say what a selector waits for; greenlets need none of this.
        polls = getattr(self._selector, "_selector", None)
        is_epoll = hasattr(select, "epoll") and isinstance(polls, select.epoll)
        self._epoll = polls if is_epoll and hasattr(select, "poll") else None
        self._main_thread = threading.main_thread().ident
        # Who is in the middle of a step, if nobody interrupted it: with the session's lock.
        self._stepping: Optional[Grasp] = None
        # What was left behind in the middle of a word.
        self._broken: Optional[Link] = None
        # Who reads, where, and in which thread.
        self._reader: Optional[Grasp] = None
        self._read_link: Optional[Link] = None
        self._reads_in: Optional[int] = None
        # Who waits for what it reads, and may read next.
        self._followers: List[Signal] = []
        # Who waits for what the session's thread reads.
        self._patient: Set[Grasp] = set()
        # Whether the session's thread looks again soon by itself; how often somebody asked, until
        # it looked last; and when somebody did.
        self._looks_soon = False
        self._asked = 0
        self._asked_before = 0
        self._asked_at = 0
        # When that was hidden the last time from the session's thread.
        self._hidden_at = 0
        # When something was read the last time.
        self._heard_at = 0

    # --- who asks ---

    def _carry(self, grasp: Grasp, ask: Callable[[Grasp], object], signal: Signal) -> bool:
        """Asks, and waits a moment for the answer; False if nothing was asked."""
        if is_mine(self._lock):
            return False  # A handler that came upon a step.
        self._step_aside()
        link: Optional[Link] = None
        try:
            with self._lock:
                link = self._free_link(grasp)
                if link is None:
                    return False
                sock, self._stepping = link.sock, grasp
                is_main = threading.get_ident() == self._main_thread
                reads = self._reader is None and not (is_main and self._followers)
                if reads:
                    # First, or the session's thread would hear the answer.
                    self._begin_to_read(link, grasp)
                elif not is_main:
                    self._followers.append(signal)
                data = self._say(link, grasp, ask)
                self._stepping = None
            if data:
                self._write(link, sock, data)
            if reads:
                self._read_for_all(link, sock, grasp)
            elif not is_main:
                self._follow_reader(link, grasp, signal)
        except BaseException:
            self._tear(link, grasp)
            if signal in self._followers:
                self._followers.remove(signal)
            raise
        return True

    def _hand_in(self, grasp: Grasp) -> Optional[bool]:
        """Releases without waiting for the answer; whether that is written.

        None: nothing was done.
        """
        if is_mine(self._lock):
            return None
        self._step_aside()
        link: Optional[Link] = None
        try:
            with self._lock:
                link = self._free_link(grasp)
                if link is None:
                    return None
                sock, self._stepping = link.sock, grasp
                if self._is_unheard(link) and self._hear_answers(link, grasp, _receive(sock)):
                    link = self._free_link(grasp)
                data = b"" if link is None else self._say(link, grasp, self.desk.release)
                self._stepping = None
            if link is not None and data:
                self._write(link, sock, data)
        except BaseException:
            self._tear(link, grasp)
            raise
        return None if link is None else link.failure is None and not link.is_stuck

    def _is_unheard(self, link: Link) -> bool:
        """Whether a loss may have come, and nobody has looked for a while."""
        is_read = not link.is_hidden or self._reader is not None
        return not is_read and self._asked_at - self._heard_at > UNHEARD_MAX

    def _say(self, link: Link, grasp: Grasp, ask: Callable[[Grasp], object]) -> bytes:
        """Asks; what is left to be written without the session's lock."""
        ask(grasp)
        data = self.desk.settle()
        self._asked += 1
        if data and link.writer is None and self._is_alone(link.sock):
            link.writer = grasp
            link.users += 1
            return data
        link.put(data)
        if link.is_stuck:
            self._wake()
        return b""

    def _is_alone(self, sock: Any) -> bool:
        """Whether this thread may use the socket without the session's lock: else all the others
        would sooner or later wait for that. Nothing interrupts it, and there is no TLS.
        """
        return isinstance(sock, socket.socket) and threading.get_ident() != self._main_thread

    def _write(self, link: Link, sock: Any, data: bytes) -> None:
        """Writes it, and what others say meanwhile."""
        while data:
            failure: Optional[OSError] = None
            sent = 0
            try:
                sent = sock.send(data)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as error:
                failure = error
            with self._lock:
                if failure is not None:
                    # What the server said before is still read: it may say why.
                    link.failure, link.outbox = failure, b""
                is_whole = failure is None and sent == len(data)
                data, link.outbox = (data[sent:] if failure is None else b"") + link.outbox, b""
                if not is_whole or not data or link.sock is not sock:
                    link.outbox, data, link.writer = data, b"", None
                    link.leave(sock)
                    if link.is_stuck:
                        self._wake()

    def _free_link(self, grasp: Grasp) -> Optional[Link]:
        """The connection, if everything is in order."""
        link, due = self._smooth, self._sleeps_until
        self._asked_at = now = _clock.now()
        if (
            link is None
            or self._epoll is None
            or (self._stepping is not None and self._stepping is not grasp)
            or link.watched != READ
            or link.is_stuck
            or link.failure is not None
            or self.pid != os.getpid()
            or due is None
            or due <= now
        ):
            return None
        if grasp.stage != WAITING and (
            grasp.conversion is not None or now >= self.desk.believed_here_until(grasp)
        ):
            return None
        if threading.get_ident() == self._main_thread and (
            # Another connection would come too late, or a listener would run in it.
            self._introduction.linger_ms is not None or grasp.on_over
        ):
            return None
        return link

    # --- who reads ---

    def _read_for_all(self, link: Link, sock: Any, grasp: Grasp) -> None:
        """Until one's own answer, or for a moment."""
        until, is_alone = 0, self._is_alone(sock)
        while self._reader is grasp:
            link.wait(ANSWER_MS)
            data = _receive(sock) if is_alone else None
            with self._lock:
                if self._reader is grasp:
                    if self._stepping is not None:
                        # Somebody was interrupted: this is a connection no more.
                        self._reader = None
                        break
                    self._stepping = grasp
                    self._hear_answers(link, grasp, data if is_alone else _receive(sock))
                    self._stepping = None
                    now = 0 if grasp.is_told else _clock.now()
                    until = until or now + ANSWER_MS * 1_000
                    if grasp.is_told or now >= until or self._unread or link is not self._link:
                        self._hand_over(link)
                elif data is not None:
                    # Something came between that wanted a lock, too.
                    self._unread.append((link, data, _clock.now()))
                    self._wake()
        if is_alone:
            with self._lock:
                link.leave(sock)

    def _follow_reader(self, link: Link, grasp: Grasp, signal: Signal) -> None:
        """The same while somebody else reads, or in its place once it is done."""
        is_next, sock = False, link.sock
        while signal.wait(ANSWER_MS / 1_000) and not grasp.is_told:
            with self._lock:
                is_next = self._reader is None and link is self._link and self._stepping is None
                is_next = is_next and sock is not None and sock is link.sock
                if is_next:
                    self._begin_to_read(link, grasp)
                    break
        self._followers.remove(signal)
        if is_next:
            self._read_for_all(link, sock, grasp)
        elif self._reader is None:
            # Perhaps it was to be this one.
            with self._lock:
                if self._reader is None:
                    self._hand_over(link)

    def _begin_to_read(self, link: Link, grasp: Grasp) -> None:
        self._reader, self._read_link, self._reads_in = grasp, link, threading.get_ident()
        if self._is_alone(link.sock):
            link.users += 1
        if not link.is_hidden and self._epoll is not None and link.sock is not None:
            self._epoll.modify(link.sock, 0)
            link.is_hidden = True
            if self._asked_at - self._hidden_at < LOOK_EVERY and not self._looks_soon:
                # One after the other.
                self._looks_soon = True
                self._ring()
            self._hidden_at = self._asked_at

    def _hand_over(self, link: Link) -> None:
        """To another one who waits, else to the session's thread."""
        self._reader = None
        for signal in self._followers:
            if not signal.is_set():
                return signal.set()
        if self._patient or not self._looks_soon:
            self._watch_again(link)

    def _wait_with_thread(self, grasp: Grasp) -> None:
        """From now on it is told by the session's thread."""
        self._patient.add(grasp)
        if self._reader is None:
            with self._locked():
                if self._reader is None:
                    self._watch_again(self._link)

    def _hear_answers(self, link: Link, grasp: Grasp, data: Optional[bytes]) -> bool:
        """Tells who is told by what was read; whether anything was."""
        if data is None or link is not self._link:
            return False
        self._heard_at = now = _clock.now()
        is_main = threading.get_ident() == self._main_thread
        if is_main and not self._are_own(data, link, grasp):
            self._unread.append((link, data, now))
            self._wake()
        elif data and self.desk.hear(link.number, link.frames, data, now):
            link.put(self.desk.settle())
        else:
            if not data:
                self._connection_over(link, link.failure)
            self._settle()
        if link.is_stuck:
            self._wake()
        return True

    def _are_own(self, data: bytes, link: Link, grasp: Grasp) -> bool:
        """Whether these are frames for whoever reads, or for nobody, and nothing else."""
        at, end = 0, len(data)
        while end - at >= _BEGINS.size:
            length, kind, number = _BEGINS.unpack_from(data, at)
            at += 4 + length
            if kind != _RELEASED and (kind != _GRANT or number != grasp.number):
                return False
            other = self.desk.grasps.get(number)
            if other is not None and other is not grasp and other.is_awaited:
                return False
        return 0 < at == end and not link.frames.is_cut

    def _watch_again(self, link: Optional[Link]) -> None:
        if link is None or not link.is_hidden or self._epoll is None:
            return
        if link.sock is not None and link.watched:
            # The session's thread may want to write meanwhile.
            writes = select.EPOLLOUT if link.watched & selectors.EVENT_WRITE else 0
            self._epoll.modify(link.sock, select.EPOLLIN | writes)
            link.is_hidden = False

    # --- what comes between ---

    def _step_aside(self) -> None:
        """A handler came upon a wait at the socket, and waits itself: the session's thread hears
        both.
        """
        if (
            self._reader is None
            or self._reads_in != threading.get_ident()
            or is_mine(self._lock)
        ):
            return
        with self._locked():
            link, self._reader = self._read_link, None
            if link is not None:
                link.leave_wait()
                self._watch_again(link)
                if self._is_alone(link.sock):
                    # It may have something in its hands that comes before what is read next.
                    self._broken = link
                    self._wake()

    def _tear(self, link: Optional[Link], grasp: Grasp) -> None:
        """An exception came between any two steps."""
        is_main = threading.get_ident() == self._main_thread
        if self._reader is grasp:
            self._reader = None
            # What was read may be lost with it.
            self._broken = self._broken if is_main else link
        if link is not None and link.writer is grasp:
            link.writer, self._broken = None, link
        self._unlock()
        self._wake()

    def _unlock(self) -> None:
        """Before 3.11 an interrupt can come between the end of a body and its release."""
        if is_mine(self._lock):
            self._lock.release()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """With the lock held, whatever comes; also by a handler that came upon a step."""
        is_within = is_mine(self._lock)
        try:
            with self._lock:
                yield
        except BaseException:
            if not is_within:
                self._unlock()
            raise

    # --- the session's thread ---

    def _mend(self) -> None:
        """Goes on after an interrupt: a step that is not over, while nobody can be in it."""
        grasp, link, broken = self._stepping, self._link, self._broken
        if grasp is None and broken is None:
            return
        self._stepping = self._broken = None
        if grasp is not None:
            self.desk.settle()
        if link is not None and (grasp is not None or broken is link):
            self._forget(link)
            self._is_cut = True
            self.desk.core.connection_cut(_clock.now())
        if grasp is not None:
            self.desk.abandon(grasp)

    def _is_read(self, link: Link) -> bool:
        return self._reader is not None and link is self._read_link

    def _look_again(self, left: float) -> float:
        """For how long to sleep: shorter while others read."""
        if not self._looks_soon:
            if self._reader is None:
                self._watch_again(self._link)
            return left
        if self._reader is None and self._asked == self._asked_before:
            self._looks_soon = False
            self._watch_again(self._link)
            return left
        self._asked_before = self._asked
        return min(left, LOOK_EVERY / 1e6)


def _receive(sock: Any) -> Optional[bytes]:
    """Reads; None if nothing came."""
    try:
        data: bytes = sock.recv(READ_BYTES_MAX)
        return data
    except OSError:
        return None  # Or the session's thread hears the same.


def is_mine(lock: Any) -> bool:
    """Whether this thread has it."""
    return bool(lock._is_owned())
