"""All kinds of locks of tasks."""

from __future__ import annotations

import asyncio
import functools
import weakref
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Iterable, Optional, Tuple, Type, TypeVar

from . import _dial, _terms, _wire as wire
from ._aio_client import default_for
from ._aio_hold import Hold, call_when_lost, leave
from ._base import BaseLockable, what_runs_later
from ._errors import LockBusy, LockTimeout, NotHeld
from ._loop import Answer

if TYPE_CHECKING:
    from ._aio_client import Client, Owner

Function = TypeVar("Function", bound=Callable[..., Awaitable[Any]])


class Lockable(BaseLockable[Hold]):
    """Base of all kinds of locks: acquire and release."""

    _where = "coordinator_client.aio"

    @property
    def _client(self) -> "Client":
        return self._named_client or default_for(self._wish.server, self._wish.ttl)

    def _whose(self) -> object:
        try:
            # Not the task itself, which would be kept.
            return id(asyncio.current_task())
        except RuntimeError:
            return None  # No loop runs.

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
        hold = await self._client._acquire(self._wish, wait, self._waits)
        hold._parent, hold._by = weakref.ref(self), self._whose()
        self._holds.append(hold)
        if self._on_lost is not None:
            call_when_lost(hold, self._on_lost)
        return hold

    def release(self) -> Answer:
        """Releases the latest hold of this object, of this task if it has one, at the call.

        Awaiting it waits until the lock is free, and raises `Unavailable` if the coordinator does
        not answer: then it is free when that hears of it. Raises `NotHeld` if there is none,
        `LockLost` if it was lost.
        """
        hold = self._pop()
        answer: Answer = hold._session.release(hold._grasp)
        return answer

    def _let_go(self) -> Optional[Answer]:
        hold = self._pop_at_the_end_of_a_body()
        answer: Optional[Answer] = hold._session.let_go(hold._grasp)
        return answer

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
        hold = await self._acquire(self._wish.blocking, self._wish.timeout)
        hold._is_of_a_body = True
        return hold

    async def __aexit__(self, kind: Optional[Type[BaseException]], *_: object) -> None:
        await leave(self._let_go, kind)

    def __call__(self, function: Function) -> Function:
        """As a decorator: each call of the coroutine function holds the lock."""
        kind_of_function = what_runs_later(function)
        if "coroutine" not in kind_of_function:
            kind = kind_of_function or "what is no coroutine function"
            raise TypeError(
                f"this decorates coroutine functions, and {kind} would run without the lock: "
                "use `async with` in it, or coordinator_client.Lock for a plain function"
            )

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
        on_queued: Optional[Callable[[int], None]] = None,
        busy: str = "raise",
    ):
        claims = _terms.claims(() if shared else (name,), (name,) if shared else ())
        super().__init__(
            claims, client, owner, on_lost, server=server, blocking=blocking, timeout=timeout,
            ttl=ttl, note=note, lock_delay=lock_delay, at_least=at_least, supersede=supersede,
            busy=busy, on_queued=on_queued,
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

    async def __aenter__(self) -> Hold:
        # No body of one hold: perhaps it is `release` that counts down the last.
        return await self._acquire(self._wish.blocking, self._wish.timeout)

    def release(self) -> Answer:
        """Releases it once; `NotHeld` in any task but the one that acquired it."""
        if self._count_down():
            return super().release()
        return Answer(lambda: iter(()))  # type: ignore[arg-type, return-value]

    def _let_go(self) -> Optional[Answer]:
        return super()._let_go() if self._count_down() else None

    def _count_down(self) -> bool:
        """Whether that was the last."""
        if not self._count or self._task is not asyncio.current_task():
            raise NotHeld(f'"{self.name}" is not held by this task')
        self._count -= 1
        if not self._count:
            self._task = None
        return not self._count


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
