"""The short way: who asks carries the question and the answer.

Asking the session's thread costs two switches between threads, which is more than all the rest. So
who asks writes the question, and waits a moment for the answer at the socket, which the session's
thread does not watch meanwhile. One thread at a time does this, and only while everything is in
order; whatever is not the answer to its question goes the long way.

In the main thread an exception of a signal's handler can come between any two steps. While it waits
nothing is lost by that. At any other step nobody knows what was read and written: the session's
thread makes another connection then, over which the session goes on, and gives up what was asked.

Such a handler, or a destructor, may also use a lock itself, in the middle of a step. It changes
nothing then: what it wants is done after it.
"""

from __future__ import annotations

import os
import select
import selectors
import struct
import threading
from typing import Any, Callable, Optional

from . import _clock, _dial, _wire as wire
from ._carrier import READ_BYTES_MAX, Carrier
from ._core import Introduction
from ._desk import WAITING, Grasp
from ._link import Link

READ = selectors.EVENT_READ
# How long to wait for an answer: after that, somebody holds the lock, for who knows how long.
ANSWER_MS = 5
# How long to wait until another thread has its answer, in seconds.
TURN_MAX = 0.001
# How an answer begins whose frame is all of what was read.
_BEGINS = struct.Struct("<IIQ")
_GRANT, _RELEASED = wire.CHOICES["ServerMessage"].index(wire.Grant), 3


class Lane(Carrier):
    """A session whose callers carry their own."""

    def __init__(self, dialer: _dial.Dialer, introduction: Introduction):
        super().__init__(dialer, introduction)
        # Only Linux lets another thread say what a selector waits for; greenlets need none of this.
        polls = getattr(self._selector, "_selector", None)
        is_epoll = hasattr(select, "epoll") and isinstance(polls, select.epoll)
        self._epoll = polls if is_epoll and hasattr(select, "poll") else None
        self._main_thread = threading.main_thread().ident
        # Who carries has it. Like the session's lock it knows whose it is.
        self._lane = threading.RLock()
        # Whose question is carried.
        self._carried: Optional[Grasp] = None

    def _carry(self, grasp: Grasp, ask: Callable[[Grasp], object]) -> bool:
        """Asks, and waits a moment for the answer; False if nothing was asked."""
        if is_mine(self._lane):
            return False  # A handler that came upon this very function.
        at_rest = False
        try:
            if not self._lane.acquire(timeout=TURN_MAX):
                return False
            with self._lock:
                link = self._free_link(grasp)
                if link is not None:
                    self._carried = grasp
                    # First, or the session's thread would hear the answer.
                    self._watch_no_more(link)
                    ask(grasp)
                    link.put(self.desk.settle())
            if link is not None:
                at_rest = True
                link.wait(ANSWER_MS)
                at_rest = False
                with self._lock:
                    if self._carried is grasp:
                        self._hear_answer(link, grasp)
                        self._watch_again(link)
                        self._carried = None
            self._lane.release()
        except BaseException:
            self._torn.append((grasp, at_rest))
            # Before 3.11 an interrupt can come between the end of a body and its release.
            for lock in (self._lock, self._lane):
                if is_mine(lock):
                    lock.release()
            self._wake()
            raise
        return link is not None

    def _step_aside(self) -> None:
        """A handler came upon a wait at the socket, and waits itself: the session's thread hears
        both.
        """
        if self._carried is not None and is_mine(self._lane) and not is_mine(self._lock):
            with self._lock:
                self._carried = None
                if self._link is not None:
                    self._watch_again(self._link)

    def _free_link(self, grasp: Grasp) -> Optional[Link]:
        """The connection, if everything is in order and nobody else carries anything."""
        link, core, due = self._link, self.desk.core, self._sleeps_until
        if (
            link is None
            or self._epoll is None
            or self._carried is not None
            or link.watched != READ
            or link.outbox
            or link.failure is not None
            or self._second is not None
            or not core.is_open
            or link.number != core.connection
            or self._commands
            or self._dropped
            or self._unread
            or self._torn
            or self._leaving
            or self._over
            or self.pid != os.getpid()
            or due is None
            or due <= _clock.now()
        ):
            return None
        if grasp.stage != WAITING and (grasp.conversion or not self.desk.is_held(grasp)):
            return None
        if threading.get_ident() == self._main_thread and (
            # Another connection would come too late, or a listener would run in it.
            self._introduction.linger_ms is not None or grasp.on_over
        ):
            return None
        return link

    def _hear_answer(self, link: Link, grasp: Grasp) -> None:
        if link is not self._link or link.sock is None:
            return
        try:
            data = link.sock.recv(READ_BYTES_MAX)
        except OSError:
            return  # Nothing came, or the session's thread hears the same.
        now = _clock.now()
        if _is_answer(data, grasp) and not link.frames.is_cut:
            self.desk.core.receive(wire.decode_server(data[4:]), now)
            link.put(self.desk.settle())
        elif threading.get_ident() != self._main_thread:
            self._hear(link, data, now)
            self._settle()
        else:
            self._unread.append((link, data, now))
        if link.outbox or self._unread or self.desk.core.end is not None:
            self._wake()

    def _watch_no_more(self, link: Link) -> None:
        if self._epoll is not None and link.sock is not None:
            self._epoll.modify(link.sock, 0)

    def _watch_again(self, link: Link) -> None:
        if self._epoll is not None and link.sock is not None and link.watched:
            # The session's thread may want to write meanwhile.
            writes = select.EPOLLOUT if link.watched & selectors.EVENT_WRITE else 0
            self._epoll.modify(link.sock, select.EPOLLIN | writes)

    def _mend(self) -> None:
        """Goes on after an interrupt, in the session's thread."""
        while self._torn:
            grasp, was_at_rest = self._torn.popleft()
            if self._carried is not grasp:
                continue  # Nothing was begun, or everything done.
            self._carried = None
            link = self._link
            if link is None:
                continue
            if was_at_rest:
                self._watch_again(link)
                continue
            self.desk.settle()
            self._forget(link)
            self.desk.core.connection_cut(_clock.now())
            self.desk.abandon(grasp)


def is_mine(lock: Any) -> bool:
    """Whether this thread has it."""
    return bool(lock._is_owned())


def _is_answer(data: bytes, grasp: Grasp) -> bool:
    """Whether this is one frame: the answer that is awaited."""
    if len(data) < _BEGINS.size:
        return False
    length, kind, number = _BEGINS.unpack_from(data)
    wanted = _GRANT if grasp.stage == WAITING else _RELEASED
    return bool(length == len(data) - 4 and kind == wanted and number == grasp.number)
