"""A connection of an asyncio loop."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Optional, Protocol, cast

from . import _dial, _wire as wire

if TYPE_CHECKING:
    from ._tls import Secure

READ_BYTES_MAX = 16 * 1024


class Listener(Protocol):
    """Who hears it: the session."""

    loop: asyncio.AbstractEventLoop

    def heard(self, link: "Link", data: bytes) -> None: ...

    def connection_over(self, link: "Link", error: Optional[BaseException]) -> None: ...


class Link(asyncio.BufferedProtocol):
    """A connection: being made, or there.

    It reads into memory of its own: asyncio would take 256 KiB from the system for each answer.
    """

    def __init__(self, session: Listener, number: int):
        self.session = session
        self.number = number
        self.transport: Optional[asyncio.Transport] = None
        self.frames = wire.Frames()
        self.is_dropped = False
        self._read = memoryview(bytearray(READ_BYTES_MAX))
        # What its bytes go through, where the server speaks TLS.
        self.secure: "Optional[Secure]" = None

    async def begin(self, connection: _dial.Connection) -> None:
        """Takes a connection that is there."""
        if not isinstance(connection, socket.socket):
            self.secure, connection = connection.secure, connection.sock
        await self.session.loop.create_connection(lambda: self, sock=connection)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Those of other loops, as uvloop's, are no subclass.
        self.transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._read

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._read[:nbytes])
        if self.secure is not None:
            data = self._opened(self.secure, data)
            if not data:
                return
        if not self.is_dropped:
            self.session.heard(self, data)

    def _opened(self, secure: "Secure", data: bytes) -> bytes:
        try:
            data = secure.open(data)
        except OSError:
            data = b""
        reply = secure.reply()
        if reply and self.transport is not None:
            self.transport.write(reply)
        if not data and (secure.failure is not None or secure.is_over):
            self.connection_lost(None)
        return data

    def connection_lost(self, exc: Optional[Exception]) -> None:
        if not self.is_dropped:
            failure = self.secure.failure if self.secure is not None else None
            self.session.connection_over(self, failure or exc)

    def put(self, data: bytes) -> None:
        if self.transport is not None and data:
            try:
                self.transport.write(data if self.secure is None else self.secure.seal(data))
            except OSError:
                pass  # TLS has failed, and it is told where it reads.

    def drop(self) -> None:
        self.is_dropped = True
        if self.transport is not None:
            self.transport.abort()
