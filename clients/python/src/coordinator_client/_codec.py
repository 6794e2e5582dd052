"""Readers and writers of records, compiled from the tables in `_messages`.

A table is turned into the source of two functions, once, when the first message of its kind is read
or written. Numbers that are neighbours are read and written at once. Compiled like this, a message
costs a third of what it costs to walk over its table.
"""

from __future__ import annotations

import struct
from typing import Any, Callable, Dict, List, Tuple, Type

from ._messages import CHOICES, STRUCTURES
from ._structures import WireError

Reader = Callable[[bytes, int], Tuple[Any, int]]
Writer = Callable[[Any, Callable[[bytes], Any]], Any]

# The letters of `struct` for a number; one of 128 bits is two of 64.
_NUMBERS = {"u16": "H", "u32": "I", "u64": "Q", "u128": "QQ"}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_LOW = 2**64 - 1

_readers: Dict[str, Reader] = {}
_writers: Dict[str, Writer] = {}


def annotation(record: Type[Any], field: str) -> str:
    """The type of a field on the wire."""
    kind = record.__annotations__[field]
    return str(getattr(kind, "__forward_arg__", kind))


def reader(kind: str) -> Reader:
    """What reads a value of that type: gives it, and where it ends."""
    read = _readers.get(kind)
    if read is None:
        read = _readers[kind] = _read_choice(kind) if kind in CHOICES else _Source(kind).reader()
    return read


def writer(kind: str) -> Writer:
    """What writes a value of that type: calls its second argument with one piece after another."""
    write = _writers.get(kind)
    if write is None:
        write = _writers[kind] = _write_choice(kind) if kind in CHOICES else _Source(kind).writer()
    return write


def head_of(record: Type[Any], choice: str) -> bytes:
    """What a variant begins with: its number."""
    return _U32.pack(CHOICES[choice].index(record))


def _read_choice(kind: str) -> Reader:
    variants = CHOICES[kind]
    # What has no fields is one value for all.
    constants = [None if variant._fields else variant() for variant in variants]

    def read(data: bytes, at: int) -> Tuple[Any, int]:
        number = _U32.unpack_from(data, at)[0]
        if number >= len(variants):
            raise WireError(f"{kind} {number} is unknown")
        constant = constants[number]
        if constant is not None:
            return constant, at + 4
        return reader(variants[number].__name__)(data, at + 4)

    return read


def _write_choice(kind: str) -> Writer:
    heads = {variant: head_of(variant, kind) for variant in CHOICES[kind]}

    def write(value: Any, out: Callable[[bytes], Any]) -> None:
        record = value.__class__
        out(heads[record])
        if value:
            writer(record.__name__)(value, out)

    return write


def read_string(data: bytes, at: int) -> Tuple[str, int]:
    """A text behind its length."""
    (length,) = _U64.unpack_from(data, at)
    at += 8
    if length > len(data) - at:
        raise WireError("a text is longer than its message")
    return data[at : at + length].decode("utf-8"), at + length


def read_bool(data: bytes, at: int) -> Tuple[bool, int]:
    """A byte that is 0 or 1."""
    byte = data[at]
    if byte > 1:
        raise WireError(f"a bool of {byte}")
    return byte == 1, at + 1


def read_count(data: bytes, at: int) -> Tuple[int, int]:
    """The length of a list."""
    (count,) = _U64.unpack_from(data, at)
    at += 8
    # No element is shorter than a byte: no memory is taken on the word of a length.
    if count > len(data) - at:
        raise WireError("a list is longer than its message")
    return count, at


class _Source:
    """The source of the functions of one record."""

    def __init__(self, kind: str):
        records = {r.__name__: r for choice in CHOICES.values() for r in choice}
        records.update((structure.__name__, structure) for structure in STRUCTURES)
        self.record = records[kind]
        self.kinds = [annotation(self.record, field) for field in self.record._fields]
        self.names = [f"v{number}" for number in range(len(self.kinds))]
        self.lines: List[str] = []
        # What the functions refer to.
        self.scope: Dict[str, Any] = {
            "record": self.record, "new": tuple.__new__, "length": _U64.pack,
            "read_string": read_string, "read_bool": read_bool, "read_count": read_count,
        }  # fmt: skip

    def _compile(self, head: str) -> Any:
        source = "\n".join([head, *(f"    {line}" for line in self.lines)])
        exec(compile(source, f"<{self.record.__name__} of coordinator_client>", "exec"), self.scope)
        return self.scope["function"]

    def _runs(self) -> List[List[Tuple[str, str]]]:
        """The fields and their types, those in one run that are numbers and neighbours."""
        runs: List[List[Tuple[str, str]]] = []
        for field in zip(self.names, self.kinds):
            if runs and field[1] in _NUMBERS and runs[-1][-1][1] in _NUMBERS:
                runs[-1].append(field)
            else:
                runs.append([field])
        return runs

    def _packed(self, run: List[Tuple[str, str]]) -> Tuple[str, int]:
        """Puts the struct of a run into the scope; its name there, and its size."""
        packed = struct.Struct("<" + "".join(_NUMBERS[kind] for _, kind in run))
        name = f"s{run[0][0]}"
        self.scope[f"{name}_pack"], self.scope[f"{name}_unpack"] = packed.pack, packed.unpack_from
        return name, packed.size

    # --- writing ---

    def writer(self) -> Writer:
        """A function that writes the record's fields."""
        self.lines.append(f"{', '.join(self.names)}, = value" if self.names else "pass")
        for run in self._runs():
            if run[0][1] in _NUMBERS:
                parts = [
                    f"{name} & {_LOW}, {name} >> 64" if kind == "u128" else name
                    for name, kind in run
                ]
                self.lines.append(f"out({self._packed(run)[0]}_pack({', '.join(parts)}))")
            else:
                self._write(*run[0], "")
        write: Writer = self._compile("def function(value, out):")
        return write

    def _write(self, name: str, kind: str, indent: str) -> None:
        if kind in _NUMBERS:
            self.lines.append(f"{indent}out({self._packed([(name, kind)])[0]}_pack({name}))")
        elif kind == "bool":
            self.lines.append(f'{indent}out(b"\\1" if {name} else b"\\0")')
        elif kind == "string":
            self.lines.append(f"{indent}text = {name}.encode()")
            self.lines.append(f"{indent}out(length(len(text)))")
            self.lines.append(f"{indent}out(text)")
        elif kind.startswith("Optional["):
            self.lines.append(f"{indent}if {name} is None:")
            self.lines.append(f'{indent}    out(b"\\0")')
            self.lines.append(f"{indent}else:")
            self.lines.append(f'{indent}    out(b"\\1")')
            self._write(name, kind[len("Optional[") : -1], indent + "    ")
        elif kind.startswith("List["):
            self.lines.append(f"{indent}out(length(len({name})))")
            self.lines.append(f"{indent}for {name}_one in {name}:")
            self._write(f"{name}_one", kind[len("List[") : -1], indent + "    ")
        else:
            self.scope[f"write_{name}"] = writer(kind)
            self.lines.append(f"{indent}write_{name}({name}, out)")

    # --- reading ---

    def reader(self) -> Reader:
        """A function that reads the record."""
        for run in self._runs():
            if run[0][1] in _NUMBERS:
                packed, size = self._packed(run)
                parts = [
                    f"{name}_low, {name}_high" if kind == "u128" else name for name, kind in run
                ]
                self.lines.append(f"{', '.join(parts)}, = {packed}_unpack(data, at)")
                self.lines.append(f"at += {size}")
                for name, kind in run:
                    if kind == "u128":
                        self.lines.append(f"{name} = {name}_low | {name}_high << 64")
            else:
                self._read(*run[0], "")
        # What the class's own constructor does, for half the price.
        fields = "".join(f"{name}, " for name in self.names)
        self.lines.append(f"return new(record, ({fields})), at")
        read: Reader = self._compile("def function(data, at):")
        return read

    def _read(self, name: str, kind: str, indent: str) -> None:
        if kind in _NUMBERS:
            packed, size = self._packed([(name, kind)])
            self.lines.append(f"{indent}{name}, = {packed}_unpack(data, at)")
            self.lines.append(f"{indent}at += {size}")
        elif kind in ("bool", "string"):
            self.lines.append(f"{indent}{name}, at = read_{kind}(data, at)")
        elif kind.startswith("Optional["):
            self.lines.append(f"{indent}{name}, at = read_bool(data, at)")
            self.lines.append(f"{indent}if not {name}:")
            self.lines.append(f"{indent}    {name} = None")
            self.lines.append(f"{indent}else:")
            self._read(name, kind[len("Optional[") : -1], indent + "    ")
        elif kind.startswith("List["):
            self.lines.append(f"{indent}{name}_count, at = read_count(data, at)")
            self.lines.append(f"{indent}{name} = []")
            self.lines.append(f"{indent}for _ in range({name}_count):")
            self._read(f"{name}_one", kind[len("List[") : -1], indent + "    ")
            self.lines.append(f"{indent}    {name}.append({name}_one)")
        else:
            self.scope[f"read_{name}"] = reader(kind)
            self.lines.append(f"{indent}{name}, at = read_{name}(data, at)")
