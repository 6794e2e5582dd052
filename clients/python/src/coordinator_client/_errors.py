"""Errors, in the words of the command line, each with a remedy."""

from __future__ import annotations

import copy
from typing import Any, Dict, List, Optional, Tuple, Type

from . import _wire as wire
from ._core import End, Refusal
from ._leader import parse_address
from ._wire import Code, Reason, Rejection


class LockError(Exception):
    """Base of all errors about locks."""

    hint: str = ""
    """The remedy; may be empty."""
    is_retryable: bool = False
    """Whether asking the same again, perhaps later, may succeed."""

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.hint = hint or type(self).hint

    def __reduce__(self) -> Tuple[Any, ...]:
        # Python would call the class with the message, and some are made of something else.
        return _as_it_was, (type(self), self.args, self.__dict__)


def _as_it_was(kind: Type[LockError], said: Tuple[Any, ...], known: Dict[str, Any]) -> LockError:
    error = kind.__new__(kind)
    error.args = said
    error.__dict__.update(known)
    return error


class LockBusy(LockError):
    """The lock is held or awaited by others, and this request would not wait."""

    hint = "wait for it, or try again later"
    is_retryable = True

    def __init__(self, lock: wire.LockStatus):
        super().__init__(busy(lock))
        self.lock = lock
        """The lock: its holders and waiters."""

    @property
    def holder(self) -> Optional[wire.Holder]:
        """The first holder of the lock, if it has one."""
        return self.lock.holders[0] if self.lock.holders else None


class LockTimeout(LockError, TimeoutError):
    """The lock was not granted in time."""

    hint = "wait longer, or try again later"
    is_retryable = True

    def __init__(self, lock: wire.LockStatus, timeout: float):
        super().__init__(f"gave up after {seconds(timeout)}: {busy(lock)}")
        self.lock = lock
        """The lock: its holders and waiters."""
        self.timeout = timeout

    @property
    def holder(self) -> Optional[wire.Holder]:
        """The first holder of the lock, if it has one."""
        return self.lock.holders[0] if self.lock.holders else None


class LockLost(LockError):
    """The lock was lost: it ended without a release."""

    hint = "check what was done meanwhile; by the token a resource can refuse late writes"

    def __init__(self, name: str, token: int, reason: int):
        why = _LOST_WORDS.get(reason) or wire.LOST_REASONS.get(reason, f"Unknown({reason})")
        super().__init__(f'lost "{name}" ({why}); its token was {token}')
        self.name = name
        self.token = token
        self.reason = wire.LOST_REASONS.get(reason, f"Unknown({reason})")
        """``Expired``, ``Revoked``, ``Disconnected``, ``Stopped``, ``NotReclaimed``, ``Conflict``,
        ``Refused``."""


class NotHeld(LockError, RuntimeError):
    """This object does not hold the lock that was to be released or asked for its token."""

    hint = "acquire it first; each object releases only what it acquired"


class Deadlock(LockError):
    """Waiting would never end: owners would wait for each other in a cycle."""

    hint = "release what you hold and retry, or request all locks at once"
    is_retryable = True

    def __init__(self, cycle: List[wire.CycleLink]):
        super().__init__(deadlock(cycle))
        self.cycle = cycle
        """The wait-for cycle; the last link waits for the first."""


class Cancelled(LockError):
    """The wait was ended by `cancel`."""


class Unavailable(LockError, ConnectionError):
    """No coordinator answers."""

    hint = "start one with `coordinator serve`, or name another with server= or COORDINATOR_SERVER"
    is_retryable = True
    why: str = ""
    """The reason alone."""


class NoLeader(Unavailable):
    """Those that answer are members of a cluster, and none of them leads."""

    hint = "a change of leader takes seconds; try again in a moment"

    def __init__(self, server: str, said: str, leader: Optional[str] = None):
        super().__init__(f"no coordinator leads at {server} ({said})")
        self.said = said
        self.leader = leader
        """The address of the leader, if one that does not lead names one."""


def not_leader(server: str, hint: str, peer: Optional[str] = None) -> NoLeader:
    """What one says that does not lead."""
    address = hint if parse_address(hint) else None
    names = f"names {address}" if address else "names what is no address"
    said = f"{peer or 'it'} does not lead and " + (names if hint else "knows nobody who does")
    return NoLeader(server, said, address)


class Draining(Unavailable):
    """The coordinator is shutting down."""

    hint = "try again in a second"


class ProtocolError(LockError):
    """The other side does not speak the protocol, or violated it."""

    hint = "check the address and the versions"


class Rejected(LockError):
    """The coordinator rejected the request."""

    def __init__(self, code: int, message: str):
        self.code = wire.REJECTIONS.get(code, f"Unknown({code})")
        """The reason, for programs: a name from the table of rejection codes."""
        super().__init__(f"rejected ({self.code}): {message}", _REJECTED_HINTS.get(code, ""))
        self.is_retryable = self.code in _RETRYABLE


class AlreadyHeld(Rejected):
    """The owner already holds the lock, in a mode that leaves no room."""


class Superseded(Rejected):
    """A newer request took the place of this one; both were made with `supersede`."""


class InvalidRequest(LockError, ValueError):
    """The request is invalid; nothing was sent."""


class Closed(LockError):
    """The client was closed."""

    hint = "create a new client"


_RETRYABLE = {
    "TooManySessions", "TooManyClaims", "TooManyWaiters", "PermitsDiffer", "Draining",
    "Unavailable", "Grace", "Deadlock",
}  # fmt: skip
_LOST_WORDS = {
    Reason.EXPIRED: "no answer from the coordinator for the length of the lease, "
    "or it does not know the session",
    Reason.REVOKED: "an operator revoked it",
    Reason.DISCONNECTED: "the connection ended",
    Reason.STOPPED: "the coordinator stopped",
    Reason.FORKED: "this process is a fork of the one that holds it",
    Reason.REFUSED: "the coordinator refuses this client now; the next call says why",
}
_REJECTED_HINTS = {
    Rejection.GRACE: "try again after the grace period, or wait for the lock",
    Rejection.UNAUTHENTICATED: "show a credential: credential=, COORDINATOR_CREDENTIAL or "
    "COORDINATOR_CREDENTIAL_FILE",
    Rejection.FORBIDDEN: "ask who keeps the access file of the coordinator for the right to it, or "
    "show another credential",
    Rejection.ALREADY_HELD: "use the existing hold, or release it first",
}


def seconds(length: float) -> str:
    """A length as people say it: ``4m12s``, ``31s``, ``250ms``.

    >>> seconds(252), seconds(0.25), seconds(3600), seconds(0), seconds(90_000)
    ('4m12s', '250ms', '1h', '<1ms', '1d1h')
    """
    whole = int(length)
    units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")]
    for place, (size, unit) in enumerate(units):
        if whole >= size:
            text = f"{whole // size}{unit}"
            if place + 1 < len(units):
                lesser, name = units[place + 1]
                rest = whole % size // lesser
                text += f"{rest}{name}" if rest else ""
            return text
    return f"{int(length * 1000)}ms" if length >= 0.001 else "<1ms"


def busy(lock: wire.LockStatus) -> str:
    """The holders that are in the way, in one line."""
    text = f'"{lock.name}" is busy'
    if lock.holders:
        holder = lock.holders[0]
        who = holder.identity or "someone"
        text += f": held by {who} for {seconds(holder.held_ms / 1000)} (token {holder.token})"
        if holder.note:
            text += f' "{holder.note}"'
        if lock.holder_count > 1:
            text += f" and {lock.holder_count - 1} more"
    if lock.waiter_count:
        text += f", {lock.waiter_count} waiting"
    return text


def deadlock(cycle: List[wire.CycleLink]) -> str:
    """Who would wait for whom, in a line."""
    words = []
    for link, following in zip(cycle, cycle[1:] + cycle[:1]):
        if not link.lock:
            words.append("and so on")
            break
        verb = "waits" if words else "would wait"
        behind = "of" if link.held_with else "in line behind"
        words.append(f'{_waiter(link)} {verb} for "{link.lock}" {behind} {_waiter(following)}')
    return "deadlock: " + ", ".join(words)


def _waiter(link: wire.CycleLink) -> str:
    if not link.lock:
        return "another"
    owner = f"owner {link.owner}" if link.owner else f"request {link.request}"
    return f"{link.identity or 'someone'} ({owner})"


def unknown_lock(name: str) -> wire.LockStatus:
    """What is known about a lock of which the server said nothing."""
    return wire.LockStatus(name, [], 0, [], 0)


def anew(error: BaseException) -> BaseException:
    """A copy to raise: whoever raises an error adds its own steps to it, and all that is in them.

    Only of errors that nobody foresaw it keeps the steps so far.
    """
    try:
        another = copy.copy(error)
    except Exception:
        return error  # Of a class of others.
    another.__cause__ = before = error.__cause__
    if not isinstance(error, LockError):
        return another.with_traceback(error.__traceback__)
    while before is not None:
        before.__traceback__ = None
        before = before.__cause__ or before.__context__
    return another


def unavailable(server: str, why: object) -> Unavailable:
    """No connection, because of that."""
    # What TLS says has a remedy of its own.
    hint = getattr(why, "hint", "")
    what = "no secure connection to" if hint else "no coordinator answers at"
    error = Unavailable(f"{what} {server} ({cause(why)})", hint)
    error.why = cause(why)
    error.is_retryable = getattr(why, "is_retryable", True)
    return error


def silent(server: str, length: float, known: str = "") -> Unavailable:
    """Nobody says anything; of several servers, what is known of each."""
    text = f"no answer within {length:.3g} s"
    return unavailable(server, f"{text}: {known}" if known else text)


def cause(error: object) -> str:
    """Why a connection failed, without the number that systems add."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)


def rejected(code: int, message: str, cycle: Optional[List[wire.CycleLink]] = None) -> LockError:
    """A no that has no meaning of its own here."""
    if code == Rejection.DRAINING:
        return Draining("the coordinator is shutting down")
    if code == Rejection.DEADLOCK and cycle:
        return Deadlock(cycle)
    kinds = {Rejection.ALREADY_HELD: AlreadyHeld, Rejection.SUPERSEDED: Superseded}
    return kinds.get(code, Rejected)(code, message)


def ended(
    server: str, end: End, failure: Optional[BaseException] = None, peer: Optional[str] = None
) -> LockError:
    """Why a session is over, or there is no connection; of several servers, to that one."""
    who = peer or "it"
    if end.kind == "closed":
        return Closed("the client was closed")
    if end.kind == "disconnected":
        return unavailable(server, failure or f"{who} closed the connection")
    if end.kind == "silent":
        return unavailable(server, f"no message from {who} for {seconds(end.silence / 1e9)}")
    if end.kind == "deposed":
        return NoLeader(server, f"{who} leads no more: its epoch {end.epoch} is not the latest")
    if end.code == Code.NOT_LEADER:
        return not_leader(server, end.message, peer)
    if end.kind == "broken":
        return ProtocolError(f"{server} does not follow the protocol: {end.message}")
    if Code.DRAINING == end.code or Rejection.DRAINING == end.rejection:
        return Draining("the coordinator is shutting down")
    if end.code == Code.REFUSED:
        return rejected(end.rejection, end.message)
    if end.code in (Code.PROTOCOL_ERROR, Code.UNSUPPORTED_VERSION):
        return ProtocolError(f"{server} does not follow the protocol: {end.message}")
    name = wire.GOODBYES.get(end.code, f"Unknown({end.code})")
    return unavailable(server, f"{who} ended the session ({name}): {end.message}")


def refused(
    refusal: Refusal,
    server: str,
    end: End,
    failure: Optional[BaseException],
    name: str,
    token: int = 0,
    peer: Optional[str] = None,
) -> LockError:
    """Why a request or a release did not succeed."""
    if refusal.kind == "lost":
        return LockLost(name, token, refusal.reason)
    if refusal.kind == "forgotten":
        return unavailable(
            server,
            "the connection broke before the answer arrived, and the coordinator no longer "
            "remembers the outcome",
        )
    if refusal.kind == "rejected" and refusal.rejected is not None:
        answer = refusal.rejected
        lock = answer.lock or unknown_lock(name)
        if answer.code == Rejection.BUSY:
            return LockBusy(lock)
        if answer.code == Rejection.TIMED_OUT:
            return LockTimeout(lock, 0)
        return rejected(answer.code, answer.message, answer.cycle)
    return ended(server, end, failure, peer)
