"""What is said at the end of a process.

A child of multiprocessing that was forked ends without what is registered with `atexit`. It has a
list of its own, which is emptied when it begins.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import Any, Callable, List

_goodbyes: List[Callable[[], None]] = []
_registered_in = 0


def at_the_end(goodbye: Callable[[], None]) -> Callable[[], None]:
    """From now on it is called at the end of each process that said `is_used`."""
    _goodbyes.append(goodbye)
    return atexit.register(goodbye)


def is_used() -> None:
    """There is somebody to say goodbye to, in this process."""
    global _registered_in
    processes: Any = sys.modules.get("multiprocessing")
    if _registered_in == os.getpid() or processes is None or processes.parent_process() is None:
        return
    from multiprocessing import util

    _registered_in = os.getpid()
    # After the child's own children, for which multiprocessing waits at priority 0.
    util.Finalize(None, _say_goodbye, exitpriority=-1)


def _say_goodbye() -> None:
    # Its threads may work under a lock, and multiprocessing waits for them only after this. To join
    # them is not enough: those of an executor end by a hook that is called here.
    wait_for_threads: Any = getattr(threading, "_shutdown")
    wait_for_threads()
    for goodbye in _goodbyes:
        goodbye()
