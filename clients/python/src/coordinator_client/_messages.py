"""The messages of protocol 1: the tables of docs/protocol.md, as data.

Each class, here and in `_structures`, is one row of those tables. The annotations name the types on
the wire, and `_codec` makes readers and writers of them. A variant's number is its place in the
list of its choice.
"""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Type, Union

from ._structures import (
    AfterGrant, AfterLoss, AtLeast, Attach, Claim, ClusterStatus, CycleLink, DistanceMachine,
    DistanceOff, DistanceProcess, Exclusive, Extra, Forever, HappenedCancelled, HappenedGranted,
    HappenedLost, HappenedQueued, HappenedRejected, HappenedReleased, HappenedRequested, Happening,
    Held, Holder, JournalStatus, LockStatus, Never, New, Observer, Opened, Outlook, Pause, Permits,
    Query, QueryCluster, QueryContended, QueryJournal, QueryLock, QueryLocks, QueryOutlook,
    QueryOutlooks, QueryRights, QueryServer, QuerySessions, QueryWaited, Reopened, Resume, Resumed,
    ServerStatus, SessionStatus, Shared, Standing, StartLost, StartNew, StartReplayed, StartSaved,
    Supersede, Ticket, Timeout, Wait, WaitedStatus, Waiter, string, u128, u16, u32, u64,
)  # fmt: skip

PROTOCOL = 1
FRAME_LEN_MAX = 64 * 1024
HELLO_LEN_MAX = 1024
CLAIMS_MAX = 64


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


class Authenticate(NamedTuple):
    """Shows a credential: before Hello, and not answered."""

    credential: string


class RevokeFor(NamedTuple):
    """Takes a lock away, and says why."""

    query_id: u64
    name: string
    token: u64
    reason: string


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


class ClusterSeen(NamedTuple):
    """The server's ClusterStatus: the cluster that it leads, if it is one of several."""

    query_id: u64
    status: Optional[ClusterStatus]


class WaitedSeen(NamedTuple):
    """The server's WaitedStatus: for how long grants were waited for."""

    query_id: u64
    status: WaitedStatus


class Rights(NamedTuple):
    """What whoever asks may do with a lock."""

    query_id: u64
    verbs: List[string]


ClientMessage = Union[
    Hello, Request, Release, Cancel, KeepAlive, Goodbye, Inspect, Revoke, Reclaim, Account, Watch,
    Subscribe, RequestWith, ReclaimWith, Unwatch, Authenticate, RevokeFor,
]  # fmt: skip
ServerMessage = Union[
    Welcome, Grant, Queued, Released, Cancelled, Lost, Rejected, KeptAlive, Farewell, ServerSeen,
    LocksSeen, SessionsSeen, Revoked, Subscribed, Event, Missed, OutlooksSeen, JournalSeen,
    ClusterSeen, WaitedSeen, Rights,
]  # fmt: skip

# A variant's number is its place. New ones are appended, and nothing else ever changes.
CHOICES: Dict[str, Tuple[Type[Any], ...]] = {
    "Attach": (New, Resume, Observer),
    "Wait": (Forever, Timeout, Never),
    "Mode": (Exclusive, Shared, Permits),
    "Query": (
        QueryServer, QueryLocks, QueryLock, QuerySessions, QueryOutlook, QueryOutlooks,
        QueryJournal, QueryContended, QueryCluster, QueryWaited, QueryRights,
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
        Watch, Subscribe, RequestWith, ReclaimWith, Unwatch, Authenticate, RevokeFor,
    ),
    "ServerMessage": (
        Welcome, Grant, Queued, Released, Cancelled, Lost, Rejected, KeptAlive, Farewell,
        ServerSeen, LocksSeen, SessionsSeen, Revoked, Subscribed, Event, Missed, OutlooksSeen,
        JournalSeen, ClusterSeen, WaitedSeen, Rights,
    ),
}  # fmt: skip
STRUCTURES: Tuple[Type[Any], ...] = (
    Claim, Held, Ticket, CycleLink, ServerStatus, Holder, Waiter, LockStatus, SessionStatus, Pause,
    Outlook, JournalStatus, ClusterStatus, WaitedStatus, Request, Reclaim,
)  # fmt: skip
