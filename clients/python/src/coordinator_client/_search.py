"""Which server is tried when, and what is said of those that do not lead."""

from __future__ import annotations

import random
import time
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from . import _dial, _wire as wire
from ._errors import NoLeader, Unavailable, unavailable
from ._leader import HINTS_AT_ONCE_MAX, parse_address

PAUSE_MIN = 0.05
PAUSE_MAX = 0.5


class Plan(NamedTuple):
    """The servers of one attempt, in their order."""

    servers: List[_dial.Server]
    failed: Dict[str, str]
    """Why those do not answer that were tried in vain."""
    is_hinted: bool = False
    """Whether the first is there because another one named it."""

    def connect(
        self, timeout: float, is_wanted: Callable[[], bool] = lambda: True
    ) -> Tuple[_dial.Server, _dial.Connection]:
        """The first that answers. Raises OSError."""
        self.failed.clear()
        number, connection = _dial.connect_first(
            self.servers, 0, timeout, is_wanted, self.is_hinted, self.failed
        )
        return self.servers[number], connection


class Dialer:
    """Which server is tried first: the one that welcomed us last, not one that did not.

    A hint goes before all of them, once.
    """

    def __init__(self, servers: List[_dial.Server], timeout: float):
        self.servers = servers
        self.timeout = timeout
        self.epoch_seen = 0
        self.is_one_of_several = len(servers) > 1
        self._first = 0
        self._reached: Optional[_dial.Server] = None
        self._is_news = False

    def begin(self, hint: Optional[str] = None, is_second: bool = False) -> Plan:
        """What to try now; beside a connection that does not answer, another server first."""
        place = self._learn()
        if place is not None:
            # It answered, and did not welcome us.
            self._first = (place + 1) % len(self.servers)
        first = self._first
        if is_second and self._reached in self.servers:
            first = self.servers.index(self._reached) + 1
        order = self.servers[first:] + self.servers[:first]
        address = parse_address(hint) if hint else None
        if address is None:
            return Plan(order, {})
        self.is_one_of_several = True
        # With TLS it has to prove that it is this host, to the same authorities.
        leader = self.servers[0]._replace(host=address[0], port=address[1])
        return Plan([leader, *(server for server in order if server != leader)], {}, True)

    def _learn(self) -> Optional[int]:
        is_news, self._is_news = self._is_news, False
        known = is_news and self._reached in self.servers
        return self.servers.index(self._reached) if known and self._reached else None

    def reached(self, server: _dial.Server) -> None:
        """The latest connection goes there."""
        self._reached, self._is_news = server, True

    def welcomed(self) -> None:
        """That was the right place."""
        place = self._learn()
        if place is not None:
            self._first = place

    def check_welcome(self, message: wire.ServerMessage) -> None:
        """What one says first who is asked by an observer. Raises `Unavailable` if it is no welcome."""
        servers = _dial.shown(self.servers)
        if not isinstance(message, wire.Welcome):
            raise unavailable(servers, f"{type(message).__name__} before Welcome")
        if self.is_one_of_several and message.epoch < self.epoch_seen:
            raise NoLeader(servers, f"it leads no more: its epoch {message.epoch} is not the latest")
        self.epoch_seen = max(self.epoch_seen, message.epoch)
        self.welcomed()

    @property
    def peer(self) -> Optional[str]:
        """The server that was reached last, if it is one of several."""
        if self._reached is None or not self.is_one_of_several:
            return None
        return _dial.shown([self._reached])


class Search:
    """The search for the server that welcomes us, when we connect first.

    Each is tried, and one that is named as the leader at once. If all have failed, that is it; but
    while one of them is a member of a cluster, a leader may come.
    """

    def __init__(
        self,
        dialer: Dialer,
        connect_timeout: float,
        timeout: Optional[float] = None,
        hint: Optional[str] = None,
    ):
        self.dialer = dialer
        self._timeout = connect_timeout
        # Who waits for less long is to see each of several servers tried, as far as that goes.
        self._patience = connect_timeout if timeout is None else min(timeout, connect_timeout)
        self._until = 0.0
        self._was_cut = False
        # The clock starts with the first attempt, so that a lone one is given, and is told to have
        # had, what was asked for.
        self._give_up_at: Optional[float] = None
        self._left = len(dialer.servers)
        self._hint = hint
        self._followed = self._rounds = 0
        self._is_cluster = False
        self._said: Dict[str, str] = {}
        self._plan: Optional[Plan] = None
        # Why each of several servers has not welcomed us.
        self._causes: Dict[str, str] = {}

    def plan(self) -> Plan:
        """What to try now."""
        hint, self._hint = self._hint, None
        self._plan = self.dialer.begin(hint)
        return self._plan

    def told(self) -> str:
        """What is known of several servers, until now."""
        causes = dict(self._causes)
        if self._plan is not None and len(self._plan.servers) > 1:
            causes.update(self._plan.failed)
        return "; ".join(f"{server}: {why}" for server, why in causes.items())

    def share(self) -> float:
        """How long the next attempt may take; the last one of all has all that is left."""
        now = time.monotonic()
        if self._give_up_at is None:
            self._give_up_at = now + self._timeout
        left = max(self._give_up_at - now, 0)
        count = len(self.dialer.servers)
        is_last = self._left <= 1 and (count == 1 or self._patience == self._timeout)
        if not is_last or self._is_cluster:
            left = min(left, self._patience / count)
        self._until = now + left
        return left

    def after(self, error: BaseException) -> float:
        """For how long to pause before another attempt; raises the error if there is none."""
        if not isinstance(error, ConnectionError):
            raise error
        peer = self.dialer.peer or _dial.shown(self.dialer.servers)
        self._note(peer, error)
        if isinstance(error, NoLeader):
            self._is_cluster = self.dialer.is_one_of_several = True
            self._said[peer] = error.said
            self._hint = error.leader
            if error.leader is not None and self._followed < HINTS_AT_ONCE_MAX:
                self._followed += 1
                return self._pause(0, error)
        self._left -= 1
        if self._left > 0:
            return self._pause(0, error)
        if not self._is_cluster:
            if not self._was_cut or self._patience == self._timeout:
                raise self._in_full(error)
            # Somebody may wait for longer than whoever began it.
            self._left, self._patience = len(self.dialer.servers), self._timeout
            return self._pause(0, error)
        self._left, self._followed = len(self.dialer.servers), 0
        pause = min(PAUSE_MIN * 2 ** min(self._rounds, 16), PAUSE_MAX)
        self._rounds += 1
        # Not all clients come at once.
        return self._pause(pause * random.uniform(0.5, 1), error)

    def _note(self, peer: str, error: BaseException) -> None:
        self._was_cut = self._was_cut or time.monotonic() >= self._until
        if self._plan is None or len(self._plan.servers) < 2:
            return
        self._causes.update(self._plan.failed)
        if self.dialer.peer is not None and peer not in self._plan.failed:
            self._causes[peer] = getattr(error, "why", "") or str(error)

    def _in_full(self, error: BaseException) -> BaseException:
        """With what is known of each of several servers."""
        if len(self._causes) < 2 or type(error) is not Unavailable or error.hint != Unavailable.hint:
            return error
        return unavailable(_dial.shown(self.dialer.servers), self.told())

    def _pause(self, pause: float, error: BaseException) -> float:
        if self._give_up_at is None or time.monotonic() + pause < self._give_up_at:
            return pause
        if self._is_cluster and isinstance(error, (NoLeader, Unavailable)):
            servers = _dial.shown(self.dialer.servers)
            said = [f"{server}: {what}" for server, what in self._said.items()]
            if not isinstance(error, NoLeader):
                said.append(str(error))
            raise NoLeader(servers, "; ".join(said)) from error
        raise self._in_full(error)
