"""What is held by tasks: the lock in the hand."""

from __future__ import annotations

import asyncio
import weakref
from typing import Callable, Optional, Type

from . import _terms, _wire as wire
from ._base import BaseHold
from ._desk import HELD, LOST
from ._errors import LockError
from ._loop import Answer, Session


class Hold(BaseHold):
    """Held locks, from their grant until they are released or lost.

    Not tied to a task. Garbage collection of the hold releases them.
    """

    _where = "coordinator_client.aio"

    async def lost(self) -> str:
        """Returns the reason when the lock is lost; never, if it is released first."""
        session: Session = self._session
        grasp = self._grasp
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

    def release(self) -> Answer:
        """Releases the locks at the call; awaiting it waits until they are free.

        Raises `LockLost` if it was lost, `NotHeld` if it was already released. Awaiting it raises
        `Unavailable` if the coordinator does not answer: then it is free when that hears of it.
        """
        self._leave_parent()
        answer: Answer = self._session.release(self._grasp)
        return answer

    def _let_go(self) -> Optional[Answer]:
        self._leave_parent()
        answer: Optional[Answer] = self._session.let_go(self._grasp)
        return answer

    async def upgrade(self, blocking: bool = True, timeout: float = -1) -> "Hold":
        """Upgrades a shared lock to exclusive, ahead of all waiters and without releasing it.

        Waits for the other holders. If it raises `LockTimeout`, `LockBusy` or `Deadlock`, the lock
        is still held, shared. If the task is cancelled meanwhile, the lock is released; also if
        the coordinator does not answer in time, which raises `Unavailable`.
        """
        return await self._convert(wire.Exclusive(), blocking, timeout)

    async def downgrade(self) -> "Hold":
        """Downgrades an exclusive lock to shared, at once, with the same token."""
        return await self._convert(wire.Shared(), True, -1)

    async def _convert(self, mode: wire.Mode, blocking: bool, timeout: float) -> "Hold":
        ask = self._in_mode(mode, blocking, timeout)
        patience = _terms.patience(ask.wait, self._client.connect_timeout)
        await self._session.convert(self._grasp, ask, patience)
        return self

    async def __aenter__(self) -> "Hold":
        self.check()
        return self

    async def __aexit__(self, kind: Optional[Type[BaseException]], *_: object) -> None:
        await leave(self._let_go, kind)

    def __del__(self) -> None:
        try:
            if self._grasp.stage == HELD:
                self._session.drop(self._grasp)
        except AttributeError:
            pass  # It was never finished.


async def leave(
    let_go: Callable[[], Optional[Answer]], kind: Optional[Type[BaseException]]
) -> None:
    """Releases at the end of a body; an exception of the body is never masked."""
    try:
        answer = let_go()
        if answer is not None:
            await answer
    except LockError:
        if kind is None:
            raise


def call_when_lost(hold: Hold, callback: Callable[[Hold], None]) -> None:
    reference = weakref.ref(hold)

    def call() -> None:
        lost = reference()
        if lost is not None and lost._grasp.stage == LOST:
            hold_session.loop.call_soon(callback, lost)

    hold_session: Session = hold._session
    hold_session.when_over(hold._grasp, call)
