"""The session of a process and its owners: for threads."""

from __future__ import annotations

import itertools
import os
import threading
import time
import weakref
from typing import (
    TYPE_CHECKING, Any, Dict, Iterable, Iterator, List, Optional, Tuple, Union, overload,
)  # fmt: skip

from . import _dial, _terms, _wire as wire
from ._base import BaseClient, BaseOwner
from ._desk import Grasp, nobody
from ._errors import Closed, LockBusy, LockTimeout
from ._hold import Hold
from ._lane import is_mine
from ._opening import Opening
from ._thread import Session, upon_a_step

if TYPE_CHECKING:
    from ._events import SessionEvents
    from ._look import Gap, Leader
    from .observe import Observer

CONNECT_TIMEOUT = 5.0


class Owner(BaseOwner):
    __doc__ = BaseOwner.__doc__

    def lock(self, name: str, **settings: Any) -> "_locks.Lock":
        """A `Lock` of this owner."""
        return _locks.Lock(name, owner=self, **settings)

    def lock_all(self, names: Iterable[str] = (), **settings: Any) -> "_locks.MultiLock":
        """A `MultiLock` of this owner."""
        return _locks.MultiLock(names, owner=self, **settings)

    def semaphore(self, name: str, permits: int, **settings: Any) -> "_locks.Semaphore":
        """A `Semaphore` of this owner."""
        return _locks.Semaphore(name, permits, owner=self, **settings)


class Client(BaseClient):
    """A session with a coordinator, opened at its first use, in each process separately.

    ``server`` is ``host:port``, or several, tried in order: ``"a:5625,b:5625"``. ``ttl`` is the
    length of the lease: how long the coordinator waits for a silent holder; None is the server's
    default of 10 s. ``linger`` is how long locks survive a broken connection: 0 frees them at once,
    None keeps them for the rest of the lease. Servers named ``tls://host:port`` are connected to by
    TLS: ``tls`` says whom to trust, a `Tls` or an ``ssl.SSLContext``. ``credential`` proves who
    this is, where the coordinator has an access file; else COORDINATOR_CREDENTIAL and
    COORDINATOR_CREDENTIAL_FILE do, as for the command line.

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
        tls: Optional[_dial.AnyTls] = None,
        credential: Optional[str] = None,
    ):
        super().__init__(server, ttl, linger, identity, connect_timeout, tls, credential)
        self._reset()

    def _observer(self) -> "Observer":
        """Looks where this client is, as whom it is."""
        from .observe import Observer

        return Observer(
            self.server,
            timeout=self.connect_timeout,
            tls=self._tls,
            credential=self._credential,
        )

    def _reset(self) -> None:
        _clients.add(self)
        # One that knows whose it is: a signal's handler may come upon it.
        self._gate = threading.RLock()
        self._opening: Optional[Opening] = None
        self._session = None
        self._numbers = itertools.count(1)

    def __getstate__(self) -> Dict[str, Any]:
        left_out = ("_gate", "_opening", "_session", "_numbers")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def connect(self, timeout: Optional[float] = None) -> "Client":
        """Connects now instead of at the first use; raises `Unavailable`."""
        self._current(timeout)
        return self

    def _current(self, timeout: Optional[float] = None) -> Session:
        session: Optional[Session] = self._session
        if session is not None and not session.is_over:
            return session
        if is_mine(self._gate):
            raise upon_a_step()
        try:
            with self._gate:
                opening = self._open_or_join(timeout)
        except BaseException:
            # Before 3.11 an interrupt can come between the end of a body and its release.
            if is_mine(self._gate):
                self._gate.release()
            raise
        return opening.wait(timeout)

    def _open_or_join(self, timeout: Optional[float]) -> Opening:
        """The attempt that is under way, or a new one."""
        if self._closed:
            raise Closed("the client was closed")
        opening: Optional[Opening] = self._opening
        if opening is not None and not opening.is_failed:
            return opening
        introduction = _terms.introduction(self._ttl, self._linger, self._identity)
        opening = Opening(
            self._servers, self.connect_timeout, timeout, introduction, self._opened
        )
        self._opening = opening
        try:
            opening.start()
        except BaseException:
            self._opening = None
            raise
        return opening

    def _opened(self, opening: Opening, session: Session) -> None:
        """In the thread that made the connection."""
        if self._opening is not opening:
            session.close()
            raise Closed("the client was closed")
        self._session = session
        if self._closed:
            session.close()
            raise Closed("the client was closed")

    def _acquire(
        self,
        wish: _terms.Wish,
        wait: wire.Wait,
        began: float,
        waits: List[Tuple[Session, Grasp]],
        got: List[Hold],
    ) -> Hold:
        ask = wish.ask
        timeout = wait.ms / 1000 if isinstance(wait, wire.Timeout) else None
        session = self._current(timeout)
        left = None
        if timeout is not None:
            # Connecting took its part.
            left = max(timeout - (time.monotonic() - began), 0.001)
            wait = wire.Timeout(max(1, int(left * 1000)))
        if isinstance(wait, wire.Never):
            left = self.connect_timeout
        if wait is not ask.wait:
            ask = ask._replace(wait=wait)
        # It is somebody's from the start: what is interrupted at any moment is given back.
        hold = Hold(session, Grasp(ask, nobody, session.pid), self)
        got.append(hold)
        waited = (session, hold._grasp)
        waits.append(waited)
        try:
            session.acquire(hold._grasp, left, wish.on_queued)
        except LockTimeout as error:
            raise LockTimeout(error.lock, timeout or 0) from None
        finally:
            waits.remove(waited)
        return hold

    # --- locks ---

    def lock(self, name: str, **settings: Any) -> "_locks.Lock":
        """A `Lock` of this client."""
        return _locks.Lock(name, client=self, **settings)

    def rlock(self, name: str, **settings: Any) -> "_locks.RLock":
        """An `RLock` of this client."""
        return _locks.RLock(name, client=self, **settings)

    def try_lock(self, name: str, **settings: Any) -> Optional[Hold]:
        """The held lock if it is free now, else None."""
        try:
            return self.lock(name, **settings)._acquire(False, -1)
        except LockBusy:
            return None

    def lock_all(self, names: Iterable[str] = (), **settings: Any) -> "_locks.MultiLock":
        """A `MultiLock` of this client."""
        return _locks.MultiLock(names, client=self, **settings)

    def semaphore(self, name: str, permits: int, **settings: Any) -> "_locks.Semaphore":
        """A `Semaphore` of this client."""
        return _locks.Semaphore(name, permits, client=self, **settings)

    def owner(self) -> Owner:
        """A new owner: another thread of control, see `Owner`."""
        # One step, without a lock that a fork could leave behind.
        return Owner(self, next(self._numbers))

    def elect(self, name: str, value: str = "", **settings: Any) -> "_locks.Lock":
        """A lock whose holder is the leader; `leaders` shows it with this value."""
        return _locks.Lock(name, client=self, note=value, **settings)

    # --- the session ---

    def session_events(self) -> "SessionEvents":
        """What becomes of the session from now on: connects at once, and is read by iterating.

        >>> with Client() as client:
        ...     events = client.session_events()
        >>> [event.kind for event in events]
        ['closed']
        """
        from ._events import SessionEvents

        return SessionEvents(self._current())

    # --- looking ---

    @overload
    def status(self) -> wire.ServerStatus: ...

    @overload
    def status(self, name: str) -> Optional[wire.LockStatus]: ...

    def status(
        self, name: Optional[str] = None
    ) -> Union[wire.ServerStatus, Optional[wire.LockStatus]]:
        """Status of the coordinator; with a name, of that lock: None if it is not in use."""
        with self._observer() as observer:
            return observer.server_status() if name is None else observer.lock(name)

    def watch(self, name: str) -> Iterator[Optional[wire.LockStatus]]:
        """The state of the lock, now and after each change of its holders; None while unused."""
        return self._observer().watch(name)

    def leaders(self, name: str) -> "Iterator[Optional[Leader]]":
        """The leader, now and after each change; None while there is none."""
        return self._observer().leaders(name)

    def events(self, name: Optional[str] = None) -> "Iterator[Union[wire.Event, wire.Missed, Gap]]":
        """What happens to requests from now on, of one lock or of all: see `Observer.events`."""
        return self._observer().events(name)

    # --- the end ---

    def close(self) -> None:
        """Ends the session, which frees all its locks at once: they are lost."""
        self._closed = True
        if self._opening is not None:
            self._opening.give_up()
        if self._session is not None:
            self._session.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        try:
            if self._session is not None:
                self._session.leave()
        except Exception:
            pass  # The interpreter is at its end.


_defaults: Dict[Any, Client] = {}
_clients: "weakref.WeakSet[Client]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    # Before any thread can use them: two at once would each undo what the other has begun.
    for client in list(_clients):
        client._reset()  # Its session is the parent's.


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def default_client(
    server: Optional[_dial.Servers] = None, *, ttl: Optional[float] = None
) -> Client:
    """The client of locks without one: one per server, ttl and process."""
    return default_for(_dial.shown(_dial.parse_servers(server)), ttl)


def default_for(server: str, ttl: Optional[float]) -> Client:
    """The same for servers as they are shown."""
    client = _defaults.get((server, ttl))
    if client is not None and client._closed:
        _forget(client)
        client = None
    # No lock, which a signal's handler could come upon: the first that is in it is everybody's.
    return client or _defaults.setdefault((server, ttl), Client(server, ttl=ttl))


def _forget(client: Client) -> None:
    for key in [key for key, known in list(_defaults.items()) if known is client]:
        _defaults.pop(key, None)


# Each needs the other; and an import at the time of use takes a lock that signals can upset.
from . import _locks  # noqa: E402
