"""Locks across machines: named locks over TCP, first come, first served, with a fencing token in
every grant.

>>> from coordinator_client import Lock
>>> with Lock("doctest/deploy") as hold:
...     pass  # One at a time, wherever it is started.

`Lock`, `RLock`, `SharedLock`, `Semaphore` and `MultiLock` are for threads; `coordinator_client.aio`
has the same names for asyncio. The server is ``server=``, or COORDINATOR_SERVER, or 127.0.0.1:5625.
"""

from ._client import Client, Owner, default_client
from ._dial import Tls
from ._errors import (
    AlreadyHeld,
    Cancelled,
    Closed,
    Deadlock,
    Draining,
    InvalidRequest,
    LockBusy,
    LockError,
    LockLost,
    LockTimeout,
    NoLeader,
    NotHeld,
    ProtocolError,
    Rejected,
    Superseded,
    Unavailable,
)
from ._hold import Hold, Lost
from ._locks import Lock, MultiLock, RLock, Semaphore, SharedLock
from ._report import SessionEvent

__version__ = "0.1.0"

__all__ = [
    "AlreadyHeld",
    "Cancelled",
    "Client",
    "Closed",
    "Deadlock",
    "Draining",
    "Hold",
    "InvalidRequest",
    "Lock",
    "LockBusy",
    "LockError",
    "LockLost",
    "LockTimeout",
    "Lost",
    "MultiLock",
    "NoLeader",
    "NotHeld",
    "Owner",
    "ProtocolError",
    "RLock",
    "Rejected",
    "Semaphore",
    "SessionEvent",
    "SharedLock",
    "Superseded",
    "Tls",
    "Unavailable",
    "default_client",
]
