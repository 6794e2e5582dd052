"""The names of `coordinator_client` for asyncio.

>>> import asyncio
>>> from coordinator_client import aio
>>> async def deploy():
...     async with aio.Lock("doctest/aio", timeout=5) as hold:
...         return hold.acquired
>>> asyncio.run(deploy())
True
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import time
import weakref
from typing import (
    Any, AsyncIterator, Awaitable, Callable, Dict, Iterable, List, Optional, Tuple, Type, TypeVar,
    Union, overload,
)  # fmt: skip

from . import _dial, _terms, _wire as wire
from ._core import Ask
from ._desk import HELD, LOST, Grasp
from ._errors import Closed, InvalidRequest, LockBusy, LockError, LockTimeout, NotHeld
from ._look import Leader
from ._loop import Answer, Session, open_session

CONNECT_TIMEOUT = 5.0
Function = TypeVar("Function", bound=Callable[..., Awaitable[Any]])
_Self = TypeVar("_Self", bound="Lockable")


class Hold:
    """Held locks, from their grant until they are released or lost.

    Not tied to a task. Garbage collection of the hold releases them.
    """

    def __init__(self, session: Session, grasp: Grasp, client: "Client"):
        self._session = session
        self._grasp = grasp
        self._client = client  # Kept alive, for its session is ours.
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

    async def lost(self) -> str:
        """Returns the reason when the lock is lost; never, if it is released first."""
        session, grasp = self._session, self._grasp
        told: "asyncio.Future[None]" = session.loop.create_future()

        def tell() -> None:
            if grasp.stage == LOST and not told.done():
                told.set_result(None)

        session.when_over(grasp, tell)
        try:
            await told
        finally:
            if tell in grasp.on_over:
                grasp.on_over.remove(tell)
        return grasp.lost_error().reason

    def check(self) -> None:
        """Raises `LockLost` if it is lost."""
        if self._grasp.stage not in (HELD, LOST):
            raise NotHeld(f'"{self.name}" was released')
        if not self.acquired:
            raise self._grasp.lost_error()

    def release(self) -> Answer:
        """Releases the locks at the call; awaiting it waits until they are free.

        Raises `LockLost` if it was lost, `NotHeld` if it was already released.
        """
        parent = self._parent() if self._parent is not None else None
        if parent is not None:
            parent._forget(self)
        return self._session.release(self._grasp)

    async def upgrade(self, blocking: bool = True, timeout: float = -1) -> "Hold":
        """Upgrades a shared lock to exclusive, ahead of all waiters and without releasing it.

        Waits for the other holders. If it raises `LockTimeout`, `LockBusy` or `Deadlock`, the lock
        is still held, shared. If the task is cancelled meanwhile, the lock is released.
        """
        return await self._convert(wire.Exclusive(), blocking, timeout)

    async def downgrade(self) -> "Hold":
        """Downgrades an exclusive lock to shared, at once, with the same token."""
        return await self._convert(wire.Shared(), True, -1)

    async def _convert(self, mode: wire.Mode, blocking: bool, timeout: float) -> "Hold":
        wait = _terms.wait(blocking, timeout)
        claims = [wire.Claim(claim.name, mode) for claim in self._grasp.ask.claims]
        ask = self._grasp.ask._replace(wait=wait, claims=claims, at_least_ms=0, supersedes=False)
        await self._session.convert(self._grasp, ask)
        return self

    async def __aenter__(self) -> "Hold":
        self.check()
        return self

    async def __aexit__(self, kind: Optional[Type[BaseException]], *_: object) -> None:
        await _leave(self.release, kind)

    def __repr__(self) -> str:
        return f"<{self.state} coordinator_client.aio.Hold of {self.names} at {id(self):#x}>"

    def __del__(self) -> None:
        try:
            if self._grasp.stage == HELD:
                self._session.drop(self._grasp)
        except AttributeError:
            pass  # It was never finished.


async def _leave(release: Callable[[], Answer], kind: Optional[Type[BaseException]]) -> None:
    """Releases at the end of a body; an exception of the body is never masked."""
    try:
        await release()
    except LockError:
        if kind is None:
            raise


class Lockable:
    """Base of all kinds of locks: acquire and release."""

    def __init__(
        self,
        claims: List[wire.Claim],
        client: "Optional[Client]",
        owner: "Optional[Owner]",
        on_lost: Optional[Callable[[Hold], None]],
        **settings: Any,
    ):
        if owner is not None:
            client = owner.client
        number = owner.number if owner else 0
        self._wish = _terms.Wish(claims, has_client=client is not None, owner=number, **settings)
        self._named_client, self._on_lost = client, on_lost
        self._reset()

    @property
    def _client(self) -> "Client":
        return self._named_client or default_for(self._wish.server, self._wish.ttl)

    def _reset(self) -> None:
        self._holds: List[Hold] = []
        self._waits: List[Tuple[Session, Grasp]] = []

    async def acquire(
        self, blocking: Optional[bool] = None, timeout: Optional[float] = None
    ) -> bool:
        """Waits for the lock; False if it is busy or the wait times out.

        Without arguments, waits as set in the constructor. Every other rejection is raised. Cancel
        safe: a task that is cancelled meanwhile holds nothing and waits for nothing.
        """
        try:
            await self._acquire(*self._wish.patience(blocking, timeout))
            return True
        except (LockBusy, LockTimeout):
            return False

    async def _acquire(self, blocking: bool, timeout: float) -> Hold:
        wait = _terms.wait(blocking, timeout)
        hold = await self._client._acquire(self._wish.ask, wait, self._waits)
        hold._parent = weakref.ref(self)
        self._holds.append(hold)
        if self._on_lost is not None:
            _call_when_lost(hold, self._on_lost)
        return hold

    def cancel(self) -> None:
        """Ends every waiting `acquire` of this object, in other tasks, with `Cancelled`."""
        for session, grasp in list(self._waits):
            session.end_wait(grasp)

    def release(self) -> Answer:
        """Releases the latest hold of this object, at the call.

        Awaiting it waits until the lock is free. Raises `NotHeld` if there is none, `LockLost` if
        it was lost.
        """
        if not self._holds:
            raise self._not_held()
        hold = self._holds.pop()
        return hold._session.release(hold._grasp)

    def _not_held(self) -> NotHeld:
        return NotHeld(f'"{self.name}" is not held by this object')

    def _forget(self, hold: Hold) -> None:
        if hold in self._holds:
            self._holds.remove(hold)

    def _held(self) -> Hold:
        if not self._holds:
            raise self._not_held()
        return self._holds[-1]

    @property
    def name(self) -> str:
        """Name of the lock, or of the first of several."""
        return self._wish.name

    @property
    def acquired(self) -> bool:
        """Whether *this object* holds it now, by this machine's own clock."""
        return bool(self._holds) and self._holds[-1].acquired

    def locked(self) -> bool:
        """The same, by the name of `asyncio.Lock`. `status` tells who else holds it."""
        return self.acquired

    def owned(self) -> bool:
        """The same, by the name of redis-py."""
        return self.acquired

    @property
    def token(self) -> int:
        """The fencing token of the latest hold; `NotHeld` if there is none."""
        return self._held().token

    @property
    def state(self) -> str:
        """``held``, ``jeopardy`` or ``lost`` for the latest hold; ``released`` without one."""
        return self._holds[-1].state if self._holds else "released"

    @property
    def valid_for(self) -> float:
        """Seconds until the hold ends without another answer of the coordinator; 0 if not held."""
        return self._holds[-1].valid_for if self._holds else 0.0

    async def lost(self) -> str:
        """Returns the reason when the latest hold is lost."""
        return await self._held().lost()

    async def status(self) -> Optional[wire.LockStatus]:
        """Holders and waiters of the lock, in all processes; None if it has none."""
        return await self._client.status(self.name)

    async def refresh(self) -> None:
        """Renewal is automatic: only raises `LockLost` if the lock is lost."""
        self._held().check()

    async def extend(self, *_: object, **__: object) -> bool:
        """Renewal is automatic: only raises `LockLost` if the lock is lost."""
        self._held().check()
        return True

    async def reacquire(self) -> bool:
        """Renewal is automatic: only raises `LockLost` if the lock is lost."""
        return await self.extend()

    async def upgrade(self, blocking: bool = True, timeout: float = -1) -> Hold:
        """See `Hold.upgrade`."""
        return await self._held().upgrade(blocking, timeout)

    async def downgrade(self) -> Hold:
        """See `Hold.downgrade`."""
        return await self._held().downgrade()

    async def __aenter__(self) -> Hold:
        return await self._acquire(self._wish.blocking, self._wish.timeout)

    async def __aexit__(self, kind: Optional[Type[BaseException]], *_: object) -> None:
        await _leave(self.release, kind)

    def __call__(self, function: Function) -> Function:
        """As a decorator: each call of the coroutine function holds the lock."""
        if not inspect.iscoroutinefunction(function):
            raise TypeError("this decorates coroutine functions only")

        @functools.wraps(function)
        async def locked(*args: Any, **kwargs: Any) -> Any:
            lock = self._another()
            try:
                hold = await lock._acquire(self._wish.blocking, self._wish.timeout)
            except (LockBusy, LockTimeout):
                if self._wish.busy == "skip":
                    return None
                raise
            async with hold:
                return await function(*args, **kwargs)

        return locked  # type: ignore[return-value]

    def _another(self: _Self) -> _Self:
        another = self.__class__.__new__(self.__class__)
        another.__dict__.update(self.__dict__)
        another._reset()
        return another

    def __repr__(self) -> str:
        locked, kind = "locked" if self.acquired else "unlocked", type(self).__name__
        return f'<{locked} coordinator_client.aio.{kind} object "{self.name}" at {id(self):#x}>'


def _call_when_lost(hold: Hold, callback: Callable[[Hold], None]) -> None:
    reference = weakref.ref(hold)

    def call() -> None:
        lost = reference()
        if lost is not None and lost._grasp.stage == LOST:
            hold_session.loop.call_soon(callback, lost)

    hold_session = hold._session
    hold_session.when_over(hold._grasp, call)


class Lock(Lockable):
    """A lock of this name, for all machines that use the same coordinator.

    The settings are those of `coordinator_client.Lock`. It is not tied to a task, and is not
    reentrant.
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
        busy: str = "raise",
    ):
        claims = _terms.claims(() if shared else (name,), (name,) if shared else ())
        super().__init__(
            claims, client, owner, on_lost, server=server, blocking=blocking, timeout=timeout,
            ttl=ttl, note=note, lock_delay=lock_delay, at_least=at_least, supersede=supersede,
            busy=busy,
        )  # fmt: skip


class SharedLock(Lock):
    """A `Lock` in shared mode, held together with other shared holders: a reader's lock."""

    def __init__(self, name: str, **settings: Any):
        super().__init__(name, shared=True, **settings)


class RLock(Lockable):
    """A reentrant `Lock`: its task may acquire it again, and releases it as often."""

    def __init__(
        self,
        name: str,
        *,
        client: "Optional[Client]" = None,
        owner: "Optional[Owner]" = None,
        on_lost: Optional[Callable[[Hold], None]] = None,
        **settings: Any,
    ):
        super().__init__(_terms.claims((name,)), client, owner, on_lost, **settings)

    def _reset(self) -> None:
        super()._reset()
        self._task: "Optional[asyncio.Task[Any]]" = None
        self._count = 0

    async def _acquire(self, blocking: bool, timeout: float) -> Hold:
        if self._holds and self._task is asyncio.current_task():
            self._held().check()
            self._count += 1
            return self._held()
        hold = await super()._acquire(blocking, timeout)
        self._task, self._count = asyncio.current_task(), 1
        return hold

    def release(self) -> Answer:
        """Releases it once; `NotHeld` in any task but the one that acquired it."""
        if not self._count or self._task is not asyncio.current_task():
            raise NotHeld(f'"{self.name}" is not held by this task')
        self._count -= 1
        if self._count:
            return Answer(lambda: iter(()))  # type: ignore[arg-type, return-value]
        self._task = None
        return super().release()


class MultiLock(Lockable):
    """Several locks, granted together or not at all, so they cannot deadlock."""

    def __init__(
        self,
        names: Iterable[str] = (),
        *,
        shared: Iterable[str] = (),
        semaphores: Iterable[Tuple[str, int, int]] = (),
        client: "Optional[Client]" = None,
        owner: "Optional[Owner]" = None,
        on_lost: Optional[Callable[[Hold], None]] = None,
        **settings: Any,
    ):
        claims = _terms.claims(names, shared, semaphores)
        super().__init__(claims, client, owner, on_lost, **settings)


class Semaphore(Lockable):
    """A semaphore: at most ``permits`` are taken at a time, by all processes together."""

    def __init__(
        self,
        name: str,
        permits: int,
        *,
        take: int = 1,
        client: "Optional[Client]" = None,
        owner: "Optional[Owner]" = None,
        on_lost: Optional[Callable[[Hold], None]] = None,
        **settings: Any,
    ):
        claims = _terms.claims(semaphores=[(name, take, permits)])
        super().__init__(claims, client, owner, on_lost, **settings)


class Owner:
    """One thread of control within a client: see `coordinator_client.Owner`."""

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
    """A session with a coordinator, opened at its first use, on the running loop.

    The settings are those of `coordinator_client.Client`. It belongs to that loop.
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
        self._owners = 0
        self._pid = os.getpid()
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._opening: "Optional[asyncio.Task[Session]]" = None
        self._session: Optional[Session] = None

    @property
    def server(self) -> str:
        """Address of the coordinator."""
        return _dial.shown(self._servers)

    async def connect(self, timeout: Optional[float] = None) -> "Client":
        """Connects now instead of at the first use; raises `Unavailable`."""
        await self._current(timeout)
        return self

    async def _current(self, timeout: Optional[float] = None) -> Session:
        loop = asyncio.get_running_loop()
        if self._loop is not loop or self._pid != os.getpid():
            if self._loop is not None and not self._loop.is_closed() and self._pid == os.getpid():
                raise InvalidRequest("this client belongs to another loop", "create one per loop")
            self._loop, self._pid = loop, os.getpid()
            self._session = self._opening = None
        if self._closed:
            raise Closed("the client was closed")
        if self._session is not None and not self._session.is_over:
            return self._session
        if self._opening is None:
            introduction = _terms.introduction(self._ttl, self._linger, self._identity)
            self._opening = loop.create_task(
                open_session(self._servers, introduction, self.connect_timeout, timeout)
            )
        opening = self._opening
        try:
            # Who is cancelled takes nothing from the others that wait for it.
            session = await asyncio.shield(opening)
        finally:
            if opening.done() and self._opening is opening:
                self._opening = None
        self._session = session
        if self._closed:
            await session.close()
            raise Closed("the client was closed")
        return session

    async def _acquire(self, ask: Ask, wait: wire.Wait, waits: List[Tuple[Session, Grasp]]) -> Hold:
        began = time.monotonic()
        timeout = wait.ms / 1000 if isinstance(wait, wire.Timeout) else None
        session = await self._current(timeout)
        left = None
        if timeout is not None:
            # Connecting took its part.
            left = max(timeout - (time.monotonic() - began), 0.001)
            wait = wire.Timeout(max(1, int(left * 1000)))
        if isinstance(wait, wire.Never):
            left = self.connect_timeout
        waited: List[Tuple[Session, Grasp]] = []

        def begun(grasp: Grasp) -> None:
            waited.append((session, grasp))
            waits.append((session, grasp))

        try:
            if wait is not ask.wait:
                ask = ask._replace(wait=wait)
            grasp = await session.acquire(ask, left, begun)
        except LockTimeout as error:
            raise LockTimeout(error.lock, timeout or 0) from None
        finally:
            for pair in waited:
                waits.remove(pair)
        return Hold(session, grasp, self)

    def lock(self, name: str, **settings: Any) -> Lock:
        """A `Lock` of this client."""
        return Lock(name, client=self, **settings)

    def rlock(self, name: str, **settings: Any) -> RLock:
        """An `RLock` of this client."""
        return RLock(name, client=self, **settings)

    async def try_lock(self, name: str, **settings: Any) -> Optional[Hold]:
        """The held lock if it is free now, else None."""
        try:
            return await self.lock(name, **settings)._acquire(False, -1)
        except LockBusy:
            return None

    def lock_all(self, names: Iterable[str] = (), **settings: Any) -> MultiLock:
        """A `MultiLock` of this client."""
        return MultiLock(names, client=self, **settings)

    def semaphore(self, name: str, permits: int, **settings: Any) -> Semaphore:
        """A `Semaphore` of this client."""
        return Semaphore(name, permits, client=self, **settings)

    def owner(self) -> Owner:
        """A new owner: another thread of control, see `Owner`."""
        self._owners += 1
        return Owner(self, self._owners)

    def elect(self, name: str, value: str = "", **settings: Any) -> Lock:
        """A lock whose holder is the leader; `leaders` shows it with this value."""
        return Lock(name, client=self, note=value, **settings)

    @overload
    async def status(self) -> wire.ServerStatus: ...

    @overload
    async def status(self, name: str) -> Optional[wire.LockStatus]: ...

    async def status(
        self, name: Optional[str] = None
    ) -> Union[wire.ServerStatus, Optional[wire.LockStatus]]:
        """Status of the coordinator; with a name, of that lock: None if it is not in use."""
        from ._loop_look import Observer

        async with Observer(self.server, timeout=self.connect_timeout) as observer:
            return await (observer.server_status() if name is None else observer.lock(name))

    def watch(self, name: str) -> AsyncIterator[Optional[wire.LockStatus]]:
        """The state of the lock, now and after each change of its holders; None while unused."""
        from ._loop_look import Observer

        return Observer(self.server, timeout=self.connect_timeout).watch(name)

    def leaders(self, name: str) -> AsyncIterator[Optional[Leader]]:
        """The leader, now and after each change; None while there is none."""
        from ._loop_look import Observer

        return Observer(self.server, timeout=self.connect_timeout).leaders(name)

    def events(self, name: Optional[str] = None) -> AsyncIterator[Union[wire.Event, wire.Missed]]:
        """All events of requests from now on, of one lock or of all."""
        from ._loop_look import Observer

        return Observer(self.server, timeout=self.connect_timeout).events(name)

    async def close(self) -> None:
        """Ends the session, which frees all its locks at once: they are lost."""
        self._closed = True
        if self._session is not None and self._pid == os.getpid():
            await self._session.close()

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __del__(self) -> None:
        try:
            if self._session is not None:
                self._session.leave()
        except Exception:
            pass  # The interpreter is at its end.

    def __repr__(self) -> str:
        return f"<coordinator_client.aio.Client of {self.server} at {id(self):#x}>"


_defaults: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Dict[Any, Client]]"
_defaults = weakref.WeakKeyDictionary()


def default_client(
    server: Optional[_dial.Servers] = None, *, ttl: Optional[float] = None
) -> Client:
    """The client of locks without one: one per server and ttl of the running loop."""
    return default_for(_dial.shown(_dial.parse_servers(server)), ttl)


def default_for(server: str, ttl: Optional[float]) -> Client:
    """The same for servers as they are shown."""
    clients = _defaults.setdefault(asyncio.get_running_loop(), {})
    client = clients.get((server, ttl))
    if client is None or client._closed:
        client = clients[(server, ttl)] = Client(server, ttl=ttl)
    return client


def __getattr__(name: str) -> Any:
    if name == "Observer":
        from ._loop_look import Observer

        return Observer
    raise AttributeError(name)


__all__ = [
    "Client", "Hold", "Leader", "Lock", "MultiLock", "Owner", "RLock", "Semaphore", "SharedLock",
    "default_client",
]  # fmt: skip
