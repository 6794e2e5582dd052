"""Messages and their bytes: the codec, made of the tables in `_messages`.

Nothing here opens a socket or knows what a message means.

>>> encode(Cancel(7)).hex()
'0c000000030000000700000000000000'
>>> decode_client(encode(Cancel(7))[4:])
Cancel(request=7)
"""

from __future__ import annotations

import struct
from typing import Any, Callable, Dict, List, Tuple, Type, Union

from . import _messages
from ._messages import *  # noqa: F403
from ._messages import CHOICES, FRAME_LEN_MAX, STRUCTURES, WireError

_Reader = Callable[[bytes, int], Tuple[Any, int]]
_Writer = Callable[[Any, List[bytes]], None]
_INTEGERS = {"u16": "H", "u32": "I", "u64": "Q"}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


def _read_u128(data: bytes, at: int) -> Tuple[int, int]:
    if at + 16 > len(data):
        raise WireError("a message is shorter than its fields")
    return int.from_bytes(data[at : at + 16], "little"), at + 16


def _write_u128(value: int, out: List[bytes]) -> None:
    out.append(value.to_bytes(16, "little"))


def _read_bool(data: bytes, at: int) -> Tuple[bool, int]:
    byte = data[at]
    if byte > 1:
        raise WireError(f"a bool of {byte}")
    return byte == 1, at + 1


def _write_bool(value: bool, out: List[bytes]) -> None:
    out.append(b"\1" if value else b"\0")


def _read_string(data: bytes, at: int) -> Tuple[str, int]:
    (length,) = _U64.unpack_from(data, at)
    at += 8
    if length > len(data) - at:
        raise WireError("a text is longer than its message")
    return data[at : at + length].decode("utf-8"), at + length


def _write_string(value: str, out: List[bytes]) -> None:
    text = value.encode("utf-8")
    out.append(_U64.pack(len(text)))
    out.append(text)


def _integer(code: str) -> Tuple[_Reader, _Writer]:
    packed = struct.Struct("<" + code)

    def read(data: bytes, at: int) -> Tuple[int, int]:
        return int(packed.unpack_from(data, at)[0]), at + packed.size

    def write(value: int, out: List[bytes]) -> None:
        out.append(packed.pack(value))

    return read, write


def _optional(kind: str) -> Tuple[_Reader, _Writer]:
    read_one, write_one = _codec(kind)

    def read(data: bytes, at: int) -> Tuple[Any, int]:
        there, at = _read_bool(data, at)
        return read_one(data, at) if there else (None, at)

    def write(value: Any, out: List[bytes]) -> None:
        _write_bool(value is not None, out)
        if value is not None:
            write_one(value, out)

    return read, write


def _list(kind: str) -> Tuple[_Reader, _Writer]:
    read_one, write_one = _codec(kind)

    def read(data: bytes, at: int) -> Tuple[List[Any], int]:
        (count,) = _U64.unpack_from(data, at)
        at += 8
        # No element is shorter than a byte: no memory is taken on the word of a length.
        if count > len(data) - at:
            raise WireError("a list is longer than its message")
        values = []
        for _ in range(count):
            value, at = read_one(data, at)
            values.append(value)
        return values, at

    def write(values: Any, out: List[bytes]) -> None:
        out.append(_U64.pack(len(values)))
        for value in values:
            write_one(value, out)

    return read, write


def _choice(kind: str) -> Tuple[_Reader, _Writer]:
    variants = CHOICES[kind]
    codecs = [_structure(variant) for variant in variants]
    numbers = {
        variant: (_U32.pack(number), codecs[number][1]) for number, variant in enumerate(variants)
    }

    def read(data: bytes, at: int) -> Tuple[Any, int]:
        (number,) = _U32.unpack_from(data, at)
        if number >= len(codecs):
            raise WireError(f"{kind} {number} is unknown")
        fields: Tuple[Any, int] = codecs[number][0](data, at + 4)
        return fields

    def write(value: Any, out: List[bytes]) -> None:
        number, write_fields = numbers[type(value)]
        out.append(number)
        write_fields(value, out)

    return read, write


def _structure(record: Type[Any]) -> Tuple[_Reader, _Writer]:
    """The fields one after the other; integers that are neighbours are read and written at once."""
    kinds = [_annotation(record, field) for field in record._fields]
    if all(kind in _INTEGERS for kind in kinds):
        packed = struct.Struct("<" + "".join(_INTEGERS[kind] for kind in kinds))

        def read_packed(data: bytes, at: int) -> Tuple[Any, int]:
            return record(*packed.unpack_from(data, at)), at + packed.size

        def write_packed(value: Any, out: List[bytes]) -> None:
            out.append(packed.pack(*value))

        return read_packed, write_packed
    codecs = [_codec(kind) for kind in kinds]
    readers = [read for read, _ in codecs]
    writers = [write for _, write in codecs]

    def read(data: bytes, at: int) -> Tuple[Any, int]:
        fields = []
        for read_field in readers:
            field, at = read_field(data, at)
            fields.append(field)
        return record(*fields), at

    def write(value: Any, out: List[bytes]) -> None:
        for write_field, field in zip(writers, value):
            write_field(field, out)

    return read, write


def _annotation(record: Type[Any], field: str) -> str:
    kind = record.__annotations__[field]
    return str(getattr(kind, "__forward_arg__", kind))


_CODECS: Dict[str, Tuple[_Reader, _Writer]] = {
    "u128": (_read_u128, _write_u128),
    "bool": (_read_bool, _write_bool),
    "string": (_read_string, _write_string),
}


def _codec(kind: str) -> Tuple[_Reader, _Writer]:
    codec = _CODECS.get(kind)
    if codec is None:
        if kind in _INTEGERS:
            codec = _integer(_INTEGERS[kind])
        elif kind.startswith("Optional["):
            codec = _optional(kind[len("Optional[") : -1])
        elif kind.startswith("List["):
            codec = _list(kind[len("List[") : -1])
        elif kind in CHOICES:
            codec = _choice(kind)
        else:
            codec = _structure(next(s for s in STRUCTURES if s.__name__ == kind))
        _CODECS[kind] = codec
    return codec


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

_read_client, _write_client = _codec("ClientMessage")
_read_server, _write_server = _codec("ServerMessage")
_CLIENT_MESSAGES = frozenset(CHOICES["ClientMessage"])


def encode(message: Union[_messages.ClientMessage, _messages.ServerMessage]) -> bytes:
    """The frame of a message: its length, then itself.

    Raises `WireError` if a number is too large for its field, or the frame for a frame.
    """
    out: List[bytes] = []
    try:
        (_write_client if type(message) in _CLIENT_MESSAGES else _write_server)(message, out)
    except (struct.error, OverflowError, UnicodeEncodeError) as error:
        raise WireError(f"{type(message).__name__} cannot be written: {error}") from None
    payload = b"".join(out)
    if len(payload) > FRAME_LEN_MAX:
        raise WireError(f"a message of {len(payload)} bytes, a frame has at most {FRAME_LEN_MAX}")
    return _U32.pack(len(payload)) + payload


def _decode(read: _Reader, payload: bytes) -> Any:
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
