"""TLS 1.3 between the frames and the socket. Imported only where a server is named ``tls://``.

It works on bytes in memory. The socket is waited for, read and closed as one without TLS: nothing
that was read stays inside, and a copy in a child process that is closed says nothing to the server.
"""

from __future__ import annotations

import os
import socket
import ssl
from typing import Any, Dict, List, Optional

from ._dial import AnyTls, Tls
from ._errors import InvalidRequest

ALPN = "coordinator"
RECORD_LEN_MAX = 16 * 1024
READ_BYTES_MAX = 64 * 1024
_SETTINGS = {
    "ca": "COORDINATOR_SERVER_CA",
    "cert": "COORDINATOR_CLIENT_CERT",
    "key": "COORDINATOR_CLIENT_KEY",
    "server_name": "COORDINATOR_SERVER_NAME",
}
_HINT = (
    "tls=Tls(ca=, server_name=, cert=, key=) says whom to trust, whom to expect and what to show, "
    "and so do COORDINATOR_SERVER_CA, _SERVER_NAME, COORDINATOR_CLIENT_CERT and _CLIENT_KEY"
)
# By the codes of X509_V_ERR_*.
_FLAWS = {
    7: "is not signed by the authority of that name which is trusted here",
    9: "is not valid yet: one of the clocks is wrong",
    10: "has expired",
    23: "was revoked",
    26: "is not for what it does with it",
}
_UNTRUSTED = {2, 18, 19, 20, 21, 24, 27}
_OTHER_NAME = {62, 64}
_NO_TLS = {
    "WRONG_VERSION_NUMBER", "UNEXPECTED_MESSAGE", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE",
    "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "NOT_SSL_RECORD_LAYER", "BAD_RECORD_TYPE",
    "UNEXPECTED_RECORD", "RECORD_TOO_SMALL", "DATA_LENGTH_TOO_LONG", "ENCRYPTED_LENGTH_TOO_LONG",
}  # fmt: skip
# By how OpenSSL calls the alerts, without what they begin with.
_ALERTS = {
    "CERTIFICATE_REQUIRED": "it wants a certificate of its clients: name one, and its key",
    "NO_APPLICATION_PROTOCOL": "it is no lock port, and speaks TLS",
    "PROTOCOL_VERSION": "it does not speak TLS 1.3; if not at all, leave tls:// out",
    "CERTIFICATE_REVOKED": "it refused our certificate: that was revoked",
    "CERTIFICATE_EXPIRED": "it refused our certificate: that has expired",
    "UNKNOWN_CA": "it refused our certificate: that is by an authority that it does not trust",
    # It only has the name of a trusted one.
    "DECRYPT_ERROR": "it refused our certificate: that is by an authority that it does not trust",
    "BAD_CERTIFICATE": "it refused our certificate: that does not do",
    "CERTIFICATE_UNKNOWN": "it refused our certificate: that does not do",
    "UNSUPPORTED_CERTIFICATE": "it refused our certificate: that does not do",
    "ACCESS_DENIED": "it refused our certificate: that does not do",
}


class TlsError(OSError):
    """What went wrong, in words."""

    hint = _HINT
    is_retryable = True


class Misfit(TlsError):
    """What does not fit, and will not when it is tried again."""

    is_retryable = False


class Trust:
    """Whom to trust, and what to show: as the caller says, or the environment."""

    def __init__(self, tls: Optional[AnyTls]):
        said = tls if isinstance(tls, Tls) else Tls()
        # Another library may have put its own class in the place of ssl's.
        self._context: Any = None if tls is None or isinstance(tls, Tls) else tls
        if self._context is not None and not hasattr(self._context, "wrap_bio"):
            raise InvalidRequest(f"tls is {type(tls).__name__}", "pass a Tls or an ssl.SSLContext")
        found: Dict[str, Any] = {}
        for field, variable in _SETTINGS.items():
            found[field] = getattr(said, field) or os.environ.get(variable) or None
        # Certificate and key belong together.
        if said.cert is not None:
            found["key"] = said.key
        self._files = Tls(**found)
        if self._files.key is not None and self._files.cert is None:
            raise InvalidRequest("a client's key says nothing without its certificate", _HINT)

    def name(self, host: str) -> str:
        """The name that the server at this host has to prove."""
        return self._files.server_name or host

    def context(self) -> ssl.SSLContext:
        """For a new connection: the files are read anew. Raises `TlsError`."""
        if self._context is not None:
            context: ssl.SSLContext = self._context
            return context
        ca, cert, key, _ = self._files
        # It verifies the server and its name.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols([ALPN])
        if ssl.HAS_NEVER_CHECK_COMMON_NAME:
            context.hostname_checks_common_name = False
        if ca is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            # An authority that is named is trusted, whoever proves it.
            context.verify_flags |= 0x80000  # VERIFY_X509_PARTIAL_CHAIN, from 3.10 on
            try:
                context.load_verify_locations(cafile=ca)
            except OSError as error:
                raise _unreadable(ca, "certificate", error) from None
        if cert is not None:
            try:
                # Without a password it would ask for one at the terminal.
                context.load_cert_chain(cert, key, password="")
            except OSError as error:
                raise _unusable_pair(cert, key, error) from None
        return context


def _unreadable(file: Any, what: str, error: OSError) -> TlsError:
    if isinstance(error, ssl.SSLError):
        return Misfit(f"{os.fspath(file)} has no {what} in PEM, or is damaged")
    why = os.strerror(error.errno).lower() if error.errno else str(error)
    return Misfit(f"cannot read {os.fspath(file)}: {why}")


def _unusable_pair(cert: Any, key: Any, error: OSError) -> TlsError:
    secret = cert if key is None else key
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH" or error.reason == "KEY_TYPE_MISMATCH":
            return Misfit(
                f"the key in {os.fspath(secret)} is not that of the certificate in "
                f"{os.fspath(cert)}"
            )
        return Misfit(
            f"{os.fspath(cert)} has no certificate in PEM, or {os.fspath(secret)} no key, or one "
            "with a password"
        )
    for file in (cert, secret):
        if not os.access(file, os.R_OK):
            return _unreadable(file, "certificate", error)
    return _unreadable(cert, "certificate", error)


class Secure:
    """TLS of one connection, without its socket; used by one thread at a time."""

    def __init__(self, context: ssl.SSLContext, name: str):
        self._name = name
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        try:
            self._object: Any = context.wrap_bio(
                self._incoming, self._outgoing, server_hostname=name
            )
        except ValueError:
            text = f'"{name}" is no name of a server that a certificate can have'
            raise Misfit(text) from None
        # Why nothing can be read any more.
        self.failure: Optional[TlsError] = None
        # Whether the server has said that nothing follows.
        self.is_over = False

    def shake(self, data: bytes) -> bool:
        """Takes what was read; whether the server has proved who it is. Raises `TlsError`."""
        self._incoming.write(data)
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            self.failure = self._in_words(error)
            raise self.failure from error
        return True

    def open(self, data: bytes) -> bytes:
        """What the bytes that were read mean, perhaps nothing yet. Raises `TlsError`."""
        parts: List[bytes] = []
        if self.failure is None:
            self._incoming.write(data)
        while self.failure is None and not self.is_over:
            try:
                parts.append(self._object.read(READ_BYTES_MAX))
            except ssl.SSLWantReadError:
                break
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                self.is_over = True
            except ssl.SSLError as error:
                self.failure = self._in_words(error)
            if not self._incoming.pending and not self._object.pending():
                break
        if self.failure is not None and not parts:
            raise self.failure
        return b"".join(parts)

    def seal(self, data: bytes) -> bytes:
        """What is to be sent so that the server reads this. Raises `TlsError`."""
        try:
            while data:
                data = data[self._object.write(data) :]
        except ssl.SSLError as error:
            raise self.failure or self._in_words(error) from None
        return self._outgoing.read()

    def reply(self) -> bytes:
        """What is to be sent for TLS itself."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def _in_words(self, error: ssl.SSLError) -> TlsError:
        if isinstance(error, ssl.SSLCertVerificationError):
            is_lasting = error.verify_code in _UNTRUSTED | _OTHER_NAME
            kind = Misfit if is_lasting else TlsError
            return kind(f"its certificate {self._flaw(error)}")
        reason = error.reason or ""
        if reason in _NO_TLS:
            return Misfit("it does not speak TLS: leave tls:// out")
        if "_ALERT_" in reason:
            alert = reason.partition("_ALERT_")[2]
            return TlsError(_ALERTS.get(alert, f"it refused TLS ({alert.lower()})"))
        if reason in ("UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE"):
            return TlsError("it does not speak TLS as we do: version 1.3")
        return TlsError(f"TLS failed: {(reason or str(error)).lower().replace('_', ' ')}")

    def _flaw(self, error: ssl.SSLCertVerificationError) -> str:
        code = error.verify_code
        if code in _UNTRUSTED:
            return "is by an authority that is not trusted here"
        if code in _OTHER_NAME:
            presented = ", ".join(self._presented())
            return f"is not for {self._name}" + (f": it is for {presented}" if presented else "")
        return _FLAWS.get(code) or f"is not accepted: {error.verify_message}"

    def _presented(self) -> List[str]:
        """The names in the server's certificate, where Python tells them: from 3.10 on."""
        try:
            leaf = self._object._sslobj.get_unverified_chain()[0]
            return [str(name) for _, name in leaf.get_info().get("subjectAltName", ())]
        except (AttributeError, LookupError, TypeError, ValueError, ssl.SSLError):
            return []


class SecureSocket:
    """A socket that does not block, or has a timeout, and what TLS makes of its bytes."""

    def __init__(self, sock: socket.socket, secure: Secure):
        self.sock = sock
        self.secure = secure
        # What TLS has made and the socket has not taken.
        self._sealed = b""
        # How much of what was to be sent is in that.
        self._taken = 0

    def fileno(self) -> int:
        return self.sock.fileno()

    def settimeout(self, timeout: Optional[float]) -> None:
        self.sock.settimeout(timeout)

    def close(self) -> None:
        """Without a word: the frames say when the end is near, and a copy must say nothing."""
        self.sock.close()

    @property
    def has_unsent(self) -> bool:
        """Whether TLS waits until the socket takes more."""
        return bool(self._sealed)

    def shake(self) -> bool:
        """Goes on with the handshake; whether it is done. Raises OSError."""
        try:
            data = self.sock.recv(READ_BYTES_MAX)
        except (BlockingIOError, InterruptedError):
            data = b""
        else:
            if not data:
                raise TlsError("it closed the connection in the middle of the TLS handshake")
        try:
            return self.secure.shake(data)
        finally:
            self._reply()

    def recv(self, size: int) -> bytes:
        """As of a socket that does not block, whatever the timeout is, if TLS only had a word for
        itself.
        """
        data = self.sock.recv(size)
        if not data:
            if self.secure.failure is not None:
                raise self.secure.failure
            return b""
        try:
            plain = self.secure.open(data)
        finally:
            self._reply()
            if self.secure.failure is not None or self.secure.is_over:
                # So that it can be read once more: then it tells.
                self._end_reading()
        if not plain and not self.secure.is_over:
            raise BlockingIOError
        return plain

    def _end_reading(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_RD)
        except OSError:
            pass  # It is over already.

    def _reply(self) -> None:
        self._sealed += self.secure.reply()
        try:
            self._push()
        except OSError:
            pass  # It goes with what is sent next; or the next read tells.

    def _push(self) -> None:
        while self._sealed:
            self._sealed = self._sealed[self.sock.send(self._sealed) :]

    def send(self, data: bytes) -> int:
        """As of a socket that does not block; what was refused must be sent again as it was."""
        if not self._taken:
            part = data[:RECORD_LEN_MAX]
            self._sealed += self.secure.seal(part)
            self._taken = len(part)
        self._push()
        taken, self._taken = self._taken, 0
        return taken

    def sendall(self, data: bytes) -> None:
        """As of a socket with a timeout."""
        sealed, self._sealed = self._sealed + self.secure.seal(data), b""
        self.sock.sendall(sealed)
