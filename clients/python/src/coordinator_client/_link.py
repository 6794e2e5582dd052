"""A connection of threads, and a signal between them.

Only modules are imported, never names out of them: see `_carrier`.
"""

from __future__ import annotations

import select
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Optional

from . import _wire as wire

if TYPE_CHECKING:
    from ._dial import Connection

# Before 3.14, Ctrl-C on Windows does not wake who waits for a lock (cpython#125541).
WAIT_SLICE = 0.5 if sys.platform == "win32" else None
# Elsewhere one that comes just before the main thread sleeps does not wake it either.
MAIN_SLICE = 0.5


class Signal:
    """Something that happens, and the one who waits for it: an Event for a fifth of its price."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """It happens; a second time before it is waited for means nothing."""
        try:
            self._lock.release()
        except RuntimeError:
            pass

    def is_set(self) -> bool:
        """Whether it has happened, and was not waited for since."""
        return not self._lock.locked()

    def wait(self, timeout: Optional[float]) -> bool:
        """Until it happens; Ctrl-C and other signals' exceptions come through."""
        is_main = threading.get_ident() == threading.main_thread().ident
        longest = MAIN_SLICE if is_main else WAIT_SLICE
        if timeout is None and longest is None:
            return bool(self._lock.acquire())
        give_up_at = None if timeout is None else time.monotonic() + timeout
        while True:
            left = longest
            if give_up_at is not None:
                rest = max(give_up_at - time.monotonic(), 0)
                left = rest if left is None else min(left, rest)
            if self._lock.acquire(timeout=min(left or 0, threading.TIMEOUT_MAX)):
                return True
            if give_up_at is not None and time.monotonic() >= give_up_at:
                return False


class Link:
    """A connection: being made, or there."""

    def __init__(self, number: int):
        self.number = number
        self.sock: "Optional[Connection]" = None
        self.frames = wire.Frames()
        self.outbox = b""
        self.failure: Optional[OSError] = None
        # Who writes what is in the outbox, without the session's lock.
        self.writer: Optional[object] = None
        # How many use the socket without the session's lock.
        self.users = 0
        self._poll: Optional[Any] = None
        # What the selector of its thread waits for; and whether that is told to overlook it.
        self.watched = 0
        self.is_hidden = False

    def wait(self, milliseconds: int) -> None:
        """Until something can be read, at most so long; anything may have come meanwhile."""
        sock = self.sock
        if self._poll is None and sock is not None:
            poll = select.poll()
            try:
                poll.register(sock, select.POLLIN)
            except ValueError:
                return  # Its thread has just closed it.
            self._poll = poll
        if self._poll is not None:
            self._poll.poll(milliseconds)

    def leave_wait(self) -> None:
        """Another may wait, though this thread was interrupted in its own wait, and goes on."""
        self._poll = None

    def put(self, data: bytes) -> None:
        if self.sock is not None and self.failure is None and data:
            self.outbox = self.outbox + data if self.outbox else data
            self.flush()

    @property
    def is_stuck(self) -> bool:
        """Whether something is to be written, and nobody does."""
        return bool(self.outbox) and self.writer is None

    def flush(self) -> None:
        """Writes what can be written without waiting, unless somebody does."""
        while self.is_stuck and self.sock is not None:
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
        """Closes it once nobody uses it: its number is soon another's."""
        sock, self.sock = self.sock, None
        if sock is None:
            return
        if not self.users:
            return sock.close()
        try:
            if isinstance(sock, socket.socket):
                sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def leave(self, sock: "Connection") -> None:
        """One uses it no more."""
        self.users -= 1
        if not self.users and sock is not self.sock:
            sock.close()
