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

from typing import Any

from ._aio_client import Client, Owner, default_client
from ._aio_hold import Hold
from ._aio_locks import Lock, MultiLock, RLock, Semaphore, SharedLock
from ._dial import Tls
from ._look import Leader
from ._report import SessionEvent


def __getattr__(name: str) -> Any:
    if name == "Observer":
        from ._loop_look import Observer

        return Observer
    raise AttributeError(name)


__all__ = [
    "Client", "Hold", "Leader", "Lock", "MultiLock", "Owner", "RLock", "Semaphore",
    "SessionEvent", "SharedLock", "Tls", "default_client",
]  # fmt: skip
