"""The first connection of a client: one attempt, and all who wait for it, each as long as it may.

It is made by a thread of its own. So whoever waits holds no lock meanwhile: a signal's handler may
wait, too, and a child process that is forked meanwhile finds nothing locked.
"""

from __future__ import annotations

import threading
from typing import Callable, List, Optional

from . import _dial, _search
from ._core import Introduction
from ._errors import Closed, LockError, anew, silent, unavailable
from ._link import Signal
from ._thread import Session, open_session


class Opening:
    """An attempt to open a session."""

    def __init__(
        self,
        servers: List[_dial.Server],
        connect_timeout: float,
        patience: Optional[float],
        introduction: Introduction,
        opened: Callable[["Opening", Session], None],
    ):
        self.server = _dial.shown(servers)
        self._dialer = _search.Dialer(servers, connect_timeout)
        self._search = _search.Search(self._dialer, connect_timeout, patience)
        self._introduction = introduction
        self._opened = opened
        self._session: Optional[Session] = None
        self._error: Optional[BaseException] = None
        # No lock around it: each step is atomic.
        self._waiting: List[Signal] = []
        self.is_over = False

    @property
    def is_failed(self) -> bool:
        """Whether it is of no use any more."""
        return self.is_over and (self._session is None or self._session.is_over)

    def start(self) -> None:
        """Begins; raises `Unavailable` where no thread can be started."""
        thread = threading.Thread(target=self._run, name="coordinator-client-open", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise unavailable(self.server, error) from error

    def _run(self) -> None:
        try:
            session = open_session(self._dialer, self._search, self._introduction)
            self._opened(self, session)
            self._session = session
        except BaseException as error:
            self._error = self._error or anew(error)
        # The client is not kept by it.
        del self._opened
        self._end()

    def give_up(self) -> None:
        """Whoever waits is told that the client was closed."""
        self._error = Closed("the client was closed")
        self._end()

    def _end(self) -> None:
        self.is_over = True
        for signal in list(self._waiting):
            signal.set()

    def wait(self, timeout: Optional[float]) -> Session:
        """The session, once it is open; raises why it is not."""
        signal = Signal()
        self._waiting.append(signal)
        try:
            if not self.is_over:
                # The attempt has a limit of its own.
                is_longer = timeout is None or timeout >= self._dialer.timeout
                signal.wait(None if is_longer else timeout)
        finally:
            self._waiting.remove(signal)
        if not self.is_over:
            raise silent(self.server, timeout or 0, self._search.told())
        if self._session is None:
            raise anew(self._error or LockError("the attempt ended without a word"))
        return self._session
