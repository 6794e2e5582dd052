"""The way to the coordinator that leads, where several are a cluster.

A member that does not lead names the one that does (a hint). A few hints are followed in a row: two
members may name each other. A hint counts for the next attempt alone, beside the servers that were
named. A leader that was deposed gives itself away by its epoch, and is not believed.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Optional, Tuple

from ._values import Reconnect

HINTS_AT_ONCE_MAX = 3
ADDRESS_LEN_MAX = 259
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def parse_address(text: str) -> Optional[Tuple[str, int]]:
    """Host and port of an address as servers tell it; None if it is none.

    >>> parse_address("b.internal:5625"), parse_address("[::1]:7")
    (('b.internal', 5625), ('::1', 7))
    >>> parse_address("b.internal"), parse_address("tls://b:1"), parse_address("")
    (None, None, None)
    """
    if len(text) > ADDRESS_LEN_MAX or not text.isascii():
        return None
    host, colon, digits = text.rpartition(":")
    if not colon or not digits.isdigit() or not 0 < int(digits) < 65_536:
        return None
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return None
        return None if "%" in host else (host, int(digits))
    return (host, int(digits)) if _NAME.fullmatch(host) else None


class Leader:
    """What is known of who leads."""

    __slots__ = ("next", "latest", "is_one_of_several", "_followed")

    def __init__(self, reconnect: Optional[Reconnect]):
        # Where the next attempt goes first.
        self.next: Optional[str] = None
        # Where the latest attempt that had a hint went first, by its number.
        self.latest: Optional[Tuple[int, str]] = None
        self.is_one_of_several = reconnect is not None and reconnect.servers > 1
        self._followed = 0

    def attempt(self, number: int) -> None:
        """An attempt of this number begins."""
        if self.next is not None:
            self.latest, self.next = (number, self.next), None

    def pauses(self) -> None:
        """The next attempt is made after the pause that is due."""
        self._followed = 0

    def hear(self, text: str) -> bool:
        """A server names this one as the leader. Whether to go there at once."""
        self.is_one_of_several = True
        self.next = text if parse_address(text) else None
        at_once = self.next is not None and self._followed < HINTS_AT_ONCE_MAX
        self._followed += at_once
        return at_once
