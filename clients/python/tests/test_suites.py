"""CPython's own tests of locks, run on ours: `test.lock_tests` of the Python that runs this."""

import itertools

import pytest

import coordinator_client as cc

lock_tests = pytest.importorskip(
    "test.lock_tests", reason="this Python comes without its tests (Debian: libpython3-testsuite)"
)
# Not to be collected here under their own names.
cases = {name: getattr(lock_tests, name) for name in dir(lock_tests) if name.endswith("Tests")}
numbers = itertools.count()


@pytest.fixture(autouse=True)
def needs_a_server(server):
    pass


class BoundedSemaphore(cc.Semaphore):
    """By the name that one of the tests looks for."""


class TestLock(cases["LockTests"]):
    locktype = staticmethod(lambda: cc.Lock(f"cpython/lock/{next(numbers)}"))


class TestRLock(cases["RLockTests"]):
    locktype = staticmethod(lambda: cc.RLock(f"cpython/rlock/{next(numbers)}"))


class TestBoundedSemaphore(cases["BoundedSemaphoreTests"]):
    semtype = staticmethod(
        lambda value=1: BoundedSemaphore(f"cpython/bounded/{next(numbers)}", value)
    )
