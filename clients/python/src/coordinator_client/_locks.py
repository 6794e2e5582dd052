"""All kinds of locks of threads."""

from __future__ import annotations

import functools
import threading
import time
import weakref
from typing import (
    TYPE_CHECKING, Any, Callable, Dict, Iterable, List, Optional, Tuple, Type, TypeVar,
)  # fmt: skip

from . import _dial, _terms, _wire as wire
from ._base import BaseLockable, what_runs_later
from ._client import default_for
from ._errors import LockBusy, LockError, LockTimeout, NotHeld
from ._hold import Hold, Lost, call_when_lost, give_back

if TYPE_CHECKING:
    from ._client import Client, Owner

Function = TypeVar("Function", bound=Callable[..., Any])
_Self = TypeVar("_Self", bound="Lockable")


class Lockable(BaseLockable[Hold]):
    """Base of all kinds of locks: acquire and release."""

    @property
    def _client(self) -> "Client":
        return self._named_client or default_for(self._wish.server, self._wish.ttl)

    def _whose(self) -> object:
        return threading.get_ident()

    # --- acquiring ---

    def acquire(self, blocking: Optional[bool] = None, timeout: Optional[float] = None) -> bool:
        """Waits for the lock; False if it is busy or the wait times out.

        Without arguments, waits as set in the constructor; with one, as `threading.Lock` does.
        Every other rejection is raised.
        """
        got: List[Hold] = []
        try:
            # A constant alone would be returned outside of this `try`, for newer Pythons.
            return self._acquire(*self._wish.patience(blocking, timeout), got) is not None
        except (LockBusy, LockTimeout):
            return False
        except BaseException:
            self._give_back(got)
            raise

    def _acquire(self, blocking: bool, timeout: float, got: Optional[List[Hold]] = None) -> Hold:
        """What is held, or is about to be, is in ``got``: whoever is interrupted gives it back."""
        got = [] if got is None else got
        try:
            wait = _terms.wait(blocking, timeout)
            began = time.monotonic()
            hold = self._client._acquire(self._wish, wait, began, self._waits, got)
            hold._parent, hold._by = weakref.ref(self), threading.get_ident()
            self._holds.append(hold)
            if self._on_lost is not None:
                call_when_lost(hold, self._on_lost)
            return hold
        except BaseException:
            self._give_back(got)
            raise

    def _give_back(self, holds: List[Hold]) -> None:
        """After an interrupt: nobody knows by whom they are held, or that they are."""
        for hold in holds:
            self._forget(hold)
            give_back(hold)

    def _give_mine_back(self) -> None:
        mine = self._mine()
        self._give_back([] if mine is None else [mine])

    # --- releasing ---

    def release(self) -> None:
        """Releases the latest hold of this object, of this thread if it has one, and waits until
        the lock is free.

        The end of a ``with`` does not wait for that. Raises `NotHeld` if there is none, `LockLost`
        if it was lost, and `Unavailable` if the coordinator does not answer: then it is held here
        no more, and free for others when the coordinator hears of it, or the lease ends.
        """
        hold: Optional[Hold] = None
        try:
            hold = self._pop()
            hold._session.release(hold._grasp)
        except LockError:
            raise
        except BaseException:
            self._give_mine_back() if hold is None else give_back(hold)
            raise

    def _let_go(self) -> None:
        hold: Optional[Hold] = None
        try:
            hold = self._pop_at_the_end_of_a_body()
            hold._session.let_go(hold._grasp)
        except LockError:
            raise
        except BaseException:
            self._give_mine_back() if hold is None else give_back(hold)
            raise

    # --- looking ---

    @property
    def lost(self) -> Lost:
        """Loss of the latest hold, to check or to wait for."""
        return self._held().lost

    def status(self) -> Optional[wire.LockStatus]:
        """Holders and waiters of the lock, in all processes, as the server says; None if none."""
        return self._client.status(self.name)

    def refresh(self) -> None:
        """Renewal is automatic: only raises `LockLost` if the lock is lost."""
        self._held().check()

    def extend(self, *_: object, **__: object) -> bool:
        """Renewal is automatic: only raises `LockLost` if the lock is lost."""
        self.refresh()
        return True

    def reacquire(self) -> bool:
        """Renewal is automatic: only raises `LockLost` if the lock is lost."""
        return self.extend()

    def upgrade(self, blocking: bool = True, timeout: float = -1) -> Hold:
        """See `Hold.upgrade`."""
        return self._held().upgrade(blocking, timeout)

    def downgrade(self) -> Hold:
        """See `Hold.downgrade`."""
        return self._held().downgrade()

    # --- the language ---

    def __enter__(self) -> Hold:
        got: List[Hold] = []
        try:
            hold = self._acquire(self._wish.blocking, self._wish.timeout, got)
            hold._is_of_a_body = True
            return hold
        except BaseException:
            self._give_back(got)
            raise

    def __exit__(self, kind: Optional[Type[BaseException]], *_: object) -> None:
        # As in `_let_go`, for an interrupt may come at each call.
        hold: Optional[Hold] = None
        try:
            hold = self._pop_at_the_end_of_a_body()
            hold._session.let_go(hold._grasp)
        except LockError:
            if kind is None:
                raise
        except BaseException:
            self._give_mine_back() if hold is None else give_back(hold)
            raise

    def __call__(self, function: Function) -> Function:
        """As a decorator: each call of the function holds the lock, through its own object."""
        kind_of_function = what_runs_later(function)
        if "coroutine" in kind_of_function:
            raise TypeError("a coroutine function needs coordinator_client.aio")
        if kind_of_function:
            raise TypeError(
                f"{kind_of_function} would run without the lock, after its call: "
                "use the lock in its body, by `with` or `async with`"
            )

        @functools.wraps(function)
        def locked(*args: Any, **kwargs: Any) -> Any:
            lock = self._another()
            try:
                lock.__enter__()
            except (LockBusy, LockTimeout):
                if self._wish.busy == "skip":
                    return None
                raise
            kind: Optional[Type[BaseException]] = None
            try:
                return function(*args, **kwargs)
            except BaseException as error:
                kind = type(error)
                raise
            finally:
                lock.__exit__(kind)

        return locked  # type: ignore[return-value]

    def __getstate__(self) -> Dict[str, Any]:
        left_out = ("_holds", "_waits", "_left_early")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        # What another process holds is not held here.
        self.__dict__.update(state)
        self._reset()

    def _at_fork_reinit(self) -> None:
        self._reset()


class Lock(Lockable):
    """A lock of this name, for all machines that use the same coordinator.

    It is used like a `threading.Lock`, is not tied to a thread, and is not reentrant: acquiring it
    again while holding it deadlocks; `RLock` counts. It connects at its first use.

    ``timeout`` is how long to wait, -1 forever. ``ttl`` is the length of the lease, which is
    renewed automatically. ``shared`` holds the lock together with other readers. ``lock_delay``
    withholds the lock from others for this long after a loss. ``at_least`` is the minimum hold
    time: it withholds the lock for this long after the grant, even after a release. ``supersede``
    cancels older waiting requests made with it, which raise `Superseded`: newest wins, one pending.
    ``note`` is shown to waiters. ``owner`` names the thread of control, so that deadlocks are
    detected (`Client.owner`). ``on_lost`` is called if the lock is lost, in a thread of its own;
    ``on_queued`` with the place in line while `acquire` waits, by it.

    >>> lock = Lock("doctest/lock")
    >>> with lock as hold:
    ...     assert lock.acquired and hold.token > 0
    >>> lock.acquired
    False
    """

    def __init__(
        self,
        name: str,
        *,
        server: Optional[_dial.Servers] = None,
        client: "Optional[Client]" = None,
        shared: bool = False,
        blocking: bool = True,
        timeout: float = -1,
        ttl: Optional[float] = None,
        note: str = "",
        lock_delay: float = 0,
        at_least: float = 0,
        supersede: bool = False,
        owner: "Optional[Owner]" = None,
        on_lost: Optional[Callable[[Hold], None]] = None,
        on_queued: Optional[Callable[[int], None]] = None,
        busy: str = "raise",
    ):
        claims = _terms.claims(() if shared else (name,), (name,) if shared else ())
        super().__init__(
            claims, client, owner, on_lost, server=server,
            blocking=blocking, timeout=timeout, ttl=ttl, note=note, lock_delay=lock_delay,
            at_least=at_least, supersede=supersede, busy=busy, on_queued=on_queued,
        )  # fmt: skip


class SharedLock(Lock):
    """A `Lock` in shared mode, held together with other shared holders: a reader's lock."""

    def __init__(self, name: str, **settings: Any):
        super().__init__(name, shared=True, **settings)


class MultiLock(Lockable):
    """Several locks, granted together or not at all, so they cannot deadlock.

    >>> with MultiLock(["doctest/a", "doctest/b"], shared=["doctest/rates"]) as hold:
    ...     hold.names
    ['doctest/a', 'doctest/b', 'doctest/rates']
    """

    def __init__(
        self,
        names: Iterable[str] = (),
        *,
        shared: Iterable[str] = (),
        semaphores: Iterable[Tuple[str, int, int]] = (),
        server: Optional[_dial.Servers] = None,
        client: "Optional[Client]" = None,
        blocking: bool = True,
        timeout: float = -1,
        ttl: Optional[float] = None,
        note: str = "",
        lock_delay: float = 0,
        at_least: float = 0,
        supersede: bool = False,
        owner: "Optional[Owner]" = None,
        on_lost: Optional[Callable[[Hold], None]] = None,
        on_queued: Optional[Callable[[int], None]] = None,
        busy: str = "raise",
    ):
        super().__init__(
            _terms.claims(names, shared, semaphores), client, owner, on_lost, server=server,
            blocking=blocking, timeout=timeout, ttl=ttl, note=note, lock_delay=lock_delay,
            at_least=at_least, supersede=supersede, busy=busy, on_queued=on_queued,
        )  # fmt: skip


class _OverReleased(NotHeld, ValueError):
    """A semaphore was released more often than acquired."""


class Semaphore(Lockable):
    """A semaphore: at most ``permits`` are taken at a time, by all processes together.

    All concurrent users must pass the same number. One object may acquire several times.

    >>> with Semaphore("doctest/gpu", 4, take=2):
    ...     pass
    """

    def __init__(
        self,
        name: str,
        permits: int,
        *,
        take: int = 1,
        server: Optional[_dial.Servers] = None,
        client: "Optional[Client]" = None,
        blocking: bool = True,
        timeout: float = -1,
        ttl: Optional[float] = None,
        note: str = "",
        lock_delay: float = 0,
        at_least: float = 0,
        supersede: bool = False,
        owner: "Optional[Owner]" = None,
        on_lost: Optional[Callable[[Hold], None]] = None,
        on_queued: Optional[Callable[[int], None]] = None,
        busy: str = "raise",
    ):
        super().__init__(
            _terms.claims(semaphores=[(name, take, permits)]), client, owner, on_lost,
            server=server,
            blocking=blocking, timeout=timeout, ttl=ttl, note=note, lock_delay=lock_delay,
            at_least=at_least, supersede=supersede, busy=busy, on_queued=on_queued,
        )  # fmt: skip

    def release(self, n: int = 1) -> None:
        """Releases the latest ``n`` holds of this object."""
        if n < 1:
            raise ValueError("n must be one or more")
        if len(self._holds) < n:
            raise self._not_held()
        failed: Optional[LockError] = None
        for _ in range(n):
            try:
                super().release()
            except LockError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def __repr__(self) -> str:
        permits = self._wish.ask.claims[0].mode
        assert isinstance(permits, wire.Permits)
        left = permits.of - len(self._holds) * permits.take
        kind = type(self).__name__
        where = f'{id(self):#x} "{self.name}"'
        return f"<coordinator_client.{kind} at {where}: value={left}/{permits.of}>"

    def _not_held(self) -> NotHeld:
        return _OverReleased(f'"{self.name}" was released more often than acquired')


class RLock:
    """A reentrant `Lock`: its thread may acquire it again, and releases it as often.

    >>> lock = RLock("doctest/rlock")
    >>> with lock, lock:
    ...     lock.acquired
    True
    """

    def __init__(self, name: str, **settings: Any):
        self._lock = Lock(name, **settings)
        self._owner: Optional[int] = None
        self._count = 0

    def acquire(self, blocking: Optional[bool] = None, timeout: Optional[float] = None) -> bool:
        """As `Lock.acquire`; at once if this thread already holds it."""
        me, before = threading.get_ident(), self._depth()
        try:
            if before:
                self._lock._held().check()
            elif not self._lock.acquire(blocking, timeout):
                return False
            self._owner, self._count = me, before + 1
            return True
        except BaseException:
            self._go_back(me, before)
            raise

    def _depth(self) -> int:
        """How often this thread holds it."""
        mine = self._owner == threading.get_ident() and self._lock._hold is not None
        return self._count if mine else 0

    def _go_back(self, me: int, depth: int) -> None:
        """After an interrupt: as before it, or as after it, and not in between."""
        if self._owner == me:
            self._owner, self._count = (me, depth) if depth else (None, 0)
        if not depth:
            self._lock._give_mine_back()

    def release(self) -> None:
        """Releases it once; `NotHeld` in any thread but the one that acquired it."""
        self._leave(self._lock.release)

    def _leave(self, let_go: Callable[[], None]) -> None:
        """Counts down; the last time, lets go."""
        depth: Optional[int] = None
        try:
            depth = self._depth_after()
            self._owner, self._count = (self._owner, depth) if depth else (None, 0)
            if not depth:
                let_go()
        except LockError:
            raise
        except BaseException:
            self._go_back(threading.get_ident(), self._depth_after() if depth is None else depth)
            raise

    def _depth_after(self) -> int:
        if self._owner != threading.get_ident() or not self._count:
            raise NotHeld(f'"{self.name}" is not held by this thread')
        return self._count - 1

    @property
    def name(self) -> str:
        """The lock's name."""
        return self._lock.name

    @property
    def acquired(self) -> bool:
        """Whether this object holds it, in any thread."""
        return self._lock.acquired

    def locked(self) -> bool:
        """The same, by the name of `threading`."""
        return self._lock.acquired

    @property
    def token(self) -> int:
        """The fencing token; `NotHeld` if it is not held."""
        return self._lock.token

    @property
    def lost(self) -> Lost:
        """Its loss, to check or to wait for."""
        return self._lock.lost

    def cancel(self) -> None:
        """Ends every waiting `acquire` in other threads with `Cancelled`."""
        self._lock.cancel()

    def __enter__(self) -> Hold:
        me, before = threading.get_ident(), self._depth()
        try:
            if before:
                hold = self._lock._held()
                hold.check()
            else:
                wish = self._lock._wish
                # No body of the lock itself: perhaps it is `release` that counts down the last.
                hold = self._lock._acquire(wish.blocking, wish.timeout)
            self._owner, self._count = me, before + 1
            return hold
        except BaseException:
            self._go_back(me, before)
            raise

    def __exit__(self, kind: Optional[Type[BaseException]], *_: object) -> None:
        # As in `_leave`, for an interrupt may come at each call.
        depth: Optional[int] = None
        try:
            depth = self._depth_after()
            self._owner, self._count = (self._owner, depth) if depth else (None, 0)
            if not depth:
                self._lock._let_go()
        except LockError:
            if kind is None:
                raise
        except BaseException:
            self._go_back(threading.get_ident(), self._depth_after() if depth is None else depth)
            raise

    def _is_owned(self) -> bool:
        return self._owner == threading.get_ident()

    def _recursion_count(self) -> int:
        return self._count if self._is_owned() else 0

    def _release_save(self) -> Tuple[int, Optional[int]]:
        if not self._count:
            raise NotHeld(f'"{self.name}" is not held by this thread')
        count, owner, self._count, self._owner = self._count, self._owner, 0, None
        self._lock.release()
        return count, owner

    def _acquire_restore(self, state: Tuple[int, Optional[int]]) -> None:
        self._lock.acquire(True)
        self._count, self._owner = state

    def _at_fork_reinit(self) -> None:
        self._lock._at_fork_reinit()
        self._owner, self._count = None, 0

    def __repr__(self) -> str:
        locked = "locked" if self._count else "unlocked"
        return (
            f'<{locked} coordinator_client.RLock object "{self.name}" '
            f"owner={self._owner or 0} count={self._count} at {id(self):#x}>"
        )
