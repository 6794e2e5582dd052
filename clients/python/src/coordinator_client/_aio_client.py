"""The session of a loop and its owners."""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from typing import (
    TYPE_CHECKING, Any, AsyncGenerator, AsyncIterator, Dict, Iterable, List, Optional, Tuple, Union,
    overload,
)  # fmt: skip

from . import _dial, _search, _terms, _wire as wire
from ._aio_hold import Hold
from ._base import BaseClient, BaseOwner
from ._desk import Grasp
from ._errors import Closed, InvalidRequest, LockBusy, LockTimeout, anew, silent
from ._loop import Session, open_session
from ._report import Feed, SessionEvent

if TYPE_CHECKING:
    from ._look import Gap, Leader
    from ._loop_look import Observer

CONNECT_TIMEOUT = 5.0


class Owner(BaseOwner):
    __doc__ = BaseOwner.__doc__

    def lock(self, name: str, **settings: Any) -> "_aio_locks.Lock":
        """A `Lock` of this owner."""
        return _aio_locks.Lock(name, owner=self, **settings)

    def lock_all(self, names: Iterable[str] = (), **settings: Any) -> "_aio_locks.MultiLock":
        """A `MultiLock` of this owner."""
        return _aio_locks.MultiLock(names, owner=self, **settings)

    def semaphore(self, name: str, permits: int, **settings: Any) -> "_aio_locks.Semaphore":
        """A `Semaphore` of this owner."""
        return _aio_locks.Semaphore(name, permits, owner=self, **settings)


class Client(BaseClient):
    """A session with a coordinator, opened at its first use, on the running loop.

    The settings are those of `coordinator_client.Client`. It belongs to that loop.
    """

    _where = "coordinator_client.aio"

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
        self._owners = 0
        self._pid = os.getpid()
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._opening: "Optional[asyncio.Task[Session]]" = None

    def _observer(self) -> "Observer":
        """Looks where this client is, as whom it is."""
        from ._loop_look import Observer

        return Observer(
            self.server,
            timeout=self.connect_timeout,
            tls=self._tls,
            credential=self._credential,
        )

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
        current: Optional[Session] = self._session
        if current is not None and not current.is_over:
            return current
        opening = self._opening
        if opening is None or opening.done():
            dialer = _search.Dialer(self._servers, self.connect_timeout)
            self._search = _search.Search(dialer, self.connect_timeout, timeout)
            opening = self._opening = loop.create_task(self._open(dialer, self._search))
            # Perhaps nobody waits for it any more.
            opening.add_done_callback(lambda over: over.cancelled() or over.exception())
        # Who is cancelled, or gives up, takes nothing from the others that wait for it. It has a
        # limit of its own.
        is_longer = timeout is None or timeout >= self.connect_timeout
        await asyncio.wait([opening], timeout=None if is_longer else timeout)
        if not opening.done():
            raise silent(self.server, timeout or 0, self._search.told())
        if opening.cancelled():
            raise Closed("the client was closed")
        error = opening.exception()
        if error is not None:
            raise anew(error)
        return opening.result()

    async def _open(self, dialer: _search.Dialer, search: _search.Search) -> Session:
        introduction = _terms.introduction(self._ttl, self._linger, self._identity)
        try:
            self._session = session = await open_session(dialer, search, introduction)
        finally:
            self._opening = None
        if self._closed:
            await session.close()
            raise Closed("the client was closed")
        return session

    async def _acquire(
        self, wish: _terms.Wish, wait: wire.Wait, waits: List[Tuple[Session, Grasp]]
    ) -> Hold:
        ask = wish.ask
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
            grasp = await session.acquire(ask, left, begun, wish.on_queued)
        except LockTimeout as error:
            raise LockTimeout(error.lock, timeout or 0) from None
        finally:
            for pair in waited:
                waits.remove(pair)
        return Hold(session, grasp, self)

    def lock(self, name: str, **settings: Any) -> "_aio_locks.Lock":
        """A `Lock` of this client."""
        return _aio_locks.Lock(name, client=self, **settings)

    def rlock(self, name: str, **settings: Any) -> "_aio_locks.RLock":
        """An `RLock` of this client."""
        return _aio_locks.RLock(name, client=self, **settings)

    async def try_lock(self, name: str, **settings: Any) -> Optional[Hold]:
        """The held lock if it is free now, else None."""
        try:
            return await self.lock(name, **settings)._acquire(False, -1)
        except LockBusy:
            return None

    def lock_all(self, names: Iterable[str] = (), **settings: Any) -> "_aio_locks.MultiLock":
        """A `MultiLock` of this client."""
        return _aio_locks.MultiLock(names, client=self, **settings)

    def semaphore(self, name: str, permits: int, **settings: Any) -> "_aio_locks.Semaphore":
        """A `Semaphore` of this client."""
        return _aio_locks.Semaphore(name, permits, client=self, **settings)

    def owner(self) -> Owner:
        """A new owner: another thread of control, see `Owner`."""
        self._owners += 1
        return Owner(self, self._owners)

    def elect(self, name: str, value: str = "", **settings: Any) -> "_aio_locks.Lock":
        """A lock whose holder is the leader; `leaders` shows it with this value."""
        return _aio_locks.Lock(name, client=self, note=value, **settings)

    @overload
    async def status(self) -> wire.ServerStatus: ...

    @overload
    async def status(self, name: str) -> Optional[wire.LockStatus]: ...

    async def status(
        self, name: Optional[str] = None
    ) -> Union[wire.ServerStatus, Optional[wire.LockStatus]]:
        """Status of the coordinator; with a name, of that lock: None if it is not in use."""
        async with self._observer() as observer:
            return await (observer.server_status() if name is None else observer.lock(name))

    async def session_events(self) -> AsyncGenerator[SessionEvent, None]:
        """What becomes of the session, from the first step of it on; connects if need be.

        For logs and health checks. It ends after the event ``closed``.
        """
        session = await self._current()
        bell = asyncio.Event()
        feed = Feed(bell.set)
        session.desk.listen(feed)
        session.turn()
        try:
            while True:
                bell.clear()
                event = feed.pop()
                while event is not None:
                    yield event
                    if event.kind == "closed":
                        return
                    event = feed.pop()
                await bell.wait()
        finally:
            session.desk.listen_no_more(feed)

    def watch(self, name: str) -> AsyncIterator[Optional[wire.LockStatus]]:
        """The state of the lock, now and after each change of its holders; None while unused."""
        return self._observer().watch(name)

    def leaders(self, name: str) -> AsyncIterator[Optional[Leader]]:
        """The leader, now and after each change; None while there is none."""
        return self._observer().leaders(name)

    def events(
        self, name: Optional[str] = None
    ) -> "AsyncIterator[Union[wire.Event, wire.Missed, Gap]]":
        """What happens to requests from now on, of one lock or of all: see `Observer.events`."""
        return self._observer().events(name)

    async def close(self) -> None:
        """Ends the session, which frees all its locks at once: they are lost."""
        self._closed = True
        opening = self._opening
        if opening is not None and self._pid == os.getpid():
            opening.cancel()
            await asyncio.wait([opening])
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


# Each needs the other; and an import at the time of use takes a lock that signals can upset.
from . import _aio_locks  # noqa: E402
