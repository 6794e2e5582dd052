"""Messages and their bytes: frames, and what is in them.

Nothing here opens a socket or knows what a message means.

>>> encode(Cancel(7)).hex()
'0c000000030000000700000000000000'
>>> decode_client(encode(Cancel(7))[4:])
Cancel(request=7)
"""

from __future__ import annotations

import struct
from typing import Any, Callable, Dict, List, Type, Union

from . import _codec, _messages
from ._codes import *  # noqa: F403
from ._messages import *  # noqa: F403
from ._structures import *  # noqa: F403
from ._messages import CHOICES, FRAME_LEN_MAX, STRUCTURES
from ._structures import WireError

_U32 = struct.Struct("<I")

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

# What a message of that class begins with.
_HEADS = {
    record: _codec.head_of(record, choice)
    for choice in ("ClientMessage", "ServerMessage")
    for record in CHOICES[choice]
}
_write_fields: Dict[Type[Any], _codec.Writer] = {}


def encode(message: Union[_messages.ClientMessage, _messages.ServerMessage]) -> bytes:
    """The frame of a message: its length, then itself.

    Raises `WireError` if a number is too large for its field, or the frame for a frame.
    """
    record = message.__class__
    write = _write_fields.get(record)
    if write is None:
        write = _write_fields[record] = _codec.writer(record.__name__)
    out: List[bytes] = [_HEADS[record]]
    try:
        write(message, out.append)
    except (struct.error, OverflowError, UnicodeEncodeError) as error:
        raise WireError(f"{record.__name__} cannot be written: {error}") from None
    payload = b"".join(out)
    if len(payload) > FRAME_LEN_MAX:
        raise WireError(f"a message of {len(payload)} bytes, a frame has at most {FRAME_LEN_MAX}")
    return _U32.pack(len(payload)) + payload


_read_client, _read_server = _codec.reader("ClientMessage"), _codec.reader("ServerMessage")


def _decode(read: _codec.Reader, payload: bytes) -> Any:
    try:
        message, at = read(payload, 0)
    except (struct.error, IndexError):
        raise WireError("a message is shorter than its fields") from None
    except UnicodeDecodeError:
        raise WireError("a text is not UTF-8") from None
    if at != len(payload):
        raise WireError(f"{len(payload) - at} bytes are left over after a message")
    return message


def decode_client(payload: bytes) -> _messages.ClientMessage:
    """Reads one message of a client from the whole of ``payload``."""
    message: _messages.ClientMessage = _decode(_read_client, payload)
    return message


def decode_server(payload: bytes) -> _messages.ServerMessage:
    """Reads one message of the server from the whole of ``payload``."""
    message: _messages.ServerMessage = _decode(_read_server, payload)
    return message


# How a TLS alert begins, which whoever speaks TLS sends to whoever does not, read as a length.
_TLS_ALERT = 0x00_03_03_15
# And an answer by HTTP.
_HTTP_ANSWER = int.from_bytes(b"HTTP", "little")


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
            if length == _TLS_ALERT:
                raise WireError("it speaks TLS: write tls:// before its address")
            if length == _HTTP_ANSWER:
                raise WireError(
                    "it speaks HTTP: a coordinator's locks are on another port than its page"
                )
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
