"""What users of threads type."""

from __future__ import annotations

import functools
import inspect
import os
import threading
import time
import weakref
from typing import (
    TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple, Type, TypeVar,
    Union, overload,
)  # fmt: skip

from . import _dial, _terms, _wire as wire
from ._core import Ask
from ._desk import HELD, LOST, Grasp
from ._errors import Closed, InvalidRequest, LockBusy, LockError, LockTimeout, NotHeld
from ._thread import Session, open_session

if TYPE_CHECKING:
    from .observe import Leader

CONNECT_TIMEOUT = 5.0
Function = TypeVar("Function", bound=Callable[..., Any])
_Self = TypeVar("_Self", bound="_Lockable")


class Lost:
    """Whether a hold is lost, to look at or to wait for: like a `threading.Event`."""

    def __init__(self, hold: "Hold"):
        self._session, self._grasp = hold._session, hold._grasp
        self._event = threading.Event()
        self._session.when_lost(self._grasp, self._event.set)

    def is_set(self) -> bool:
        """Whether it is lost, by this machine's own clock; not if it was released before."""
        if self._grasp.stage == HELD:
            return not self._session.is_held(self._grasp)
        return self._grasp.stage == LOST

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Waits until it is lost, or so many seconds; whether it is."""
        if self._grasp.is_forked:
            return True
        self._event.wait(timeout)
        return self.is_set()

    @property
    def reason(self) -> Optional[str]:
        """Why it is lost, if it is."""
        return self._grasp.lost_error().reason if self.is_set() else None


class Hold:
    """Locks that are held, from the moment they are granted until they are released or lost.

    As a context manager it releases them. One that nobody refers to any more is released, too.
    """

    def __init__(self, session: Session, grasp: Grasp, client: "Client"):
        self._session = session
        self._grasp = grasp
        self._client = client  # Kept alive, for its session is ours.
        self._lost: Optional[Lost] = None
        self._parent: "Optional[weakref.ref[_Lockable]]" = None

    @property
    def name(self) -> str:
        """The lock; the first one, if there are several."""
        return _terms.first_name(self._grasp.ask)

    @property
    def names(self) -> List[str]:
        """All locks, in the order in which they were asked for."""
        return [claim.name for claim in self._grasp.ask.claims]

    @property
    def shared(self) -> bool:
        """Whether the lock is held together with others."""
        return isinstance(self._grasp.ask.claims[0].mode, wire.Shared)

    @property
    def token(self) -> int:
        """The fencing token: greater than that of every grant before, of whatever lock."""
        if self._grasp.is_forked:
            raise NotHeld(f'"{self.name}" is held by the process that forked this one')
        return self._grasp.token

    @property
    def acquired(self) -> bool:
        """Whether it is held now, by this machine's own clock: nobody else can have it."""
        return self._session.is_held(self._grasp)

    @property
    def state(self) -> str:
        """``held``; ``jeopardy``: held, but the coordinator does not answer; ``lost``; ``released``."""
        if self._grasp.stage in (HELD, LOST):
            return self._session.state(self._grasp)
        return "released"

    @property
    def valid_for(self) -> float:
        """For how many seconds it is held if nothing more is heard of the coordinator."""
        return self._session.valid_for(self._grasp)

    @property
    def lost(self) -> Lost:
        """To look at, or to wait for: whether the lock is lost."""
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
        """Gives it back. Raises `LockLost` if it was lost, `NotHeld` if it was released already."""
        parent = self._parent() if self._parent is not None else None
        if parent is not None:
            parent._forget(self)
        self._session.release(self._grasp)

    def upgrade(self, blocking: bool = True, timeout: float = -1) -> "Hold":
        """Makes a shared lock exclusive, ahead of who waits, and without letting go of it.

        Waits for the other holders. Raises `LockTimeout`, `LockBusy` or `Deadlock`, and then it is
        still held, shared.
        """
        return self._convert(wire.Exclusive(), blocking, timeout)

    def downgrade(self) -> "Hold":
        """Makes an exclusive lock shared, at once, and keeps its token."""
        return self._convert(wire.Shared(), True, -1)

    def _convert(self, mode: wire.Mode, blocking: bool, timeout: float) -> "Hold":
        wait = _terms.wait(blocking, timeout)
        claims = [wire.Claim(claim.name, mode) for claim in self._grasp.ask.claims]
        ask = self._grasp.ask._replace(wait=wait, claims=claims, at_least_ms=0)
        self._session.convert(self._grasp, ask)
        return self

    def __enter__(self) -> "Hold":
        self.check()
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], *_: object) -> None:
        _leave(self.release, kind)

    def __repr__(self) -> str:
        return f'<{self.state} coordinator_client.Hold of {self.names} at {id(self):#x}>'

    def __del__(self) -> None:
        try:
            if self._grasp.stage == HELD:
                self._session.drop(self._grasp)
        except AttributeError:
            pass  # It was never finished.


def _leave(release: Callable[[], None], kind: Optional[Type[BaseException]]) -> None:
    """Releases at the end of a body; an exception of the body is never masked."""
    try:
        release()
    except LockError:
        if kind is None:
            raise


class _Lockable:
    """What can be acquired and released: the base of all kinds of locks."""

    def __init__(
        self,
        claims: List[wire.Claim],
        *,
        server: Optional[_dial.Servers],
        client: "Optional[Client]",
        blocking: bool,
        timeout: float,
        ttl: Optional[float],
        note: str,
        lock_delay: float,
        at_least: float,
        owner: "Optional[Owner]",
        on_lost: "Optional[Callable[[Hold], None]]",
        busy: str,
    ):
        _terms.wait(blocking, timeout)
        if busy not in ("raise", "skip"):
            raise InvalidRequest('busy is "raise" or "skip"')
        if owner is not None:
            client = owner.client
        if client is not None and (server is not None or ttl is not None):
            raise InvalidRequest("server and ttl are the client's", "give them to the client")
        number = owner.number if owner else 0
        self._ask = _terms.ask(
            claims, note=note, lock_delay=lock_delay, at_least=at_least, owner=number
        )
        self._server = _dial.shown(_dial.parse_servers(server)) if client is None else None
        self._client, self._ttl = client, ttl
        self._blocking, self._timeout = blocking, timeout
        self._on_lost, self._busy = on_lost, busy
        self._reset()

    def _reset(self) -> None:
        self._mutex = threading.Lock()
        self._holds: List[Hold] = []
        self._waits: List[Tuple[Session, Grasp]] = []

    # --- acquiring ---

    def acquire(
        self, blocking: Optional[bool] = None, timeout: Optional[float] = None
    ) -> bool:
        """Waits for the lock; False if it is busy or did not come in time.

        Without arguments, waits as the constructor says; with one, as `threading.Lock` does. Every
        other *no* is raised.
        """
        try:
            self._acquire(*self._patience(blocking, timeout))
            return True
        except (LockBusy, LockTimeout):
            return False

    def _patience(
        self, blocking: Optional[bool], timeout: Optional[float]
    ) -> Tuple[bool, float]:
        if blocking is None and timeout is None:
            return self._blocking, self._timeout
        return (True if blocking is None else bool(blocking)), (-1 if timeout is None else timeout)

    def _acquire(self, blocking: bool, timeout: float) -> Hold:
        wait = _terms.wait(blocking, timeout)
        began = time.monotonic()
        client = self._client or default_client(self._server, ttl=self._ttl)
        hold = client._acquire(self._ask, wait, began, self._begin_wait, self._end_wait)
        hold._parent = weakref.ref(self)
        with self._mutex:
            self._holds.append(hold)
        if self._on_lost is not None:
            _call_when_lost(hold, self._on_lost)
        return hold

    def _begin_wait(self, session: Session, grasp: Grasp) -> None:
        with self._mutex:
            self._waits.append((session, grasp))

    def _end_wait(self, session: Session, grasp: Grasp) -> None:
        with self._mutex:
            self._waits.remove((session, grasp))

    def cancel(self) -> None:
        """Ends every waiting `acquire` of this object, in other threads, with `Cancelled`."""
        with self._mutex:
            waits = list(self._waits)
        for session, grasp in waits:
            session.end_wait(grasp)

    # --- releasing ---

    def release(self) -> None:
        """Gives back the latest that was acquired by this object, in whatever thread.

        Raises `NotHeld` if there is none, `LockLost` if it was lost.
        """
        hold = self._pop()
        hold._session.release(hold._grasp)

    def _pop(self) -> Hold:
        with self._mutex:
            if not self._holds:
                raise self._not_held()
            return self._holds.pop()

    def _not_held(self) -> NotHeld:
        return NotHeld(f'"{_terms.first_name(self._ask)}" is not held by this object')

    def _forget(self, hold: Hold) -> None:
        with self._mutex:
            if hold in self._holds:
                self._holds.remove(hold)

    # --- looking ---

    @property
    def _hold(self) -> Optional[Hold]:
        with self._mutex:
            return self._holds[-1] if self._holds else None

    def _held(self) -> Hold:
        hold = self._hold
        if hold is None:
            raise self._not_held()
        return hold

    @property
    def name(self) -> str:
        """The lock; the first one, if there are several."""
        return _terms.first_name(self._ask)

    @property
    def acquired(self) -> bool:
        """Whether *this object* holds it now, by this machine's own clock."""
        hold = self._hold
        return hold is not None and hold.acquired

    def locked(self) -> bool:
        """The same, in the words of `threading.Lock`. Who else holds it is told by `status`."""
        return self.acquired

    def owned(self) -> bool:
        """The same, in the words of redis-py."""
        return self.acquired

    @property
    def token(self) -> int:
        """The fencing token of the latest hold; `NotHeld` if there is none."""
        return self._held().token

    @property
    def state(self) -> str:
        """``held``, ``jeopardy`` or ``lost`` of what was acquired; ``released`` if nothing was."""
        hold = self._hold
        return "released" if hold is None else hold.state

    @property
    def valid_for(self) -> float:
        """For how many seconds it is held if nothing more is heard; 0 if it is not."""
        hold = self._hold
        return 0.0 if hold is None else hold.valid_for

    @property
    def lost(self) -> Lost:
        """To look at, or to wait for: whether the latest hold is lost."""
        return self._held().lost

    def status(self) -> Optional[wire.LockStatus]:
        """Who holds the lock and who waits, of whatever process; None if nobody does. Asks the server."""
        client = self._client or default_client(self._server, ttl=self._ttl)
        return client.status(self.name)

    def refresh(self) -> None:
        """Does nothing, for locks are renewed by themselves; raises `LockLost` if it is lost."""
        self._held().check()

    def extend(self, *_: object, **__: object) -> bool:
        """Does nothing, for locks are renewed by themselves; raises `LockLost` if it is lost."""
        self.refresh()
        return True

    def reacquire(self) -> bool:
        """Does nothing, for locks are renewed by themselves; raises `LockLost` if it is lost."""
        return self.extend()

    def upgrade(self, blocking: bool = True, timeout: float = -1) -> Hold:
        """See `Hold.upgrade`."""
        return self._held().upgrade(blocking, timeout)

    def downgrade(self) -> Hold:
        """See `Hold.downgrade`."""
        return self._held().downgrade()

    # --- the language ---

    def __enter__(self) -> Hold:
        return self._acquire(self._blocking, self._timeout)

    def __exit__(self, kind: Optional[Type[BaseException]], *_: object) -> None:
        _leave(self.release, kind)

    def __call__(self, function: Function) -> Function:
        """As a decorator: each call of the function holds the lock, by an object of its own."""
        if inspect.iscoroutinefunction(function):
            raise TypeError("a coroutine function needs coordinator_client.aio")

        @functools.wraps(function)
        def locked(*args: Any, **kwargs: Any) -> Any:
            lock = self._another()
            try:
                lock.__enter__()
            except (LockBusy, LockTimeout):
                if self._busy == "skip":
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

    def _another(self: _Self) -> _Self:
        """The same lock, by another object."""
        another = self.__class__.__new__(self.__class__)
        another.__dict__.update(self.__getstate__())
        another._reset()
        return another

    def __getstate__(self) -> Dict[str, Any]:
        left_out = ("_mutex", "_holds", "_waits")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        # What another process holds is not held here.
        self.__dict__.update(state)
        self._reset()

    def _at_fork_reinit(self) -> None:
        self._reset()

    def __repr__(self) -> str:
        locked = "locked" if self.acquired else "unlocked"
        kind = type(self).__name__
        return f'<{locked} coordinator_client.{kind} object "{self.name}" at {id(self):#x}>'


def _call_when_lost(hold: Hold, callback: Callable[[Hold], None]) -> None:
    reference = weakref.ref(hold)

    def call() -> None:
        lost = reference()
        if lost is not None:
            # In a thread of its own: ours keeps the other locks alive.
            threading.Thread(target=callback, args=(lost,), daemon=True).start()

    hold._session.when_lost(hold._grasp, call)


class Lock(_Lockable):
    """A lock of this name, for all machines that use the same coordinator.

    It is used like a `threading.Lock`. It is not tied to a thread, and not re-entrant: who holds it
    and acquires it again waits for itself; `RLock` counts. Nothing is connected before its first use.

    ``timeout`` is how long to wait for it, -1 for ever; ``ttl`` the length of the lease, which is
    renewed automatically; ``shared``: together with others that share it. ``lock_delay`` is a pause
    before others get it if this holder is lost; ``at_least``: from the grant on nobody else gets it
    for so long, even after a release. ``note`` is shown to who waits. ``owner``: who asks, so that
    deadlocks are found (`Client.owner`). ``on_lost`` is called if the lock is lost.

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
        owner: "Optional[Owner]" = None,
        on_lost: Optional[Callable[[Hold], None]] = None,
        busy: str = "raise",
    ):
        claims = _terms.claims(() if shared else (name,), (name,) if shared else ())
        super().__init__(
            claims, server=server, client=client, blocking=blocking, timeout=timeout, ttl=ttl,
            note=note, lock_delay=lock_delay, at_least=at_least, owner=owner, on_lost=on_lost,
            busy=busy,
        )  # fmt: skip


class SharedLock(Lock):
    """A `Lock` that is held together with others that share it: a reader's lock."""

    def __init__(self, name: str, **settings: Any):
        super().__init__(name, shared=True, **settings)


class MultiLock(_Lockable):
    """Several locks that are granted together or not at all: they cannot deadlock.

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
        owner: "Optional[Owner]" = None,
        on_lost: Optional[Callable[[Hold], None]] = None,
        busy: str = "raise",
    ):
        super().__init__(
            _terms.claims(names, shared, semaphores), server=server, client=client,
            blocking=blocking, timeout=timeout, ttl=ttl, note=note, lock_delay=lock_delay,
            at_least=at_least, owner=owner, on_lost=on_lost, busy=busy,
        )  # fmt: skip


class _OverReleased(NotHeld, ValueError):
    """A semaphore was released more often than acquired."""


class Semaphore(_Lockable):
    """Permits of this name: at most so many are taken at a time, by all processes together.

    All who use it at a time must say the same number. One object may acquire several times.

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
        owner: "Optional[Owner]" = None,
        on_lost: Optional[Callable[[Hold], None]] = None,
        busy: str = "raise",
    ):
        super().__init__(
            _terms.claims(semaphores=[(name, take, permits)]), server=server, client=client,
            blocking=blocking, timeout=timeout, ttl=ttl, note=note, lock_delay=lock_delay,
            at_least=at_least, owner=owner, on_lost=on_lost, busy=busy,
        )  # fmt: skip

    def release(self, n: int = 1) -> None:
        """Gives back the latest ``n`` that were acquired by this object."""
        if n < 1:
            raise ValueError("n must be one or more")
        with self._mutex:
            if len(self._holds) < n:
                raise self._not_held()
        for _ in range(n):
            super().release()

    def __repr__(self) -> str:
        permits = self._ask.claims[0].mode
        assert isinstance(permits, wire.Permits)
        with self._mutex:
            left = permits.of - len(self._holds) * permits.take
        kind = type(self).__name__
        where = f'{id(self):#x} "{self.name}"'
        return f"<coordinator_client.{kind} at {where}: value={left}/{permits.of}>"

    def _not_held(self) -> NotHeld:
        return _OverReleased(f'"{self.name}" was released more often than acquired')


class RLock:
    """A `Lock` that its thread may acquire again; it is released as often as it was acquired.

    >>> lock = RLock("doctest/rlock")
    >>> with lock, lock:
    ...     lock.acquired
    True
    """

    def __init__(self, name: str, **settings: Any):
        self._lock = Lock(name, **settings)
        self._owner: Optional[int] = None
        self._count = 0

    def acquire(
        self, blocking: Optional[bool] = None, timeout: Optional[float] = None
    ) -> bool:
        """As `Lock.acquire`; at once if this thread holds it already."""
        if self._owner == threading.get_ident() and self._lock._hold is not None:
            self._lock._held().check()
            self._count += 1
            return True
        if not self._lock.acquire(blocking, timeout):
            return False
        self._owner, self._count = threading.get_ident(), 1
        return True

    def release(self) -> None:
        """Gives it back once; `NotHeld` in another thread than the one that acquired it."""
        if self._owner != threading.get_ident() or not self._count:
            raise NotHeld(f'"{self.name}" is not held by this thread')
        self._count -= 1
        if not self._count:
            self._owner = None
            self._lock.release()

    @property
    def name(self) -> str:
        """The lock's name."""
        return self._lock.name

    @property
    def acquired(self) -> bool:
        """Whether this object holds it, in whatever thread."""
        return self._lock.acquired

    def locked(self) -> bool:
        """The same, in the words of `threading`."""
        return self._lock.acquired

    @property
    def token(self) -> int:
        """The fencing token; `NotHeld` if it is not held."""
        return self._lock.token

    @property
    def lost(self) -> Lost:
        """Whether it is lost, to look at or to wait for."""
        return self._lock.lost

    def cancel(self) -> None:
        """Ends every waiting `acquire` in other threads with `Cancelled`."""
        self._lock.cancel()

    def __enter__(self) -> Hold:
        mine = self._owner == threading.get_ident() and self._lock._hold is not None
        if mine:
            self.acquire()
        else:
            self._lock.__enter__()
            self._owner, self._count = threading.get_ident(), 1
        return self._lock._held()

    def __exit__(self, kind: Optional[Type[BaseException]], *_: object) -> None:
        _leave(self.release, kind)

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


class Owner:
    """One thread of control within a client, so that the coordinator sees who waits for whom.

    What it asks for and holds already is `AlreadyHeld`; what would have it wait for itself, over
    however many others, is `Deadlock`. It must not be used by two threads at a time.
    """

    def __init__(self, client: "Client", number: int):
        self.client = client
        self.number = number

    def lock(self, name: str, **settings: Any) -> Lock:
        """A `Lock` of this owner."""
        return Lock(name, owner=self, **settings)

    def lock_all(self, names: Iterable[str] = (), **settings: Any) -> MultiLock:
        """A `MultiLock` of this owner."""
        return MultiLock(names, owner=self, **settings)

    def semaphore(self, name: str, permits: int, **settings: Any) -> Semaphore:
        """A `Semaphore` of this owner."""
        return Semaphore(name, permits, owner=self, **settings)


class Client:
    """A session with a coordinator, made at its first use, in each process anew.

    ``server`` is ``host:port``, or several, tried in order: ``"a:5625,b:5625"``. ``ttl`` is the length
    of the lease: how long the coordinator waits for a holder that it does not hear; None is the
    server's default of 10 s. ``linger``: how long locks outlive a connection that broke, 0 to free
    them at once; None: as long as the lease.

    >>> with Client() as client, client.lock("doctest/client"):
    ...     client.status("doctest/client").holder_count
    1
    """

    def __init__(
        self,
        server: Optional[_dial.Servers] = None,
        *,
        ttl: Optional[float] = None,
        linger: Optional[float] = None,
        identity: Optional[str] = None,
        connect_timeout: float = CONNECT_TIMEOUT,
    ):
        self._servers = _dial.parse_servers(server)
        self._ttl, self._linger, self._identity = ttl, linger, identity
        _terms.introduction(ttl, linger, identity)
        self.connect_timeout = connect_timeout
        self._closed = False
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._opening = threading.Lock()
        self._session: Optional[Session] = None
        self._owners = 0

    def __getstate__(self) -> Dict[str, Any]:
        left_out = ("_pid", "_opening", "_session", "_owners")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    @property
    def server(self) -> str:
        """Where the coordinator is looked for."""
        return _dial.shown(self._servers)

    def connect(self, timeout: Optional[float] = None) -> "Client":
        """Connects now, instead of at the first use; raises `Unavailable`."""
        self._current(timeout)
        return self

    def _current(self, timeout: Optional[float] = None) -> Session:
        if self._pid != os.getpid():
            self._reset()  # Ours is the parent's.
        session = self._session
        if session is not None and not session.is_over:
            return session
        with self._opening:
            session = self._session
            if self._closed:
                raise Closed("the client was closed")
            if session is None or session.is_over:
                introduction = _terms.introduction(self._ttl, self._linger, self._identity)
                session = open_session(self._servers, introduction, self.connect_timeout, timeout)
                self._session = session
        return session

    def _acquire(
        self,
        ask: Ask,
        wait: wire.Wait,
        began: float,
        begin_wait: Callable[[Session, Grasp], None],
        end_wait: Callable[[Session, Grasp], None],
    ) -> Hold:
        timeout = wait.ms / 1000 if isinstance(wait, wire.Timeout) else None
        session = self._current(timeout)
        left = None
        if timeout is not None:
            # Connecting took its part.
            left = max(timeout - (time.monotonic() - began), 0.001)
            wait = wire.Timeout(max(1, int(left * 1000)))
        if isinstance(wait, wire.Never):
            left = self.connect_timeout
        waits: List[Grasp] = []

        def begun(grasp: Grasp) -> None:
            begin_wait(session, grasp)
            waits.append(grasp)

        try:
            grasp = session.acquire(ask._replace(wait=wait), left, begun)
        except LockTimeout as error:
            raise LockTimeout(error.lock, timeout or 0) from None
        finally:
            for waited in waits:
                end_wait(session, waited)
        return Hold(session, grasp, self)

    # --- locks ---

    def lock(self, name: str, **settings: Any) -> Lock:
        """A `Lock` of this client."""
        return Lock(name, client=self, **settings)

    def rlock(self, name: str, **settings: Any) -> RLock:
        """An `RLock` of this client."""
        return RLock(name, client=self, **settings)

    def try_lock(self, name: str, **settings: Any) -> Optional[Hold]:
        """The lock, held, if it is to be had at once; else None."""
        try:
            return self.lock(name, **settings)._acquire(False, -1)
        except LockBusy:
            return None

    def lock_all(self, names: Iterable[str] = (), **settings: Any) -> MultiLock:
        """A `MultiLock` of this client."""
        return MultiLock(names, client=self, **settings)

    def semaphore(self, name: str, permits: int, **settings: Any) -> Semaphore:
        """A `Semaphore` of this client."""
        return Semaphore(name, permits, client=self, **settings)

    def owner(self) -> Owner:
        """Another thread of control, see `Owner`."""
        with self._opening:
            self._owners += 1
            return Owner(self, self._owners)

    def elect(self, name: str, value: str = "", **settings: Any) -> Lock:
        """A lock whose holder leads, and is seen with this value by `leaders`."""
        return Lock(name, client=self, note=value, **settings)

    # --- looking ---

    @overload
    def status(self) -> wire.ServerStatus: ...

    @overload
    def status(self, name: str) -> Optional[wire.LockStatus]: ...

    def status(
        self, name: Optional[str] = None
    ) -> Union[wire.ServerStatus, Optional[wire.LockStatus]]:
        """The coordinator as a whole; with a name, who holds that lock and who waits, None if nobody."""
        from .observe import Observer

        with Observer(self.server, timeout=self.connect_timeout) as observer:
            return observer.server_status() if name is None else observer.lock(name)

    def watch(self, name: str) -> Iterator[Optional[wire.LockStatus]]:
        """The lock as it is now, and whenever its holders change; None while nobody uses it."""
        from .observe import Observer

        return Observer(self.server, timeout=self.connect_timeout).watch(name)

    def leaders(self, name: str) -> "Iterator[Optional[Leader]]":
        """Who leads now, and whenever somebody else does; None while nobody does."""
        from .observe import Observer

        return Observer(self.server, timeout=self.connect_timeout).leaders(name)

    def events(self, name: Optional[str] = None) -> Iterator[Union[wire.Event, wire.Missed]]:
        """Everything that happens to requests from now on, of one lock or of all."""
        from .observe import Observer

        return Observer(self.server, timeout=self.connect_timeout).events(name)

    # --- the end ---

    def close(self) -> None:
        """Ends the session, which frees everything at once. Locks of this client are lost."""
        self._closed = True
        if self._session is not None and self._pid == os.getpid():
            self._session.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        try:
            if self._session is not None and self._pid == os.getpid():
                self._session.leave()
        except Exception:
            pass  # The interpreter is at its end.

    def __repr__(self) -> str:
        return f"<coordinator_client.Client of {self.server} at {id(self):#x}>"


_defaults: Dict[Any, Client] = {}
_defaults_lock = threading.Lock()
_defaults_pid = os.getpid()


def default_client(
    server: Optional[_dial.Servers] = None, *, ttl: Optional[float] = None
) -> Client:
    """The client of locks that name none: one for each server, ttl and process."""
    global _defaults, _defaults_lock, _defaults_pid
    if _defaults_pid != os.getpid():
        _defaults, _defaults_lock, _defaults_pid = {}, threading.Lock(), os.getpid()
    text = _dial.shown(_dial.parse_servers(server))
    with _defaults_lock:
        client = _defaults.get((text, ttl))
        if client is None or client._closed:
            client = _defaults[(text, ttl)] = Client(text, ttl=ttl)
        return client

