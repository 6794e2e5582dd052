"""The messages of protocol 1: the tables of docs/protocol.md, as data.

Each class is one row of those tables. The annotations name the types on the wire, and the codec in
`_wire` is made of them. A variant's number is its place in the list of its choice.
"""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Type, Union

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


class QueryJournal(NamedTuple):
    """Query: the journal, and how this run began."""


class DistanceOff(NamedTuple):
    """JournalDistance: what happens is not written down."""


class DistanceProcess(NamedTuple):
    """JournalDistance: it is written, which survives the end of the process."""


class DistanceMachine(NamedTuple):
    """JournalDistance: it is synced, which survives a power cut, too."""


class StartNew(NamedTuple):
    """JournalStart: nobody was ever here before."""


class StartSaved(NamedTuple):
    """JournalStart: from what an orderly stop has saved."""


class StartReplayed(NamedTuple):
    """JournalStart: from the journal of a run that crashed."""

    events: u64
    took_us: u64


class StartLost(NamedTuple):
    """JournalStart: after a crash, without a journal that is certainly complete."""

    why: string
    grace_ms: u64


class QueryContended(NamedTuple):
    """Query: the locks that somebody waits for, a page of them."""

    cursor: u64


class AtLeast(NamedTuple):
    """Extra: the locks go to nobody else until so long after the grant."""

    ms: u64


class Supersede(NamedTuple):
    """Extra: older requests for one of these locks that wait and said this, too, are ended."""


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
Query = Union[
    QueryServer, QueryLocks, QueryLock, QuerySessions, QueryOutlook, QueryOutlooks, QueryJournal,
    QueryContended,
]  # fmt: skip
JournalDistance = Union[DistanceOff, DistanceProcess, DistanceMachine]
JournalStart = Union[StartNew, StartSaved, StartReplayed, StartLost]
Extra = Union[AtLeast, Supersede]
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
    """Status of the coordinator."""

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


class JournalStatus(NamedTuple):
    """The journal, and how a run began."""

    distance: JournalDistance
    bytes: u64
    off_ms: u64
    start: JournalStart


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


class Unwatch(NamedTuple):
    """Wants to see a lock no more."""

    name: string


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


class JournalSeen(NamedTuple):
    """The server's JournalStatus: the journal, and how this run began."""

    query_id: u64
    status: JournalStatus


ClientMessage = Union[
    Hello, Request, Release, Cancel, KeepAlive, Goodbye, Inspect, Revoke, Reclaim, Account, Watch,
    Subscribe, RequestWith, ReclaimWith, Unwatch,
]  # fmt: skip
ServerMessage = Union[
    Welcome, Grant, Queued, Released, Cancelled, Lost, Rejected, KeptAlive, Farewell, ServerSeen,
    LocksSeen, SessionsSeen, Revoked, Subscribed, Event, Missed, OutlooksSeen, JournalSeen,
]  # fmt: skip

# A variant's number is its place. New ones are appended, and nothing else ever changes.
CHOICES: Dict[str, Tuple[Type[Any], ...]] = {
    "Attach": (New, Resume, Observer),
    "Wait": (Forever, Timeout, Never),
    "Mode": (Exclusive, Shared, Permits),
    "Query": (
        QueryServer, QueryLocks, QueryLock, QuerySessions, QueryOutlook, QueryOutlooks, QueryJournal,
        QueryContended,
    ),
    "Extra": (AtLeast, Supersede),
    "After": (AfterLoss, AfterGrant),
    "Standing": (Opened, Resumed, Reopened),
    "Happening": (
        HappenedRequested, HappenedQueued, HappenedGranted, HappenedReleased, HappenedCancelled,
        HappenedLost, HappenedRejected,
    ),
    "JournalDistance": (DistanceOff, DistanceProcess, DistanceMachine),
    "JournalStart": (StartNew, StartSaved, StartReplayed, StartLost),
    "ClientMessage": (
        Hello, Request, Release, Cancel, KeepAlive, Goodbye, Inspect, Revoke, Reclaim, Account,
        Watch, Subscribe, RequestWith, ReclaimWith, Unwatch,
    ),
    "ServerMessage": (
        Welcome, Grant, Queued, Released, Cancelled, Lost, Rejected, KeptAlive, Farewell,
        ServerSeen, LocksSeen, SessionsSeen, Revoked, Subscribed, Event, Missed, OutlooksSeen,
        JournalSeen,
    ),
}  # fmt: skip
STRUCTURES: Tuple[Type[Any], ...] = (
    Claim, Held, Ticket, CycleLink, ServerStatus, Holder, Waiter, LockStatus, SessionStatus, Pause,
    Outlook, JournalStatus, Request, Reclaim,
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
    31: "NotConvertible", 32: "InvalidAtLeast", 33: "TooManyKept", 34: "Superseded",
    35: "SlowDown",
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
    GRACE, ALREADY_HELD, DEADLOCK, SUPERSEDED = 25, 28, 29, 34


class Reason:
    """The lost reasons that this client gives itself."""

    EXPIRED, REVOKED, DISCONNECTED, STOPPED, NOT_RECLAIMED, CONFLICT, FORKED = 1, 2, 3, 4, 5, 6, 7


class Code:
    """The goodbye codes."""

    DONE, PROTOCOL_ERROR, UNSUPPORTED_VERSION, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT = 1, 2, 3, 4, 5
    TOO_MANY_CONNECTIONS, REFUSED, SESSION_EXPIRED, SUPERSEDED = 6, 7, 8, 9
    SLOW_READER, DRAINING = 10, 11
