"""What messages are made of: the tables of docs/protocol.md, as data; see `_messages`."""

from __future__ import annotations

from typing import List, NamedTuple, Optional, Union

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


class QueryCluster(NamedTuple):
    """Query: the cluster that the coordinator leads, if it is one of several."""


class QueryJournal(NamedTuple):
    """Query: the journal, and how this run began."""


class QueryWaited(NamedTuple):
    """Query: for how long grants were waited for in this run."""


class QueryRights(NamedTuple):
    """Query: what whoever asks may do with a lock."""

    name: string


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
    QueryContended, QueryCluster, QueryWaited, QueryRights,
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


class WaitedStatus(NamedTuple):
    """For how long grants were waited for since a run began; those at once for no time."""

    epoch: u64
    bounds_us: List[u64]
    counts: List[u64]


class ClusterStatus(NamedTuple):
    """How a leader stands among those of its cluster."""

    cluster: string
    leader: string
    term: u64
    led_ms: u64
    behind: Optional[u64]
    standby: string
