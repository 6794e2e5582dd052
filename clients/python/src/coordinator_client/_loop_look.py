"""`observe` for asyncio."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import (
    TYPE_CHECKING, Any, AsyncGenerator, AsyncIterator, Callable, List, Optional, Tuple, TypeVar,
    Union,
)  # fmt: skip

from . import _dial, _look, _search, _terms, _wire as wire
from ._errors import Unavailable, unavailable
from ._look import KEEP_ALIVE_EVERY, Gap, Interest, Leader, Listening, Terms, Watching

if TYPE_CHECKING:
    from ._tls import Secure

Seen = TypeVar("Seen")


class _Line:
    """A connection without a session."""

    def __init__(self, dialer: _search.Dialer):
        self._dialer = dialer
        self.server, self._timeout = _dial.shown(dialer.servers), dialer.timeout
        self._frames = wire.Frames()
        self._messages: List[wire.ServerMessage] = []
        self._next_id = 1
        self._reading: "Optional[asyncio.Future[bytes]]" = None
        # What its bytes go through, where the server speaks TLS.
        self._secure: "Optional[Secure]" = None

    async def open(self, plan: _search.Plan, share: float) -> "_Line":
        loop = asyncio.get_running_loop()
        try:
            dialing = loop.run_in_executor(None, lambda: plan.connect(share))
            try:
                server, sock = await asyncio.shield(dialing)
            except asyncio.CancelledError:
                dialing.add_done_callback(_close_result)
                raise
            if not isinstance(sock, socket.socket):
                self._secure, sock = sock.secure, sock.sock
            self._reader, self._writer = await asyncio.open_connection(sock=sock)
        except OSError as error:
            raise unavailable(self.server, error) from error
        self._dialer.reached(server)
        try:
            self._write(_look.hello())
            self._dialer.check_welcome(await self._receive_in_time(share))
        except wire.WireError as error:
            self.close()
            raise _look.no_welcome(self.server, error) from error
        except BaseException:
            self.close()
            raise
        return self

    def _write(self, data: bytes) -> None:
        try:
            self._writer.write(data if self._secure is None else self._secure.seal(data))
        except OSError as error:
            raise unavailable(self.server, error) from error

    async def _receive_in_time(self, timeout: Optional[float] = None) -> wire.ServerMessage:
        timeout = self._timeout if timeout is None else timeout
        message = await self._receive(timeout)
        if message is None:
            raise unavailable(self.server, f"no answer within {timeout:.3g} s")
        return message

    async def _receive(self, timeout: float) -> Optional[wire.ServerMessage]:
        """The next message, `KeptAlive` too; None if none comes in time."""
        give_up_at = time.monotonic() + timeout
        while not self._messages:
            try:
                data = await self._read(max(give_up_at - time.monotonic(), 0))
                if data is None:
                    return None
                if data and self._secure is not None:
                    data = self._secure.open(data)
                    self._writer.write(self._secure.reply())
                    if not data and not self._secure.is_over:
                        continue
            except OSError as error:
                raise unavailable(self.server, error) from error
            if not data:
                raise unavailable(self.server, "it closed the connection")
            payloads = self._frames.feed(data)
            self._messages += [wire.decode_server(payload) for payload in payloads]
        return _look.check(self._messages.pop(0), self.server)

    async def _read(self, timeout: float) -> Optional[bytes]:
        """What comes; None if nothing comes in time. A read that is begun is the next one's."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._reader.read(64 * 1024))
        # Not wait_for, which before 3.12 may swallow a cancellation.
        await asyncio.wait([self._reading], timeout=timeout)
        if not self._reading.done():
            return None
        reading, self._reading = self._reading, None
        return reading.result()

    def next_if(self) -> Optional[wire.ServerMessage]:
        """A message that is there already."""
        while self._messages:
            message = self._messages.pop(0)
            if not isinstance(message, wire.KeptAlive):
                return _look.check(message, self.server)
        return None

    async def ask(self, build: Callable[[int], Any]) -> wire.ServerMessage:
        self._next_id += 1
        self._write(wire.encode(build(self._next_id)))
        message = await self._receive_in_time()
        while isinstance(message, wire.KeptAlive):
            message = await self._receive_in_time()
        return message

    async def listen(self) -> wire.ServerMessage:
        """The next message, however long that takes, while the server is there."""
        while True:
            message = await self._receive(KEEP_ALIVE_EVERY)
            if message is None:
                self._next_id += 1
                self._write(wire.encode(wire.KeepAlive(self._next_id)))
                message = await self._receive_in_time()
            if not isinstance(message, wire.KeptAlive):
                return message

    def close(self) -> None:
        if self._reading is not None:
            # What it came to is heard by nobody, whatever that was.
            self._reading.add_done_callback(lambda over: over.cancelled() or over.exception())
            self._reading.cancel()
        writer = getattr(self, "_writer", None)
        if writer is not None:
            writer.transport.abort()


def _close_result(dialing: "asyncio.Future[Tuple[_dial.Server, _dial.Connection]]") -> None:
    if not dialing.cancelled() and dialing.exception() is None:
        dialing.result()[1].close()


class Observer:
    """Observes a coordinator, and revokes grants.

    It connects at its first use, and again after errors.
    """

    def __init__(
        self,
        server: Optional[_dial.Servers] = None,
        *,
        timeout: float = 5.0,
        tls: Optional[_dial.AnyTls] = None,
        credential: Optional[str] = None,
    ):
        self._dialer = _search.Dialer(_dial.parse_servers(server, tls, credential), timeout)
        self._timeout = _terms.patience_to_connect(timeout)
        self._line: Optional[_Line] = None

    async def _open(self, hint: Optional[str] = None) -> _Line:
        search = _search.Search(self._dialer, self._timeout, hint=hint)
        while True:
            try:
                return await _Line(self._dialer).open(search.plan(), search.share())
            except BaseException as error:
                pause = search.after(error)
            await asyncio.sleep(pause)

    async def _ask(self, build: Callable[[int], Any]) -> wire.ServerMessage:
        if self._line is None:
            self._line = await self._open()
        try:
            return await self._line.ask(build)
        except (Unavailable, asyncio.CancelledError):
            self.close()
            raise

    async def _look(self, look: "_look.Look[Seen]") -> Seen:
        try:
            query = next(look)
            while True:
                query = look.send(await self._ask(lambda number: wire.Inspect(number, query)))
        except StopIteration as seen:
            return seen.value  # type: ignore[no-any-return]

    async def server_status(self) -> wire.ServerStatus:
        """Status of the coordinator."""
        return await self._look(_look.server_status())

    async def cluster(self) -> Optional[wire.ClusterStatus]:
        """The cluster that the coordinator leads; None: it is in none."""
        return await self._look(_look.cluster())

    async def waited(self) -> wire.WaitedStatus:
        """For how long grants were waited for in this run of the coordinator."""
        return await self._look(_look.waited())

    async def rights(self, name: str) -> List[str]:
        """What may be done with a lock: of `lock`, `share`, `see` and `break`."""
        return await self._look(_look.rights(name))

    async def journal(self) -> wire.JournalStatus:
        """The journal of the coordinator, and how its run began."""
        return await self._look(_look.journal())

    async def ping(self) -> float:
        """How many seconds the coordinator takes to answer."""
        asked = time.perf_counter()
        await self.server_status()
        return time.perf_counter() - asked

    async def locks(self) -> List[wire.LockStatus]:
        """All locks in use."""
        return await self._look(_look.pages(wire.QueryLocks, wire.LocksSeen, "locks"))

    async def contended(self) -> List[wire.LockStatus]:
        """The locks that somebody waits for: the only ones to look at where many are in use."""
        return await self._look(_look.pages(wire.QueryContended, wire.LocksSeen, "locks"))

    async def lock(self, name: str) -> Optional[wire.LockStatus]:
        """Holders and waiters of the lock; None if it has none."""
        return await self._look(_look.lock(name))

    async def sessions(self) -> List[wire.SessionStatus]:
        """All sessions."""
        return await self._look(_look.pages(wire.QuerySessions, wire.SessionsSeen, "sessions"))

    async def outlook(self, name: str) -> Optional[wire.Outlook]:
        """When the lock will be free, as far as known; None if unknown."""
        return await self._look(_look.outlook(name))

    async def outlooks(self) -> List[wire.Outlook]:
        """The same for all locks of which it is known."""
        return await self._look(_look.pages(wire.QueryOutlooks, wire.OutlooksSeen, "locks"))

    async def revoke(self, name: str, token: int) -> None:
        """Revokes the grant with this token, and notifies its holder."""
        _terms.lock_name(name)
        await self._ask(lambda number: wire.Revoke(number, name, token))

    def watch(self, name: str) -> AsyncIterator[Optional[wire.LockStatus]]:
        """The state of the lock, now and after each change of its holders; None while unused.

        It reconnects by itself.
        """
        return self._follow(Watching(name))

    async def leaders(self, name: str) -> AsyncIterator[Optional[Leader]]:
        """The leader, now and after each change; None while there is none."""
        terms = Terms()
        async for seen in self.watch(name):
            for leader in terms.news(seen):
                yield leader

    def events(
        self, name: Optional[str] = None
    ) -> AsyncIterator[Union[wire.Event, wire.Missed, Gap]]:
        """What happens to requests, of one lock or of all, from the first step of it on.

        `Missed` counts what was read too slowly. After a `Gap`, over another connection, nobody
        counted.
        """
        return self._follow(Listening(name))

    async def _follow(self, interest: Interest) -> AsyncGenerator[Any, None]:
        """Tells what there is to tell, over one connection after another."""
        leader = None
        while True:
            line = None
            try:
                line = await self._open(leader)
                first = await line.ask(interest.request)
                interest.connected()
                for seen in interest.news(first, True):
                    yield seen
                while True:
                    heard = await line.listen()
                    later = line.next_if() if interest.is_state else None
                    while later is not None:
                        heard, later = later, line.next_if()
                    for seen in interest.news(heard, False):
                        yield seen
            except Exception as error:
                if not interest.has_begun or not _look.is_retryable(error):
                    raise
                leader = _look.named_leader(error)
                if line is not None:
                    for seen in interest.gap(error):
                        yield seen
            finally:
                if line is not None:
                    line.close()
            await asyncio.sleep(interest.pause(self._timeout))

    def close(self) -> None:
        """Closes the connection, if there is one."""
        if self._line is not None:
            self._line.close()
            self._line = None

    async def __aenter__(self) -> "Observer":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
