"""The locks of OpenStack's tooz, by the URL ``coordinator://host:port``. Imported only by tooz.

``coordinator://a:5625,b:5625?ttl=30`` names several servers, and the length of the lease;
``?tls=true`` connects by TLS, and so do the settings of `Tls`: ``?ca=/etc/coordinator/ca.pem``.
Groups and leaders are not there: tooz says ``NotImplemented``.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import tooz
from tooz import coordination, locking

from ._client import Client
from ._dial import Tls
from ._errors import LockBusy, LockError, LockLost, LockTimeout, Rejected, Unavailable
from ._hold import Hold


def _text(name: Any) -> str:
    """tooz has bytes, locks have text: what is none is shown in hexadecimal digits."""
    if isinstance(name, str):
        return name
    try:
        return bytes(name).decode("utf-8")
    except UnicodeDecodeError:
        return "0x" + bytes(name).hex()


class CoordinatorLock(locking.Lock):  # type: ignore[misc, unused-ignore]
    """A lock of tooz."""

    def __init__(self, name: bytes, client: Client):
        super().__init__(name)
        self._client = client
        self._holds: List[Hold] = []

    @property
    def acquired(self) -> bool:
        """Whether it is held by this object."""
        return bool(self._holds) and self._holds[-1].acquired

    def acquire(
        self, blocking: Any = True, shared: bool = False, timeout: Optional[float] = None
    ) -> bool:
        """Waits for it; a number as ``blocking`` is how long."""
        lock = self._client.lock(_text(self.name), shared=shared)
        if blocking is not True and blocking is not False:
            blocking, timeout = True, blocking
        patience = -1 if timeout is None or not blocking else timeout
        try:
            self._holds.append(lock._acquire(bool(blocking), patience))
        except (LockBusy, LockTimeout):
            return False
        except Unavailable as error:
            raise coordination.ToozConnectionError(str(error)) from error
        except LockError as error:
            raise tooz.ToozError(str(error)) from error
        return True

    def release(self) -> bool:
        """Gives it back; False if it was not held any more."""
        if not self._holds:
            return False
        try:
            self._holds.pop().release()
        except LockLost:
            return False
        return True

    def break_(self) -> bool:
        """Takes it away from whoever holds it."""
        name = _text(self.name)
        client = self._client
        with client._observer() as observer:
            seen = observer.lock(name)
            broken = False
            for holder in seen.holders if seen else []:
                try:
                    observer.revoke(name, holder.token)
                    broken = True
                except Rejected:
                    pass  # It is gone already.
        return broken

    def is_still_owner(self) -> bool:
        """Whether it is held, by this machine's own clock."""
        return self.acquired

    def heartbeat(self) -> bool:
        """Does nothing, for locks are renewed by themselves; whether it is held."""
        return self.acquired


class CoordinatorDriver(coordination.CoordinationDriver):  # type: ignore[misc, unused-ignore]
    """Finds the coordinator, and makes locks."""

    CHARACTERISTICS = (
        coordination.Characteristics.NON_TIMEOUT_BASED,
        coordination.Characteristics.DISTRIBUTED_ACROSS_THREADS,
        coordination.Characteristics.DISTRIBUTED_ACROSS_PROCESSES,
        coordination.Characteristics.DISTRIBUTED_ACROSS_HOSTS,
    )

    def __init__(self, member_id: bytes, parsed_url: Any, options: Dict[str, Any]):
        super().__init__(member_id, parsed_url, options)
        last = {name: one[-1] if isinstance(one, list) else one for name, one in options.items()}
        ttl = last.get("ttl")
        files = {name: last[name] for name in Tls._fields if last.get(name)}
        self._server = parsed_url.netloc or None
        self._tls = Tls(**files) if files else None
        is_secure = str(last.get("tls", bool(files))).lower() in ("true", "1", "yes")
        if is_secure and self._server is not None:
            self._server = ",".join(f"tls://{one}" for one in self._server.split(","))
        self._ttl = None if ttl is None else float(ttl)
        self._identity = _text(member_id).encode("utf-8")[:128].decode("utf-8", "ignore")
        self._client = self._new_client()

    def _new_client(self) -> Client:
        return Client(self._server, ttl=self._ttl, identity=self._identity, tls=self._tls)

    def _start(self) -> None:
        try:
            self._client = self._new_client()
            self._client.connect()
        except Unavailable as error:
            raise coordination.ToozConnectionError(str(error)) from error
        except LockError as error:
            raise tooz.ToozError(str(error)) from error

    def _stop(self) -> None:
        self._client.close()

    def get_lock(self, name: bytes) -> CoordinatorLock:
        """A lock of this name."""
        return CoordinatorLock(name, self._client)

    def watch_join_group(self, group_id: bytes, callback: Any) -> None:
        """There are no groups."""
        raise coordination.GroupNotCreated(group_id)

    def watch_leave_group(self, group_id: bytes, callback: Any) -> None:
        """There are no groups."""
        raise coordination.GroupNotCreated(group_id)
