"""Connects to the first that answers, of all addresses of all servers (RFC 8305, happy eyeballs).

An address that does not answer must not keep one from being tried that does. So addresses are tried
in order, each beside those before it, a quarter of a second later, or at once if those have failed.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import queue
import selectors
import socket
import threading
import time
from typing import (
    TYPE_CHECKING, Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple,
    Union,
)  # fmt: skip

from . import _wire as wire
from ._errors import InvalidRequest, cause

if TYPE_CHECKING:
    import ssl

    from ._tls import SecureSocket, Trust

PORT_DEFAULT = 5625
SERVERS_MAX = 16
HEAD_START = 0.25
ADDRESSES_MAX = 16
_IN_PROGRESS = {errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY, 10035}

_SECURE = "tls://"

Servers = Union[str, Sequence[str]]
File = Union[str, "os.PathLike[str]"]
# A connection: a socket, or what is used as one.
Connection = Union[socket.socket, "SecureSocket"]


class Tls(NamedTuple):
    """How servers named ``tls://HOST:PORT`` are trusted, and what is shown to them.

    All files are in PEM, and read anew for each connection: they can be replaced at any time. What
    is not said here, the environment says, as for the command line: COORDINATOR_SERVER_CA,
    COORDINATOR_CLIENT_CERT, COORDINATOR_CLIENT_KEY, COORDINATOR_SERVER_NAME.
    """

    ca: Optional[File] = None
    """The authorities that prove servers; by default the system's."""
    cert: Optional[File] = None
    """The certificate to show (mutual TLS), with those that it builds on."""
    key: Optional[File] = None
    """Its key, without a password; by default it stands in the file of the certificate."""
    server_name: Optional[str] = None
    """The name that servers have to prove; by default that of their host."""


AnyTls = Union[Tls, "ssl.SSLContext"]


class Secret:
    """A credential. It is not shown by `repr`."""

    __slots__ = ("text",)

    def __init__(self, text: str):
        self.text = text


class CredentialInClear(OSError):
    """A credential was not sent where others can read it."""

    hint = "write tls:// before the server's address"
    is_retryable = False


class EachFailed(OSError):
    """Nobody answers, each for a reason of its own."""


class Server(NamedTuple):
    """Where a server is, whom to trust there, if it speaks TLS, and what to show."""

    host: str
    port: int
    trust: "Optional[Trust]" = None
    credential: Optional[Secret] = None


def find_credential(credential: Optional[str]) -> Optional[Secret]:
    """The credential to show: this one, or as the environment says for the command line, too."""
    text = credential or os.environ.get("COORDINATOR_CREDENTIAL")
    file = os.environ.get("COORDINATOR_CREDENTIAL_FILE")
    if not text and file:
        try:
            with open(file, encoding="ascii") as opened:
                text = opened.read(4096)
        except (OSError, UnicodeError) as error:
            raise InvalidRequest(
                f"cannot read the credential {file}: {error}",
                "COORDINATOR_CREDENTIAL_FILE names it",
            ) from None
    if not text:
        return None
    text = text.strip()
    if not text.startswith("coord_") or len(text) != 78:
        raise InvalidRequest(
            "what is to be shown is no credential",
            "it is what `coordinator access new-credential` prints",
        )
    return Secret(text)


def parse_servers(
    servers: Optional[Servers], tls: Optional[AnyTls] = None, credential: Optional[str] = None
) -> List[Server]:
    """Hosts and ports; None: what COORDINATOR_SERVER says, else this machine.

    >>> shown(parse_servers("a.internal,[::1]:7000"))
    'a.internal:5625,[::1]:7000'
    >>> shown(parse_servers(["a", "tls://b:7"]))
    'a:5625,tls://b:7'
    """
    if servers is None:
        servers = os.environ.get("COORDINATOR_SERVER") or f"127.0.0.1:{PORT_DEFAULT}"
    texts = [servers] if isinstance(servers, str) else list(servers)
    named = [one.strip() for text in texts for one in text.split(",") if one.strip()]
    if not named:
        raise InvalidRequest("no server is named", "pass host:port, or set COORDINATOR_SERVER")
    if len(named) > SERVERS_MAX:
        raise InvalidRequest(f"{len(named)} servers are named; at most {SERVERS_MAX} are allowed")
    trust = None
    if any(text.startswith(_SECURE) for text in named):
        # Only now: it costs more to import than all the rest.
        from ._tls import Trust

        trust = Trust(tls)
    elif tls is not None:
        raise InvalidRequest(
            f'tls says nothing without a server that speaks it, and "{",".join(named)}" is none',
            "write tls:// before its address",
        )
    shows = find_credential(credential)
    return [_parse(text, trust)._replace(credential=shows) for text in named]


def _parse(whole: str, trust: "Optional[Trust]") -> Server:
    text = whole
    if whole.startswith(_SECURE):
        # A path's slash, as people end an address of the web.
        text = whole[len(_SECURE) :].rstrip("/")
    else:
        trust = None
    if "/" in text:
        raise InvalidRequest(
            f'invalid server "{whole}": a host and a port, host:5625, perhaps behind tls://; no URL'
        )
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        port = rest[1:] if rest.startswith(":") else ""
        if not bracket or (rest and not port):
            raise InvalidRequest(f'invalid server "{whole}"')
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    if not host or (port and not (port.isdigit() and 0 < int(port) < 65_536)):
        raise InvalidRequest(f'invalid server "{whole}"', "pass host:port, with a port up to 65535")
    return Server(host, int(port) if port else PORT_DEFAULT, trust)


def shown(servers: List[Server]) -> str:
    """How they are called in errors."""
    texts = []
    for host, port, trust, _ in servers:
        scheme = "" if trust is None else _SECURE
        texts.append(f"{scheme}[{host}]:{port}" if ":" in host else f"{scheme}{host}:{port}")
    return ",".join(texts)


Address = Tuple[Any, Any]


def _lookup(server: Server) -> List[Address]:
    found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    families: Dict[Any, List[Address]] = {}
    for family, _, _, _, address in found:
        families.setdefault(family, []).append((family, address))
    # The families in turns: that one of them is a black hole is common.
    turns: List[Address] = []
    for place in range(max(map(len, families.values()), default=0)):
        turns += [family[place] for family in families.values() if place < len(family)]
    return turns[:ADDRESSES_MAX]


class _Race:
    """The attempts of one call."""

    def __init__(self, servers: List[Server], first: int, waits_for_first: bool):
        self.servers = servers
        self.order = [(first + place) % len(servers) for place in range(len(servers))]
        self.known: List[Optional[List[Address]]] = [None] * len(servers)
        self.found: "queue.Queue[Tuple[int, Any]]" = queue.Queue()
        self.failures: List[Optional[OSError]] = [None] * len(servers)
        self.selector = selectors.DefaultSelector()
        self.due = 0.0
        # What is trusted, once somebody is to prove something.
        self.context: "Optional[ssl.SSLContext]" = None
        for place, number in enumerate(self.order):
            self._begin_lookup(place, servers[number])
            if place == 0 and waits_for_first:
                # One that was named for a reason is not overtaken by who needs no looking up.
                self.wait_for_lookup(HEAD_START)

    def _begin_lookup(self, place: int, server: Server) -> None:
        """In a thread: what a name is, may take the system longer than anybody waits."""
        if _is_address(server.host):
            return self._look_up(place, server)
        arguments = (place, server)
        try:
            threading.Thread(target=self._look_up, args=arguments, daemon=True).start()
        except RuntimeError as error:  # There are as many as there can be.
            self.found.put((place, error))

    def wait_for_lookup(self, timeout: float) -> None:
        try:
            self.found.put(self.found.get(timeout=timeout))
        except queue.Empty:
            pass

    def _look_up(self, place: int, server: Server) -> None:
        try:
            self.found.put((place, _lookup(server)))
        except (OSError, UnicodeError) as error:
            self.found.put((place, error))

    def take_lookups(self) -> None:
        while True:
            try:
                place, found = self.found.get_nowait()
            except queue.Empty:
                return
            if isinstance(found, list):
                self.known[place] = found
            else:
                self.fail(place, found)
                self.known[place] = []

    def fail(self, place: int, error: BaseException) -> None:
        known = self.failures[place]
        # What TLS says of one address says more than that another does not answer.
        if known is None or (hasattr(error, "hint") and not hasattr(known, "hint")):
            self.failures[place] = error if isinstance(error, OSError) else OSError(str(error))

    def failure(self) -> OSError:
        """What is wrong with each of several; of one, as it was raised."""
        pairs = zip(self.order, self.failures)
        told = [(self.servers[number], why) for number, why in pairs if why is not None]
        # What TLS says has a remedy of its own.
        best = [why for _, why in told if hasattr(why, "hint")] or [why for _, why in told]
        if len(told) < 2 or hasattr(best[0], "hint"):
            return best[0] if best else OSError("it has no address")
        texts = [f"{shown([server])}: {cause(why)}" for server, why in told]
        return EachFailed("; ".join(texts))

    def told(self) -> Dict[str, str]:
        """Why those do not answer that failed; of one alone, nothing."""
        if len(self.servers) == 1:
            return {}
        pairs = zip(self.order, self.failures, self.known)
        return {
            shown([self.servers[number]]): cause(why)
            for number, why, left in pairs
            if why is not None and not left
        }

    def next_address(self) -> Optional[Tuple[int, Address]]:
        for place, left in enumerate(self.known):
            if left:
                return place, left.pop(0)
        return None

    def begin_one(self) -> None:
        tried = self.next_address()
        if tried is None:
            return
        place, (family, address) = tried
        self.due = time.monotonic() + HEAD_START
        sock = None
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setblocking(False)
            code = sock.connect_ex(address)
            if code and code not in _IN_PROGRESS:
                raise OSError(code, os.strerror(code))
            self.selector.register(sock, selectors.EVENT_WRITE, place)
        except OSError as error:
            if sock is not None:
                sock.close()
            self.fail(place, error)
            self.due = 0.0

    def step(self, timeout: float) -> Optional[Tuple[int, Connection]]:
        """Waits a little; the place and the connection of the first that is there."""
        for key, _ in self.selector.select(timeout):
            sock: Any = key.fileobj
            place = key.data
            self.selector.unregister(sock)
            try:
                if isinstance(sock, socket.socket):
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if code:
                        raise OSError(code, os.strerror(code))
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    server = self.servers[self.order[place]]
                    if server.trust is None:
                        return self.order[place], sock
                    sock = self.secure(sock, server.host, server.trust)
                if sock.shake():
                    return self.order[place], sock
                writes = selectors.EVENT_WRITE if sock.has_unsent else 0
                self.selector.register(sock, selectors.EVENT_READ | writes, place)
            except OSError as error:
                sock.close()
                self.fail(place, error)
                self.due = 0.0
        return None

    def secure(self, sock: socket.socket, host: str, trust: "Trust") -> "SecureSocket":
        """The same connection, before its handshake."""
        from ._tls import Secure, SecureSocket

        if self.context is None:
            self.context = trust.context()
        return SecureSocket(sock, Secure(self.context, trust.name(host)))

    @property
    def is_over(self) -> bool:
        # One that was not looked up yet may still be found.
        return not self.selector.get_map() and all(known == [] for known in self.known)

    def close(self) -> None:
        for key in list(self.selector.get_map().values()):
            sock: Any = key.fileobj
            sock.close()
        self.selector.close()


def connect_first(
    servers: List[Server],
    first: int,
    timeout: float,
    is_wanted: Callable[[], bool] = lambda: True,
    waits_for_first: bool = False,
    failed: Optional[Dict[str, str]] = None,
) -> Tuple[int, Connection]:
    """Which server answered, and the connection, which does not block. Raises OSError.

    A server that speaks TLS has answered once it has proved who it is. With `waits_for_first`, no
    other is tried before the name of the first is looked up, for a moment. In `failed` is told
    meanwhile why others do not answer.
    """
    give_up_at = time.monotonic() + timeout
    race = _Race(servers, first, waits_for_first)
    try:
        while is_wanted():
            race.take_lookups()
            if failed is not None:
                failed.update(race.told())
            now = time.monotonic()
            if now >= race.due or not race.selector.get_map():
                race.begin_one()
            if race.is_over:
                raise race.failure()
            if now >= give_up_at:
                known = "; ".join(f"{server}: {why}" for server, why in race.told().items())
                text = f"no answer within {timeout:.3g} s"
                raise TimeoutError(f"{text}: {known}" if known else text)
            some_unknown = any(known is None for known in race.known)
            if some_unknown and not race.selector.get_map():
                race.wait_for_lookup(min(0.05, give_up_at - now))
                continue
            connected = race.step(min(0.02 if some_unknown else 0.05, give_up_at - now))
            if connected is not None:
                _show(servers[connected[0]], connected[1])
                return connected
        raise OSError("it is not wanted any more")
    finally:
        race.close()


def _show(server: Server, connection: Connection) -> None:
    """Shows the credential, before anything else is said: far less than what a socket takes."""
    if server.credential is None:
        return
    try:
        if isinstance(connection, socket.socket) and not _is_here(connection.getpeername()[0]):
            raise CredentialInClear(f"without TLS, others could read what {server.host} is shown")
        connection.send(wire.encode(wire.Authenticate(server.credential.text)))
    except OSError:
        connection.close()
        raise


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _is_here(address: str) -> bool:
    here = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(here, "ipv4_mapped", None)
    return (mapped or here).is_loopback
