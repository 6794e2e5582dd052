"""What is held by threads: the lock in the hand."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Callable, List, Optional, Type

from . import _terms, _wire as wire
from ._desk import HELD, LOST, WAITING, Grasp
from ._errors import LockError, NotHeld
from ._thread import Session

if TYPE_CHECKING:
    from ._client import Client
    from ._locks import Lockable


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


class Hold:
    """Held locks, from their grant until they are released or lost.

    As a context manager it releases them. Garbage collection of the hold releases them, too.
    """

    def __init__(self, session: Session, grasp: Grasp, client: "Client"):
        self._session = session
        self._grasp = grasp
        grasp.owner = weakref.ref(self)
        self._client = client  # Kept alive, for its session is ours.
        self._lost: Optional[Lost] = None
        self._parent: "Optional[weakref.ref[Lockable]]" = None

    @property
    def name(self) -> str:
        """Name of the lock, or of the first of several."""
        return _terms.first_name(self._grasp.ask)

    @property
    def names(self) -> List[str]:
        """Names of all locks, in the order of the request."""
        return [claim.name for claim in self._grasp.ask.claims]

    @property
    def shared(self) -> bool:
        """Whether the lock is held together with others."""
        return isinstance(self._grasp.ask.claims[0].mode, wire.Shared)

    @property
    def token(self) -> int:
        """The fencing token: greater than that of every earlier grant of any lock."""
        if self._grasp.is_forked:
            raise NotHeld(f'"{self.name}" is held by the process that forked this one')
        return self._grasp.token

    @property
    def acquired(self) -> bool:
        """Whether it is held now, by this machine's own clock: nobody else can hold it."""
        return self._session.is_held(self._grasp)

    @property
    def state(self) -> str:
        """``held``; ``jeopardy``: held, but the coordinator does not answer; ``lost``;
        ``released``.
        """
        if self._grasp.stage in (HELD, LOST):
            return self._session.state(self._grasp)
        return "released"

    @property
    def valid_for(self) -> float:
        """Seconds until the hold ends without another answer of the coordinator."""
        return self._session.valid_for(self._grasp)

    @property
    def lost(self) -> Lost:
        """The loss of the lock, to check or to wait for."""
        if self._lost is None:
            self._lost = Lost(self)
        return self._lost

    def check(self) -> None:
        """Raises `LockLost` if it is lost."""
        if self._grasp.stage not in (HELD, LOST):
            raise NotHeld(f'"{self.name}" was released')
        if not self.acquired:
            raise self._grasp.lost_error()

    def release(self) -> None:
        """Releases it. Raises `LockLost` if it was lost, `NotHeld` if it was already released."""
        parent = self._parent() if self._parent is not None else None
        if parent is not None:
            parent._forget(self)
        self._session.release(self._grasp)

    def upgrade(self, blocking: bool = True, timeout: float = -1) -> "Hold":
        """Upgrades a shared lock to exclusive, ahead of all waiters and without releasing it.

        Waits for the other holders. If it raises `LockTimeout`, `LockBusy` or `Deadlock`, the lock
        is still held, shared.
        """
        return self._convert(wire.Exclusive(), blocking, timeout)

    def downgrade(self) -> "Hold":
        """Downgrades an exclusive lock to shared, at once, with the same token."""
        return self._convert(wire.Shared(), True, -1)

    def _convert(self, mode: wire.Mode, blocking: bool, timeout: float) -> "Hold":
        wait = _terms.wait(blocking, timeout)
        claims = [wire.Claim(claim.name, mode) for claim in self._grasp.ask.claims]
        ask = self._grasp.ask._replace(wait=wait, claims=claims, at_least_ms=0, supersedes=False)
        self._session.convert(self._grasp, ask)
        return self

    def __enter__(self) -> "Hold":
        self.check()
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], *_: object) -> None:
        leave(self.release, kind)

    def __repr__(self) -> str:
        return f"<{self.state} coordinator_client.Hold of {self.names} at {id(self):#x}>"

    def __del__(self) -> None:
        try:
            if self._grasp.stage in (WAITING, HELD):
                self._session.drop(self._grasp)
        except AttributeError:
            pass  # It was never finished.


def leave(release: Callable[[], None], kind: Optional[Type[BaseException]]) -> None:
    """Releases at the end of a body; an exception of the body is never masked."""
    try:
        release()
    except LockError:
        if kind is None:
            raise


def call_when_lost(hold: Hold, callback: Callable[[Hold], None]) -> None:
    """Calls it with the hold when that is lost, in a separate thread: ours renews leases."""
    reference = weakref.ref(hold)

    def call() -> None:
        lost = reference()
        if lost is not None and lost._grasp.stage == LOST:
            threading.Thread(target=callback, args=(lost,), daemon=True).start()

    hold._session.when_over(hold._grasp, call)
