"""What holds, locks and clients are asked without waiting: the same for threads and for a loop."""

from __future__ import annotations

import functools
import types
import weakref
from typing import Any, Callable, Generic, List, Optional, Protocol, Tuple, TypeVar

from . import _dial, _terms, _wire as wire
from ._core import Ask, Welcomed
from ._desk import HELD, LOST, Desk, Grasp
from ._errors import NotHeld


def what_runs_later(function: Any) -> str:
    """What kind of function it is whose body does not run when it is called; else nothing."""
    while isinstance(function, (functools.partial, types.MethodType)):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    if not hasattr(function, "__code__") and not isinstance(function, type):
        function = getattr(type(function), "__call__", None)
    flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
    return next((kind for flag, kind in _RUN_LATER.items() if flags & flag), "")


# As in the module inspect, which costs more to import than this package.
_RUN_LATER = {
    0x80: "a coroutine function",
    0x100: "a coroutine function",
    0x200: "an asynchronous generator",
    0x20: "a generator",
}


class AnySession(Protocol):
    """A session of threads, or of a loop."""

    desk: Desk

    @property
    def is_over(self) -> bool: ...

    def is_held(self, grasp: Grasp) -> bool: ...

    def state(self, grasp: Grasp) -> str: ...

    def valid_for(self, grasp: Grasp) -> float: ...

    def lease_left(self) -> float: ...


class BaseHold:
    """What is known of held locks."""

    # The module by which users know it.
    _where = "coordinator_client"

    def __init__(self, session: Any, grasp: Grasp, client: Any):
        self._session = session
        self._grasp = grasp
        self._client = client  # Kept alive, for its session is ours.
        # The lock by which it was acquired, and the thread or task that did so.
        self._parent: "Optional[weakref.ref[Any]]" = None
        self._by: object = None
        # Whether the end of a body is to release it.
        self._is_of_a_body = False

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
        return bool(self._session.is_held(self._grasp))

    @property
    def state(self) -> str:
        """``held``; ``jeopardy``: held, but the coordinator does not answer; ``lost``;
        ``released``.
        """
        if self._grasp.stage in (HELD, LOST):
            return str(self._session.state(self._grasp))
        return "released"

    @property
    def valid_for(self) -> float:
        """Seconds until the hold ends without another answer of the coordinator."""
        return float(self._session.valid_for(self._grasp))

    def check(self) -> None:
        """Raises `LockLost` if it is lost."""
        if self._grasp.stage not in (HELD, LOST):
            raise NotHeld(f'"{self.name}" was released')
        if not self.acquired:
            raise self._grasp.lost_error()

    def _leave_parent(self) -> None:
        parent = self._parent() if self._parent is not None else None
        if parent is not None:
            parent._forget_early(self)

    def _in_mode(self, mode: wire.Mode, blocking: bool, timeout: float) -> Ask:
        """What to ask for to hold the same in another mode."""
        wait = _terms.wait(blocking, timeout)
        claims = [wire.Claim(claim.name, mode) for claim in self._grasp.ask.claims]
        return self._grasp.ask._replace(wait=wait, claims=claims, at_least_ms=0, supersedes=False)

    def __repr__(self) -> str:
        return f"<{self.state} {self._where}.Hold of {self.names} at {id(self):#x}>"


# Of so many bodies that were left early is remembered by whom they began.
LEFT_EARLY_MAX = 64

AnyHold = TypeVar("AnyHold", bound=BaseHold)
_Self = TypeVar("_Self", bound="BaseLockable[Any]")


class BaseLockable(Generic[AnyHold]):
    """What is known of a lock object."""

    # The module by which users know it.
    _where = "coordinator_client"

    def __init__(
        self,
        claims: List[wire.Claim],
        client: Any,
        owner: Any,
        on_lost: Optional[Callable[[AnyHold], None]],
        **settings: Any,
    ):
        if owner is not None:
            client = owner.client
        number = owner.number if owner else 0
        self._wish = _terms.Wish(claims, has_client=client is not None, owner=number, **settings)
        self._named_client, self._on_lost = client, on_lost
        self._reset()

    def _reset(self) -> None:
        # Lists, and no lock around them: a fork would leave that locked. Each step is atomic.
        self._holds: List[AnyHold] = []
        self._waits: List[Tuple[Any, Grasp]] = []
        # Who began the bodies whose holds were released before their ends.
        self._left_early: List[object] = []

    def _another(self: _Self) -> _Self:
        """The same lock, by another object."""
        another = self.__class__.__new__(self.__class__)
        another.__dict__.update(self.__dict__)
        another._reset()
        return another

    def _whose(self) -> object:
        """The thread or task that runs."""
        raise NotImplementedError

    def _mine(self) -> Optional[AnyHold]:
        """The latest hold of this thread or task."""
        me = self._whose()
        return next((hold for hold in reversed(self._holds) if hold._by == me), None)

    def _pop(self) -> AnyHold:
        """Takes the hold that is to be released: an own one, or else another's."""
        while True:
            hold = self._held()
            if self._forget_early(hold):
                return hold

    def _pop_at_the_end_of_a_body(self) -> AnyHold:
        """Takes the hold of the body that ends.

        It may have begun in another thread or task: then another's is taken, and rather one of a
        body than an own one without. If its own was released in it, another's is not its to take.
        """
        me, was_left_early = self._whose(), False
        while True:
            mine = [hold for hold in reversed(self._holds) if hold._by == me]
            found = [hold for hold in mine if hold._is_of_a_body]
            if not found:
                was_left_early = was_left_early or self._was_left_early_by(me)
                others = [] if was_left_early else self._holds[::-1]
                found = [hold for hold in others if hold._is_of_a_body] or mine or others
            if not found and self._holds:
                raise NotHeld(
                    f'"{self._wish.name}" is held by others through this object, and not by this one',
                    "do not release it in the body of its own with",
                )
            if not found:
                raise self._not_held()
            if self._forget(found[0]):
                return found[0]

    def _was_left_early_by(self, me: object) -> bool:
        """Whether it is in a body whose hold was released; asked once, at the end of that."""
        try:
            self._left_early.remove(me)
            return True
        except ValueError:
            return False

    def _forget_early(self, hold: AnyHold) -> bool:
        """It is released, and not by the end of its body; false if somebody was faster."""
        if not self._forget(hold):
            return False
        if hold._is_of_a_body:
            self._left_early.append(hold._by)
            del self._left_early[:-LEFT_EARLY_MAX]
        return True

    def _not_held(self) -> NotHeld:
        return NotHeld(f'"{self._wish.name}" is not held by this object')

    def _forget(self, hold: AnyHold) -> bool:
        """Whether it was known."""
        try:
            self._holds.remove(hold)
            return True
        except ValueError:
            return False

    @property
    def _hold(self) -> Optional[AnyHold]:
        try:
            hold = self._holds[-1]
            return hold if len(self._holds) == 1 else self._mine() or hold
        except IndexError:
            return None

    def _held(self) -> AnyHold:
        hold = self._hold
        if hold is None:
            raise self._not_held()
        return hold

    def cancel(self) -> None:
        """Ends every waiting `acquire` of this object, elsewhere, with `Cancelled`."""
        for session, grasp in list(self._waits):
            session.end_wait(grasp)

    @property
    def name(self) -> str:
        """Name of the lock, or of the first of several."""
        return self._wish.name

    @property
    def acquired(self) -> bool:
        """Whether *this object* holds it now, by this machine's own clock."""
        hold = self._hold
        return hold is not None and hold.acquired

    def locked(self) -> bool:
        """The same, by the name of Python's own locks. `status` tells who else holds it."""
        return self.acquired

    def owned(self) -> bool:
        """The same, by the name of redis-py."""
        return self.acquired

    @property
    def token(self) -> int:
        """The fencing token of the latest hold, rather of this thread or task than of others;
        `NotHeld` if there is none.
        """
        return self._held().token

    @property
    def state(self) -> str:
        """``held``, ``jeopardy`` or ``lost`` for the latest hold; ``released`` without one."""
        hold = self._hold
        return "released" if hold is None else hold.state

    @property
    def valid_for(self) -> float:
        """Seconds until the hold ends without another answer of the coordinator; 0 if not held."""
        hold = self._hold
        return 0.0 if hold is None else hold.valid_for

    def __repr__(self) -> str:
        locked = "locked" if self.acquired else "unlocked"
        return (
            f'<{locked} {self._where}.{type(self).__name__} object "{self.name}" at {id(self):#x}>'
        )


class BaseOwner:
    """One thread of control within a client, by which the coordinator detects deadlocks.

    A request for a lock that it already holds raises `AlreadyHeld`; one that would wait for itself,
    through any number of other owners, raises `Deadlock`. Do not use it from two threads or tasks
    at a time.
    """

    def __init__(self, client: Any, number: int):
        self.client = client
        self.number = number


class BaseClient:
    """What is known of a client."""

    # The module by which users know it.
    _where = "coordinator_client"

    def __init__(
        self,
        server: Optional[_dial.Servers],
        ttl: Optional[float],
        linger: Optional[float],
        identity: Optional[str],
        connect_timeout: float,
        tls: Optional[_dial.AnyTls],
        credential: Optional[str],
    ):
        self._servers, self._tls = _dial.parse_servers(server, tls, credential), tls
        self._credential = credential
        self._ttl, self._linger, self._identity = ttl, linger, identity
        _terms.introduction(ttl, linger, identity)
        self.connect_timeout = _terms.patience_to_connect(connect_timeout)
        self._closed = False
        self._session: Any = None

    @property
    def server(self) -> str:
        """Address of the coordinator."""
        return _dial.shown(self._servers)

    def _welcome(self) -> Optional[Welcomed]:
        session: Optional[AnySession] = self._session
        return None if session is None or session.is_over else session.desk.welcome

    @property
    def session(self) -> Optional[int]:
        """The session, as others see it; None before the first use, and after the end."""
        welcome = self._welcome()
        return None if welcome is None else welcome.session

    @property
    def epoch(self) -> Optional[int]:
        """The run of the coordinator that was last heard of."""
        welcome = self._welcome()
        return None if welcome is None else welcome.epoch

    @property
    def generation(self) -> Optional[int]:
        """Counts the connections of the session, from 1."""
        welcome = self._welcome()
        return None if welcome is None else welcome.generation

    @property
    def ttl(self) -> Optional[float]:
        """Length of the session's lease, in seconds; before the first use, as requested."""
        welcome = self._welcome()
        return self._ttl if welcome is None else welcome.ttl_ms / 1000

    @property
    def valid_for(self) -> float:
        """Seconds for which the coordinator keeps the session without another answer."""
        session: Optional[AnySession] = self._session
        return 0.0 if session is None or session.is_over else session.lease_left()

    def __repr__(self) -> str:
        return f"<{self._where}.Client of {self.server} at {id(self):#x}>"
