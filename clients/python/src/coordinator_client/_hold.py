"""What is held by threads: the lock in the hand."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Callable, Optional, Type

from . import _terms, _wire as wire
from ._base import BaseHold
from ._desk import HELD, LOST, WAITING, Grasp
from ._errors import LockError
from ._thread import Session

if TYPE_CHECKING:
    from ._client import Client


class Lost:
    """The loss of a hold, to check or to wait for: like a `threading.Event`."""

    def __init__(self, hold: "Hold"):
        self._session, self._grasp = hold._session, hold._grasp
        self._event = threading.Event()
        self._session.when_over(self._grasp, self._event.set)

    def is_set(self) -> bool:
        """Whether it is lost, by this machine's own clock; False if it was released first."""
        if self._grasp.stage == HELD:
            return not self._session.is_held(self._grasp)
        return self._grasp.stage == LOST

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Waits until it is lost or released, or for ``timeout`` seconds; True if it is lost."""
        if self._grasp.is_forked:
            return True
        self._event.wait(timeout)
        return self.is_set()

    @property
    def reason(self) -> Optional[str]:
        """The reason of the loss, if it is lost."""
        return self._grasp.lost_error().reason if self.is_set() else None


class Hold(BaseHold):
    """Held locks, from their grant until they are released or lost.

    As a context manager it releases them. Garbage collection of the hold releases them, too.
    """

    def __init__(self, session: Session, grasp: Grasp, client: "Client"):
        super().__init__(session, grasp, client)
        grasp.owner = weakref.ref(self)
        self._lost: Optional[Lost] = None

    @property
    def lost(self) -> Lost:
        """The loss of the lock, to check or to wait for."""
        if self._lost is None:
            self._lost = Lost(self)
        return self._lost

    def release(self) -> None:
        """Releases it, and waits until it is free, which the end of a ``with`` does not.

        Raises `LockLost` if it was lost, `NotHeld` if it was already released, and `Unavailable`
        if the coordinator does not answer: then it is free when that hears of it.
        """
        try:
            self._leave_parent()
            self._session.release(self._grasp)
        except LockError:
            raise
        except BaseException:
            give_back(self)
            raise

    def upgrade(self, blocking: bool = True, timeout: float = -1) -> "Hold":
        """Upgrades a shared lock to exclusive, ahead of all waiters and without releasing it.

        Waits for the other holders. If it raises `LockTimeout`, `LockBusy` or `Deadlock`, the lock
        is still held, shared. If the coordinator does not answer in time, it raises `Unavailable`,
        and the lock is given back: nobody knows in which mode it is held.
        """
        return self._convert(wire.Exclusive(), blocking, timeout)

    def downgrade(self) -> "Hold":
        """Downgrades an exclusive lock to shared, at once, with the same token."""
        return self._convert(wire.Shared(), True, -1)

    def _convert(self, mode: wire.Mode, blocking: bool, timeout: float) -> "Hold":
        ask = self._in_mode(mode, blocking, timeout)
        patience = _terms.patience(ask.wait, self._client.connect_timeout)
        self._session.convert(self._grasp, ask, patience)
        return self

    def __enter__(self) -> "Hold":
        self.check()
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], *_: object) -> None:
        try:
            self._leave_parent()
            self._session.let_go(self._grasp)
        except LockError:
            if kind is None:
                raise
        except BaseException:
            give_back(self)
            raise

    def __del__(self) -> None:
        try:
            if self._grasp.stage in (WAITING, HELD):
                self._session.drop(self._grasp)
        except AttributeError:
            pass  # It was never finished.


def give_back(hold: Hold) -> None:
    """After an interrupt, which may have come at any step of an acquire or a release."""
    if hold._grasp.stage in (WAITING, HELD):
        hold._session.drop(hold._grasp)


def call_when_lost(hold: Hold, callback: Callable[[Hold], None]) -> None:
    """Calls it with the hold when that is lost, in a separate thread: ours renews leases."""
    reference, session = weakref.ref(hold), hold._session

    def call() -> None:
        lost = reference()
        if lost is not None and lost._grasp.stage == LOST:
            session.start_soon(threading.Thread(target=callback, args=(lost,), daemon=True))

    session.when_over(hold._grasp, call)
