"""A clock that goes on while the machine is suspended: leases are counted by it. And chance."""

from __future__ import annotations

import os
import sys
import time
from typing import Callable


def _find() -> Callable[[], int]:
    # Linux stops CLOCK_MONOTONIC in suspend, and has CLOCK_BOOTTIME, which goes on. On macOS it is
    # CLOCK_MONOTONIC that goes on, and what time.monotonic() reads that stops.
    number = getattr(time, "CLOCK_BOOTTIME", None)
    if number is None and sys.platform == "darwin":
        number = getattr(time, "CLOCK_MONOTONIC", None)
    if number is not None:
        read, which = time.clock_gettime_ns, number
        return lambda: read(which) // 1_000
    return lambda: time.monotonic_ns() // 1_000


now: Callable[[], int] = _find()
"""Microseconds since an origin that only this machine knows."""


def seed() -> int:
    """For pauses that are not those of others."""
    return int.from_bytes(os.urandom(8), "little") >> 1
