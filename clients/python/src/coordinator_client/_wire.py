"""The messages of protocol 1 and their bytes: the tables of docs/protocol.md, as data.

Each class below is one row of those tables. The annotations name the types on the wire, and the
codec is made of them. A variant's number is its place in the list of its choice. Nothing here opens
a socket or knows what a message means.

>>> encode(Cancel(7)).hex()
'0c000000030000000700000000000000'
>>> decode_client(encode(Cancel(7))[4:])
Cancel(request=7)
"""

from __future__ import annotations

import struct
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, Type, Union

PROTOCOL = 1
FRAME_LEN_MAX = 64 * 1024
HELLO_LEN_MAX = 1024
CLAIMS_MAX = 64

# The types of the tables. For a type checker they are what Python makes of them.
u16 = int
u32 = int
u64 = int
u128 = int
string = str


class WireError(ValueError):
    """The bytes are no message of this protocol, or the message has no form in bytes."""


# --- choices and structures ----------------------------------------------------------------------


class New(NamedTuple):
    """Attach: a new session."""


class Resume(NamedTuple):
    """Attach: a session that lives already."""

    session: u128
    secret: u128
    generation: u64


class Observer(NamedTuple):
    """Attach: none."""


class Forever(NamedTuple):
    """Wait until it can be granted."""


class Timeout(NamedTuple):
    """Wait so long at most."""

    ms: u64


class Never(NamedTuple):
    """Do not wait."""


class Exclusive(NamedTuple):
    """Mode: alone."""


class Shared(NamedTuple):
    """Mode: together with other shared holders."""


class Permits(NamedTuple):
    """Mode: ``take`` of the ``of`` permits of a semaphore."""

    take: u32
    of: u32


class QueryServer(NamedTuple):
    """Query: the coordinator as a whole."""


class QueryLocks(NamedTuple):
    """Query: a page of all locks."""

    cursor: u64


class QueryLock(NamedTuple):
    """Query: one lock."""

    name: string


class QuerySessions(NamedTuple):
    """Query: a page of all sessions."""

    cursor: u64


class QueryOutlook(NamedTuple):
    """Query: until when one lock is not to be had."""

    name: string


class QueryOutlooks(NamedTuple):
    """Query: the same of all locks, a page of them."""

    cursor: u64


class AtLeast(NamedTuple):
    """Extra: the locks go to nobody else until so long after the grant."""

    ms: u64


class AfterLoss(NamedTuple):
    """After: the holder was lost, and had asked for a lock delay."""


class AfterGrant(NamedTuple):
    """After: the holder is gone, and had asked to keep the lock for so long from the grant on."""


class Opened(NamedTuple):
    """Standing: the session is new."""


class Resumed(NamedTuple):
    """Standing: the server knows everything of the session."""


class Reopened(NamedTuple):
    """Standing: the server only knows that the session was."""

    grace_ms: u64


class HappenedRequested(NamedTuple):
    """Happening: the request came."""


class HappenedQueued(NamedTuple):
    """Happening: it begins to wait."""

    position: u64


class HappenedGranted(NamedTuple):
    """Happening: it holds its locks."""

    token: u64


class HappenedReleased(NamedTuple):
    """Happening: it gave its locks back."""

    token: u64


class HappenedCancelled(NamedTuple):
    """Happening: it was given up."""


class HappenedLost(NamedTuple):
    """Happening: it lost its locks."""

    token: u64
    reason: u16


class HappenedRejected(NamedTuple):
    """Happening: it was answered no."""

    code: u16
    message: string


Attach = Union[New, Resume, Observer]
Wait = Union[Forever, Timeout, Never]
Mode = Union[Exclusive, Shared, Permits]
Query = Union[QueryServer, QueryLocks, QueryLock, QuerySessions, QueryOutlook, QueryOutlooks]
Extra = Union[AtLeast, AtLeast]
After = Union[AfterLoss, AfterGrant]
Standing = Union[Opened, Resumed, Reopened]
Happening = Union[
    HappenedRequested, HappenedQueued, HappenedGranted, HappenedReleased, HappenedCancelled,
    HappenedLost, HappenedRejected,
]  # fmt: skip


class Claim(NamedTuple):
    """A lock and how it is wanted."""

    name: string
    mode: Mode


class Held(NamedTuple):
    """A request that its client believes to hold."""

    request: u64
    token: u64


class Ticket(NamedTuple):
    """The place of a request that waits. Opaque."""

    epoch: u64
    arrival: u64


class CycleLink(NamedTuple):
    """One of those who would wait for each other for ever."""

    session: u128
    identity: string
    owner: u64
    request: u64
    lock: string
    held_with: u64


class ServerStatus(NamedTuple):
    """The coordinator as a whole."""

    version: string
    epoch: u64
    uptime_ms: u64
    draining: bool
    connections: u64
    sessions: u64
    locks: u64
    held: u64
    waiting: u64
    grants: u64
    expired: u64
    protocol_errors: u64
    slow_readers: u64
    handshake_timeouts: u64
    connections_refused: u64
    last_token: u64
    grace_ms: u64
    unsaved_ms: u64


class Holder(NamedTuple):
    """Who holds a lock."""

    session: u128
    identity: string
    peer: string
    owner: u64
    request: u64
    mode: Mode
    token: u64
    held_ms: u64
    note: string
    connected: bool


class Waiter(NamedTuple):
    """Who waits for a lock."""

    session: u128
    identity: string
    peer: string
    owner: u64
    request: u64
    mode: Mode
    waiting_ms: u64
    note: string


class LockStatus(NamedTuple):
    """A lock in use: who holds it and who waits, the first few of both."""

    name: string
    holders: List[Holder]
    holder_count: u64
    waiters: List[Waiter]
    waiter_count: u64


class SessionStatus(NamedTuple):
    """A session."""

    session: u128
    identity: string
    peer: string
    connected: bool
    age_ms: u64
    ttl_ms: u32
    lease_left_ms: u64
    held: u64
    waiting: u64


class Pause(NamedTuple):
    """Why a lock is not granted though it has room."""

    after: After
    session: u128
    identity: string
    token: u64
    granted_ms: u64
    length_ms: u64
    left_ms: u64


class Outlook(NamedTuple):
    """Until when a lock is not to be had."""

    name: string
    free_ms: Optional[u64]
    pauses: List[Pause]


# --- messages of the client ----------------------------------------------------------------------


class Hello(NamedTuple):
    """Who is there. The first message of a connection."""

    protocol: u32
    attach: Attach
    ttl_ms: u32
    linger_ms: Optional[u32]
    identity: string
    epoch_seen: u64
    token_seen: u64


class Request(NamedTuple):
    """Asks for locks."""

    request: u64
    owner: u64
    converts: Optional[u64]
    wait: Wait
    progress: bool
    lock_delay_ms: u32
    note: string
    ticket: Optional[Ticket]
    claims: List[Claim]


class Release(NamedTuple):
    """Gives back what a request holds."""

    request: u64
    token: u64


class Cancel(NamedTuple):
    """Gives a request up."""

    request: u64


class KeepAlive(NamedTuple):
    """Renews the lease."""

    sequence: u64


class Goodbye(NamedTuple):
    """Ends the session."""


class Inspect(NamedTuple):
    """Asks for a look."""

    query_id: u64
    query: Query


class Revoke(NamedTuple):
    """Takes a lock away from whoever holds it with this token."""

    query_id: u64
    name: string
    token: u64


class Reclaim(NamedTuple):
    """Asks for what was held before the coordinator crashed."""

    request: u64
    token: u64
    seal: u128
    owner: u64
    lock_delay_ms: u32
    note: string
    claims: List[Claim]


class Account(NamedTuple):
    """Which of its requests the client knows of."""

    from_: u64
    to: u64
    held: List[Held]
    waiting: List[u64]


class Watch(NamedTuple):
    """Wants to see a lock whenever its holders change."""

    query_id: u64
    name: string


class Subscribe(NamedTuple):
    """Wants to hear of everything that happens to requests."""

    query_id: u64
    name: Optional[string]


class RequestWith(NamedTuple):
    """A request that wants something besides."""

    request: Request
    extras: List[Extra]


class ReclaimWith(NamedTuple):
    """A reclaim of such a request."""

    reclaim: Reclaim
    extras: List[Extra]


# --- messages of the server ----------------------------------------------------------------------


class Welcome(NamedTuple):
    """The connection is for this session now."""

    protocol: u32
    server: string
    epoch: u64
    session: u128
    secret: u128
    generation: u64
    ttl_ms: u32
    standing: Standing


class Grant(NamedTuple):
    """The request's locks are held from now on."""

    request: u64
    token: u64
    seal: u128


class Queued(NamedTuple):
    """The request waits."""

    request: u64
    position: u64
    ticket: Ticket


class Released(NamedTuple):
    """The request's locks are free, as asked."""

    request: u64


class Cancelled(NamedTuple):
    """The request is given up."""

    request: u64


class Lost(NamedTuple):
    """The request's locks are no longer its holder's."""

    request: u64
    token: u64
    reason: u16


class Rejected(NamedTuple):
    """No."""

    request: u64
    code: u16
    message: string
    lock: Optional[LockStatus]
    cycle: List[CycleLink]


class KeptAlive(NamedTuple):
    """The lease is renewed."""

    sequence: u64


class Farewell(NamedTuple):
    """The server's Goodbye: the last message of a connection."""

    code: u16
    rejection: u16
    message: string


class ServerSeen(NamedTuple):
    """The server's ServerStatus."""

    query_id: u64
    status: ServerStatus


class LocksSeen(NamedTuple):
    """The server's LockStatus: a page of locks, or a lock that is watched."""

    query_id: u64
    locks: List[LockStatus]
    next: Optional[u64]


class SessionsSeen(NamedTuple):
    """The server's SessionStatus: a page of sessions."""

    query_id: u64
    sessions: List[SessionStatus]
    next: Optional[u64]


class Revoked(NamedTuple):
    """The lock was taken away."""

    query_id: u64


class Subscribed(NamedTuple):
    """Events will be told from now on."""

    query_id: u64


class Event(NamedTuple):
    """Something happened to a request."""

    at_ms: u64
    session: u128
    identity: string
    request: u64
    claims: List[Claim]
    what: Happening


class Missed(NamedTuple):
    """Some events are left out at this place."""

    count: u64  # type: ignore[assignment]


class OutlooksSeen(NamedTuple):
    """The server's Outlook: until when locks are not to be had."""

    query_id: u64
    locks: List[Outlook]
    next: Optional[u64]


ClientMessage = Union[
    Hello, Request, Release, Cancel, KeepAlive, Goodbye, Inspect, Revoke, Reclaim, Account, Watch,
    Subscribe, RequestWith, ReclaimWith,
]  # fmt: skip
ServerMessage = Union[
    Welcome, Grant, Queued, Released, Cancelled, Lost, Rejected, KeptAlive, Farewell, ServerSeen,
    LocksSeen, SessionsSeen, Revoked, Subscribed, Event, Missed, OutlooksSeen,
]  # fmt: skip

# A variant's number is its place. New ones are appended, and nothing else ever changes.
CHOICES: Dict[str, Tuple[Type[Any], ...]] = {
    "Attach": (New, Resume, Observer),
    "Wait": (Forever, Timeout, Never),
    "Mode": (Exclusive, Shared, Permits),
    "Query": (QueryServer, QueryLocks, QueryLock, QuerySessions, QueryOutlook, QueryOutlooks),
    "Extra": (AtLeast,),
    "After": (AfterLoss, AfterGrant),
    "Standing": (Opened, Resumed, Reopened),
    "Happening": (
        HappenedRequested, HappenedQueued, HappenedGranted, HappenedReleased, HappenedCancelled,
        HappenedLost, HappenedRejected,
    ),
    "ClientMessage": (
        Hello, Request, Release, Cancel, KeepAlive, Goodbye, Inspect, Revoke, Reclaim, Account,
        Watch, Subscribe, RequestWith, ReclaimWith,
    ),
    "ServerMessage": (
        Welcome, Grant, Queued, Released, Cancelled, Lost, Rejected, KeptAlive, Farewell,
        ServerSeen, LocksSeen, SessionsSeen, Revoked, Subscribed, Event, Missed, OutlooksSeen,
    ),
}  # fmt: skip
STRUCTURES: Tuple[Type[Any], ...] = (
    Claim, Held, Ticket, CycleLink, ServerStatus, Holder, Waiter, LockStatus, SessionStatus, Pause,
    Outlook, Request, Reclaim,
)  # fmt: skip

# --- codes ---------------------------------------------------------------------------------------

REJECTIONS = {
    1: "Busy", 2: "TimedOut", 3: "NotHolder", 4: "InvalidLockName", 5: "InvalidNote",
    6: "InvalidIdentity", 7: "InvalidTtl", 8: "InvalidPermits", 9: "PermitsDiffer",
    10: "InvalidClaims", 11: "InvalidLockDelay", 12: "RequestIdReused", 13: "RequestForgotten",
    14: "TooManySessions", 15: "TooManyClaims", 16: "TooManyWaiters", 17: "UnknownSession",
    18: "StaleGeneration", 19: "Draining", 20: "Unavailable", 21: "NoSuchGrant",
    22: "SessionNeeded", 23: "Unsupported", 24: "ImplausibleToken", 25: "Grace", 26: "NoGrace",
    27: "SealMismatch", 28: "AlreadyHeld", 29: "Deadlock", 30: "TooManyWatches",
    31: "NotConvertible", 32: "InvalidAtLeast", 33: "TooManyKept",
}  # fmt: skip
LOST_REASONS = {
    1: "Expired", 2: "Revoked", 3: "Disconnected", 4: "Stopped", 5: "NotReclaimed", 6: "Conflict",
    7: "Forked",
}  # fmt: skip
GOODBYES = {
    1: "Done", 2: "ProtocolError", 3: "UnsupportedVersion", 4: "HandshakeTimeout",
    5: "IdleTimeout", 6: "TooManyConnections", 7: "Refused", 8: "SessionExpired", 9: "Superseded",
    10: "SlowReader", 11: "Draining",
}  # fmt: skip


class Rejection:
    """The rejection codes that this client acts upon."""

    BUSY, TIMED_OUT, NOT_HOLDER = 1, 2, 3
    REQUEST_FORGOTTEN, TOO_MANY_SESSIONS = 13, 14
    UNKNOWN_SESSION, STALE_GENERATION, DRAINING, UNAVAILABLE = 17, 18, 19, 20
    GRACE, ALREADY_HELD, DEADLOCK = 25, 28, 29


class Reason:
    """The lost reasons that this client gives itself."""

    EXPIRED, REVOKED, DISCONNECTED, STOPPED, NOT_RECLAIMED, CONFLICT, FORKED = 1, 2, 3, 4, 5, 6, 7


class Code:
    """The goodbye codes."""

    DONE, PROTOCOL_ERROR, UNSUPPORTED_VERSION, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT = 1, 2, 3, 4, 5
    TOO_MANY_CONNECTIONS, REFUSED, SESSION_EXPIRED, SUPERSEDED = 6, 7, 8, 9
    SLOW_READER, DRAINING = 10, 11


# --- the codec, made of the tables ---------------------------------------------------------------

_Reader = Callable[[bytes, int], Tuple[Any, int]]
_Writer = Callable[[Any, List[bytes]], None]
_INTEGERS = {"u16": "H", "u32": "I", "u64": "Q"}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


def _read_u128(data: bytes, at: int) -> Tuple[int, int]:
    if at + 16 > len(data):
        raise WireError("a message is shorter than its fields")
    return int.from_bytes(data[at : at + 16], "little"), at + 16


def _write_u128(value: int, out: List[bytes]) -> None:
    out.append(value.to_bytes(16, "little"))


def _read_bool(data: bytes, at: int) -> Tuple[bool, int]:
    byte = data[at]
    if byte > 1:
        raise WireError(f"a bool of {byte}")
    return byte == 1, at + 1


def _write_bool(value: bool, out: List[bytes]) -> None:
    out.append(b"\1" if value else b"\0")


def _read_string(data: bytes, at: int) -> Tuple[str, int]:
    (length,) = _U64.unpack_from(data, at)
    at += 8
    if length > len(data) - at:
        raise WireError("a text is longer than its message")
    return data[at : at + length].decode("utf-8"), at + length


def _write_string(value: str, out: List[bytes]) -> None:
    text = value.encode("utf-8")
    out.append(_U64.pack(len(text)))
    out.append(text)


def _integer(code: str) -> Tuple[_Reader, _Writer]:
    packed = struct.Struct("<" + code)

    def read(data: bytes, at: int) -> Tuple[int, int]:
        return int(packed.unpack_from(data, at)[0]), at + packed.size

    def write(value: int, out: List[bytes]) -> None:
        out.append(packed.pack(value))

    return read, write


def _optional(kind: str) -> Tuple[_Reader, _Writer]:
    read_one, write_one = _codec(kind)

    def read(data: bytes, at: int) -> Tuple[Any, int]:
        there, at = _read_bool(data, at)
        return read_one(data, at) if there else (None, at)

    def write(value: Any, out: List[bytes]) -> None:
        _write_bool(value is not None, out)
        if value is not None:
            write_one(value, out)

    return read, write


def _list(kind: str) -> Tuple[_Reader, _Writer]:
    read_one, write_one = _codec(kind)

    def read(data: bytes, at: int) -> Tuple[List[Any], int]:
        (count,) = _U64.unpack_from(data, at)
        at += 8
        # No element is shorter than a byte: no memory is taken on the word of a length.
        if count > len(data) - at:
            raise WireError("a list is longer than its message")
        values = []
        for _ in range(count):
            value, at = read_one(data, at)
            values.append(value)
        return values, at

    def write(values: Any, out: List[bytes]) -> None:
        out.append(_U64.pack(len(values)))
        for value in values:
            write_one(value, out)

    return read, write


def _choice(kind: str) -> Tuple[_Reader, _Writer]:
    variants = CHOICES[kind]
    codecs = [_structure(variant) for variant in variants]
    numbers = {
        variant: (_U32.pack(number), codecs[number][1]) for number, variant in enumerate(variants)
    }

    def read(data: bytes, at: int) -> Tuple[Any, int]:
        (number,) = _U32.unpack_from(data, at)
        if number >= len(codecs):
            raise WireError(f"{kind} {number} is unknown")
        fields: Tuple[Any, int] = codecs[number][0](data, at + 4)
        return fields

    def write(value: Any, out: List[bytes]) -> None:
        number, write_fields = numbers[type(value)]
        out.append(number)
        write_fields(value, out)

    return read, write


def _structure(record: Type[Any]) -> Tuple[_Reader, _Writer]:
    """The fields one after the other; integers that are neighbours are read and written at once."""
    kinds = [_annotation(record, field) for field in record._fields]
    if all(kind in _INTEGERS for kind in kinds):
        packed = struct.Struct("<" + "".join(_INTEGERS[kind] for kind in kinds))

        def read_packed(data: bytes, at: int) -> Tuple[Any, int]:
            return record(*packed.unpack_from(data, at)), at + packed.size

        def write_packed(value: Any, out: List[bytes]) -> None:
            out.append(packed.pack(*value))

        return read_packed, write_packed
    codecs = [_codec(kind) for kind in kinds]
    readers = [read for read, _ in codecs]
    writers = [write for _, write in codecs]

    def read(data: bytes, at: int) -> Tuple[Any, int]:
        fields = []
        for read_field in readers:
            field, at = read_field(data, at)
            fields.append(field)
        return record(*fields), at

    def write(value: Any, out: List[bytes]) -> None:
        for write_field, field in zip(writers, value):
            write_field(field, out)

    return read, write


def _annotation(record: Type[Any], field: str) -> str:
    kind = record.__annotations__[field]
    return str(getattr(kind, "__forward_arg__", kind))


_CODECS: Dict[str, Tuple[_Reader, _Writer]] = {
    "u128": (_read_u128, _write_u128),
    "bool": (_read_bool, _write_bool),
    "string": (_read_string, _write_string),
}


def _codec(kind: str) -> Tuple[_Reader, _Writer]:
    codec = _CODECS.get(kind)
    if codec is None:
        if kind in _INTEGERS:
            codec = _integer(_INTEGERS[kind])
        elif kind.startswith("Optional["):
            codec = _optional(kind[len("Optional[") : -1])
        elif kind.startswith("List["):
            codec = _list(kind[len("List[") : -1])
        elif kind in CHOICES:
            codec = _choice(kind)
        else:
            codec = _structure(next(s for s in STRUCTURES if s.__name__ == kind))
        _CODECS[kind] = codec
    return codec


_equal_fields: Callable[[Any, object], bool] = tuple.__eq__


def _same_kind(self: Any, other: object) -> bool:
    return bool(self.__class__ is other.__class__ and _equal_fields(self, other))


def _other_kind(self: Any, other: object) -> bool:
    return not _same_kind(self, other)


# Exclusive and Shared have the same fields, none; that makes them no more equal than Cancel(1) is
# to Released(1).
for _record in (*(record for choice in CHOICES.values() for record in choice), *STRUCTURES):
    setattr(_record, "__eq__", _same_kind)
    setattr(_record, "__ne__", _other_kind)
    setattr(_record, "__hash__", tuple.__hash__)

_read_client, _write_client = _codec("ClientMessage")
_read_server, _write_server = _codec("ServerMessage")
_CLIENT_MESSAGES = frozenset(CHOICES["ClientMessage"])


def encode(message: Union[ClientMessage, ServerMessage]) -> bytes:
    """The frame of a message: its length, then itself.

    Raises `WireError` if a number is too large for its field, or the frame for a frame.
    """
    out: List[bytes] = []
    try:
        (_write_client if type(message) in _CLIENT_MESSAGES else _write_server)(message, out)
    except (struct.error, OverflowError, UnicodeEncodeError) as error:
        raise WireError(f"{type(message).__name__} cannot be written: {error}") from None
    payload = b"".join(out)
    if len(payload) > FRAME_LEN_MAX:
        raise WireError(f"a message of {len(payload)} bytes, a frame has at most {FRAME_LEN_MAX}")
    return _U32.pack(len(payload)) + payload


def _decode(read: _Reader, payload: bytes) -> Any:
    try:
        message, at = read(payload, 0)
    except (struct.error, IndexError):
        raise WireError("a message is shorter than its fields") from None
    except UnicodeDecodeError:
        raise WireError("a text is not UTF-8") from None
    if at != len(payload):
        raise WireError(f"{len(payload) - at} bytes are left over after a message")
    return message


def decode_client(payload: bytes) -> ClientMessage:
    """Reads one message of a client from the whole of ``payload``."""
    message: ClientMessage = _decode(_read_client, payload)
    return message


def decode_server(payload: bytes) -> ServerMessage:
    """Reads one message of the server from the whole of ``payload``."""
    message: ServerMessage = _decode(_read_server, payload)
    return message


class Frames:
    """Cuts a stream of bytes into the payloads of its frames.

    >>> frames = Frames()
    >>> frames.feed(b"\\x01\\0\\0\\0a\\x02\\0\\0\\0b")
    [b'a']
    >>> frames.feed(b"c")
    [b'bc']
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> List[bytes]:
        """The payloads of the frames that these bytes complete."""
        data = self._rest + data if self._rest else data
        payloads = []
        at, end = 0, len(data)
        while end - at >= 4:
            length = _U32.unpack_from(data, at)[0]
            if length > FRAME_LEN_MAX:
                raise WireError(f"a frame of {length} bytes, at most {FRAME_LEN_MAX} are allowed")
            if end - at - 4 < length:
                break
            payloads.append(data[at + 4 : at + 4 + length])
            at += 4 + length
        self._rest = data[at:]
        return payloads

    @property
    def is_cut(self) -> bool:
        """Whether the stream so far ends within a frame."""
        return bool(self._rest)
