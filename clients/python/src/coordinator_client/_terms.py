"""What was asked for, checked before anything is sent."""

from __future__ import annotations

import os
import socket
import threading
from typing import Callable, Iterable, List, Optional, Tuple

from . import _wire as wire
from ._core import TTL_MAX_MS, TTL_MIN_MS, Ask, Introduction
from ._dial import Servers, parse_servers, shown
from ._errors import InvalidRequest

NAME_LEN_MAX = 255
NOTE_LEN_MAX = 255
IDENTITY_LEN_MAX = 128
LOCK_DELAY_MAX = 60.0
AT_LEAST_MAX = 7 * 86_400.0
PERMITS_MAX = 2**32 - 1
FOREVER = wire.Forever()


def text(value: str, what: str, length_max: int, empty: bool = True) -> str:
    """The text, if it is one that can be shown on a line."""
    if not isinstance(value, str):
        raise InvalidRequest(f"invalid {what}: it is {type(value).__name__}, not text")
    try:
        length = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise InvalidRequest(f"invalid {what}: it is not UTF-8") from None
    if not empty and not value:
        raise InvalidRequest(f"invalid {what}: it is empty")
    if length > length_max:
        raise InvalidRequest(f"invalid {what}: {length} bytes, at most {length_max} are allowed")
    for character in value:
        code = ord(character)
        if code < 0x20 or 0x7F <= code <= 0x9F or code in (0x2028, 0x2029):
            raise InvalidRequest(f"invalid {what}: it contains the control character U+{code:04X}")
    return value


def lock_name(name: str) -> str:
    """The name, if it is one for a lock.

    >>> lock_name("orders/42")
    'orders/42'
    """
    return text(name, "lock name", NAME_LEN_MAX, empty=False)


def permits(take: int, of: int) -> wire.Permits:
    """So many of the permits of a semaphore."""
    for number, what in ((take, "take"), (of, "permits")):
        if isinstance(number, bool) or not isinstance(number, int):
            raise InvalidRequest(f"invalid {what}: {number!r} is not a whole number")
    if not 1 <= take <= of <= PERMITS_MAX:
        raise InvalidRequest(
            f"invalid permits: {take} of {of}", "take must be between 1 and the number of permits"
        )
    return wire.Permits(take, of)


def claims(
    exclusive: Iterable[str] = (),
    shared: Iterable[str] = (),
    semaphores: Iterable[Tuple[str, int, int]] = (),
) -> List[wire.Claim]:
    """Locks that are granted together."""
    for names in (exclusive, shared):
        if isinstance(names, str):
            raise InvalidRequest("a list of names is needed", f'say ["{names}"]')
    wanted = [wire.Claim(lock_name(name), wire.Exclusive()) for name in exclusive]
    wanted += [wire.Claim(lock_name(name), wire.Shared()) for name in shared]
    wanted += [wire.Claim(lock_name(name), permits(t, of)) for name, t, of in semaphores]
    if not 1 <= len(wanted) <= wire.CLAIMS_MAX:
        count, most = len(wanted), wire.CLAIMS_MAX
        raise InvalidRequest(f"{count} locks in one request, 1 to {most} are allowed")
    names = [claim.name for claim in wanted]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f'"{twice}" is named twice', "name each lock once")
    return wanted


def number(length: float, what: str) -> float:
    """The length, if it is one."""
    if isinstance(length, bool) or not isinstance(length, (int, float)) or length != length:
        raise InvalidRequest(f"invalid {what}: {length!r} is no number of seconds")
    return length


def patience_to_connect(length: float) -> float:
    """How long connecting may take.

    >>> patience_to_connect(5.0)
    5.0
    """
    if not 0 < number(length, "connect timeout") <= threading.TIMEOUT_MAX:
        raise InvalidRequest(
            f"invalid connect timeout: {length:g} s",
            f"more than 0 s, and at most {threading.TIMEOUT_MAX:g} s are allowed",
        )
    return length


def length_ms(length: float, what: str, longest: float) -> int:
    """A length in milliseconds, rounded up."""
    if not 0 <= number(length, what) <= longest:
        raise InvalidRequest(f"invalid {what}: {length:g} s, from 0 to {longest:g} s are allowed")
    return -int(-length * 1000 // 1)


def wait(blocking: bool, timeout: float) -> wire.Wait:
    """How long to wait, in the words of `threading.Lock.acquire`."""
    if not blocking:
        if timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        return wire.Never()
    if timeout == -1:
        return FOREVER
    if timeout < 0:
        raise ValueError("timeout value must be a non-negative number")
    if timeout > threading.TIMEOUT_MAX:
        raise OverflowError("timeout value is too large")
    ms = -int(-timeout * 1000 // 1)
    return wire.Timeout(ms) if ms else wire.Never()


def patience(wait: wire.Wait, connect_timeout: float) -> Optional[float]:
    """How long to wait for an answer at most; None: for ever."""
    if isinstance(wait, wire.Timeout):
        return wait.ms / 1000
    return connect_timeout if isinstance(wait, wire.Never) else None


def ask(
    wanted: List[wire.Claim],
    *,
    note: str = "",
    lock_delay: float = 0,
    at_least: float = 0,
    owner: int = 0,
    supersede: bool = False,
    progress: bool = False,
) -> Ask:
    """A request that waits for ever."""
    return Ask(
        wanted,
        FOREVER,
        owner=owner,
        lock_delay_ms=length_ms(lock_delay, "lock delay", LOCK_DELAY_MAX),
        at_least_ms=length_ms(at_least, "minimum hold time", AT_LEAST_MAX),
        note=text(note, "note", NOTE_LEN_MAX),
        supersedes=supersede,
        progress=progress,
    )


def introduction(
    ttl: Optional[float], linger: Optional[float], identity: Optional[str]
) -> Introduction:
    """Who says Hello."""
    ttl_ms = 0
    if ttl is not None:
        ttl_ms = int(min(max(number(ttl, "ttl"), 0), TTL_MAX_MS) * 1000)
        if not TTL_MIN_MS <= ttl_ms <= TTL_MAX_MS:
            raise InvalidRequest(f"a ttl of {ttl:g} s is not between 2 s and 1 h")
    linger_ms = None
    if linger is not None:
        linger_ms = length_ms(linger, "linger", (2**32 - 1) / 1000)
    if identity is None:
        identity = default_identity()
    return Introduction(ttl_ms, linger_ms, text(identity, "identity", IDENTITY_LEN_MAX))


def default_identity() -> str:
    """Who this is, by custom ``user@host:pid``."""
    try:
        import getpass

        user = getpass.getuser()
    except Exception:  # In many containers there is no name for whom processes belong to.
        user = f"uid{os.getuid()}" if hasattr(os, "getuid") else "someone"
    pid = f":{os.getpid()}"
    who = "".join(c for c in f"{user}@{socket.gethostname()}" if c.isprintable())
    room = IDENTITY_LEN_MAX - len(pid)
    return who.encode("utf-8", "ignore")[:room].decode("utf-8", "ignore") + pid


def first_name(ask: Ask) -> str:
    """What a request is called in errors."""
    return ask.claims[0].name


class Wish:
    """What a lock object was made with: the same for threads and for asyncio."""

    __slots__ = ("ask", "server", "ttl", "blocking", "timeout", "busy", "on_queued")

    def __init__(
        self,
        wanted: List[wire.Claim],
        *,
        server: Optional[Servers] = None,
        has_client: bool = False,
        blocking: bool = True,
        timeout: float = -1,
        ttl: Optional[float] = None,
        note: str = "",
        lock_delay: float = 0,
        at_least: float = 0,
        supersede: bool = False,
        owner: int = 0,
        busy: str = "raise",
        on_queued: Optional[Callable[[int], None]] = None,
    ):
        wait(blocking, timeout)
        if busy not in ("raise", "skip"):
            raise InvalidRequest('busy must be "raise" or "skip"')
        if has_client and (server is not None or ttl is not None):
            raise InvalidRequest("server and ttl belong to the client", "pass them to the client")
        introduction(ttl, None, "")
        self.ask = ask(
            wanted, note=note, lock_delay=lock_delay, at_least=at_least, owner=owner,
            supersede=supersede, progress=on_queued is not None,
        )  # fmt: skip
        # As it is shown; of no use where there is a client.
        self.server = "" if has_client else shown(parse_servers(server))
        self.ttl, self.blocking, self.timeout, self.busy = ttl, blocking, timeout, busy
        self.on_queued = on_queued

    @property
    def name(self) -> str:
        """Name of the lock, or of the first of several."""
        return first_name(self.ask)

    def patience(self, blocking: Optional[bool], timeout: Optional[float]) -> Tuple[bool, float]:
        """How long to wait: as said now, as in `threading.Lock`, or else as said at first."""
        if blocking is None and timeout is None:
            return self.blocking, self.timeout
        return (True if blocking is None else bool(blocking)), (-1 if timeout is None else timeout)
