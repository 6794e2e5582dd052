"""The bytes of every message, as the server's own tests have them."""

import re
from pathlib import Path

import pytest

from coordinator_client import _codec, _wire as wire

REPOSITORY = Path(__file__).resolve().parents[3]
GOLDEN = REPOSITORY / "src/wire/tests/golden.txt"
PROTOCOL = REPOSITORY / "docs/protocol.md"


def golden():
    """The side, the title, the message as Rust shows it, and its bytes."""
    for entry in GOLDEN.read_text().strip().split("\n\n"):
        title, shown, *lines = entry.split("\n")
        side, title = title.split(": ", 1)
        yield pytest.param(side, shown.strip(), bytes.fromhex("".join(lines)), id=f"{side} {title}")


def shown_like_rust(value, is_choice=False):
    """A message in the words of the golden file, to compare what was read."""
    if value is None:
        return "None"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace('"', '\\"') + '"'
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(shown_like_rust, value)) + "]"
    name = RUST_NAMES.get(type(value).__name__, type(value).__name__)
    name = re.sub("^(Happened|Query|After|Distance|Start)(?=[A-Z])", "", name)
    fields = []
    for field in value._fields:
        inner, one = getattr(value, field), shown_like_rust(getattr(value, field))
        if "Optional" in _codec.annotation(type(value), field) and inner is not None:
            one = f"Some({one})"
        if field == "session" and type(value) is wire.Resume:
            one = f"{inner:032x}"
        if field == "secret" and type(value) is wire.Resume:
            one = "…"
        fields.append(f"{field.rstrip('_')}: {one}")
    return name + (" { " + ", ".join(fields) + " }" if fields else "")


RUST_NAMES = {
    "Farewell": "Goodbye",
    "ServerSeen": "ServerStatus",
    "LocksSeen": "LockStatus",
    "SessionsSeen": "SessionStatus",
    "OutlooksSeen": "Outlook",
    "JournalSeen": "JournalStatus",
    "ClusterSeen": "ClusterStatus",
    "WaitedSeen": "WaitedStatus",
}


@pytest.mark.parametrize("side, shown, payload", list(golden()))
def test_every_golden_message_is_read_and_written_byte_for_byte(side, shown, payload):
    message = (wire.decode_client if side == "client" else wire.decode_server)(payload)
    assert shown_like_rust(message) == shown
    assert wire.encode(message)[4:] == payload
    for length in range(len(payload)):
        with pytest.raises(wire.WireError):
            (wire.decode_client if side == "client" else wire.decode_server)(payload[:length])


def test_every_message_has_a_golden_example():
    seen = {"client": set(), "server": set()}
    for parameters in golden():
        side, _, payload = parameters.values
        seen[side].add(int.from_bytes(payload[:4], "little"))
    assert seen["client"] == set(range(len(wire.CHOICES["ClientMessage"])))
    assert seen["server"] == set(range(len(wire.CHOICES["ServerMessage"])))


def test_bytes_that_are_left_over_are_an_error():
    with pytest.raises(wire.WireError, match="left over"):
        wire.decode_server(wire.encode(wire.Released(1))[4:] + b"\0")


def test_a_length_that_lies_takes_no_memory():
    account = wire.encode(wire.Account(0, 1, [], []))[4:]
    lie = account[:20] + (2**60).to_bytes(8, "little")
    with pytest.raises(wire.WireError, match="longer than its message"):
        wire.decode_client(lie)


def test_unknown_numbers_are_errors():
    with pytest.raises(wire.WireError, match="ServerMessage 99"):
        wire.decode_server((99).to_bytes(4, "little"))


def test_a_frame_of_the_longest_length_is_taken_and_one_longer_is_not():
    longest = wire.FRAME_LEN_MAX.to_bytes(4, "little") + bytes(wire.FRAME_LEN_MAX)
    frames = wire.Frames()
    assert [len(p) for p in frames.feed(longest)] == [wire.FRAME_LEN_MAX]
    with pytest.raises(wire.WireError):
        frames.feed((wire.FRAME_LEN_MAX + 1).to_bytes(4, "little"))
    with pytest.raises(wire.WireError):
        wire.encode(wire.Watch(1, "x" * wire.FRAME_LEN_MAX))


def test_frames_are_cut_out_of_any_stream_byte_by_byte():
    messages = [wire.Released(1), wire.KeptAlive(2), wire.Grant(3, 4, 5)]
    stream = b"".join(map(wire.encode, messages))
    frames, read = wire.Frames(), []
    for byte in stream:
        read += [wire.decode_server(p) for p in frames.feed(bytes([byte]))]
    assert read == messages and not frames.is_cut


def test_messages_of_other_kinds_are_never_equal():
    assert wire.Exclusive() != wire.Shared()
    assert wire.Claim("a", wire.Exclusive()) != wire.Claim("a", wire.Shared())
    assert wire.Cancel(1) != wire.Released(1) and wire.Cancel(1) == wire.Cancel(1)


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(wire.WireError):
        wire.encode(wire.KeepAlive(2**64))
    with pytest.raises(wire.WireError):
        wire.encode(wire.Grant(1, 1, 2**128))


@pytest.mark.parametrize(
    "heading, codes",
    [
        ("### Rejection codes", wire.REJECTIONS),
        ("### Lost reasons", wire.LOST_REASONS),
        ("### Goodbye codes", wire.GOODBYES),
    ],
)
def test_codes_are_those_of_the_document(heading, codes):
    section = PROTOCOL.read_text().split(heading + "\n", 1)[1].split("\n#", 1)[0]
    rows = re.findall(r"^\| (\d+) \| (\w+) \|", section, re.MULTILINE)
    assert {int(number): name for number, name in rows} == codes
