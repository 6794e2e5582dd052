"""Lives through traces of the Rust core again; docs/protocol.md says what the lines mean."""

import lzma
from pathlib import Path

from coordinator_client import _core, _wire as wire

CORPUS = Path(__file__).resolve().parents[3] / "docs/traces/core-1.xz"


def lives(path=CORPUS):
    """The lines of each life."""
    text = lzma.open(path, "rt", encoding="utf-8").read()
    return [("new " + life).splitlines() for life in text.split("new ")[1:]]


def number(word):
    return None if word == "-" else int(word)


def begin(line):
    _, now, *fields = line.split(" ")
    values = dict(field.split("=", 1) for field in fields)
    introduction = _core.Introduction(
        int(values["ttl"]), number(values["linger"]), values["identity"].replace("%20", " ")
    )
    attempt = number(values["attempt"])
    reconnect = None
    if attempt is not None:
        servers = int(values["servers"])
        seed = int(values["seed"])
        reconnect = _core.Reconnect(attempt * _core.MICROSECOND, seed, servers)
    return _core.Core(introduction, reconnect, int(now))


def ask(payload):
    request = wire.decode_client(payload)
    at_least, supersedes = 0, False
    if isinstance(request, wire.RequestWith):
        request, extras = request
        for extra in extras:
            supersedes |= isinstance(extra, wire.Supersede)
            at_least = extra.ms if isinstance(extra, wire.AtLeast) else at_least
    return _core.Ask(
        request.claims, request.wait, request.owner, request.converts, request.progress,
        request.lock_delay_ms, at_least, supersedes, request.note,
    )  # fmt: skip


def told(effect):
    if isinstance(effect, _core.Welcomed):
        session, secret, *rest = effect
        return ":".join(["welcomed", f"{session:032x}", f"{secret:032x}", *map(str, rest)])
    name = {
        _core.Granted: "granted",
        _core.Replaced: "replaced",
        _core.Moved: "queued",
        _core.Refused: "refused",
        _core.ReleaseAnswered: "released",
        _core.Doubted: "doubted",
        _core.Confirmed: "confirmed",
        _core.LostHold: "lost",
    }[type(effect)]
    return ":".join([name, *("ok" if field is None else str(field) for field in effect)])


def state(core):
    lease = core.lease
    words = [
        core.next_deadline(),
        core.connection,
        core.second_connection,
        "open" if core.is_open else "away",
        None if lease is None else lease.believed_until(),
        None if lease is None else lease.doubtful_from(),
        core.trouble,
        core.hint(core.connection) or core.hint(core.second_connection),
    ]
    return "state " + " ".join("-" if word is None else str(word) for word in words)


def payload(message):
    return wire.encode(message)[4:].hex()


def replay(life):
    """Yields what the port says for each line of a life that is an output, beside the line."""
    core = begin(life[0])
    seen, said = "", None
    # After an input comes the state if it changed, and it is compared if it did not.
    fresh = True
    for line in life[1:]:
        word, *rest = line.split(" ")
        if word == "state":
            seen, fresh = line, False
            yield state(core), line
            continue
        if word == "said":
            yield (f"said {payload(said)}" if said else "nothing"), line
            said = None
            continue
        if fresh:
            yield state(core), seen
        fresh = False
        if word == "sent":
            yield " ".join(["sent", *map(payload, core.drain_messages())]), line
            continue
        if word == "told":
            yield " ".join(["told", *map(told, core.take_effects())]), line
            continue
        fresh = True
        assert said is None, f"says {said}, and should not"
        if word == "tick":
            core.tick(int(rest[0]))
        elif word == "receive":
            core.receive(wire.decode_server(bytes.fromhex(rest[1])), int(rest[0]))
        elif word == "second_receive":
            core.receive_second(wire.decode_server(bytes.fromhex(rest[1])), int(rest[0]))
        elif word == "connected":
            core.connected(int(rest[0]))
        elif word == "lost":
            core.connection_lost(int(rest[0]))
        elif word == "second":
            said = core.second_connected(int(rest[0]))
        elif word == "second_lost":
            core.second_lost(int(rest[0]))
        elif word == "request":
            request = core.request(ask(bytes.fromhex(rest[2])), int(rest[1]))
            yield str(request), rest[0]
        elif word == "release":
            core.release(int(rest[0]), int(rest[1]))
        elif word == "cancel":
            core.cancel(int(rest[0]))
        elif word == "goodbye":
            core.goodbye()
        elif word == "broken":
            core.protocol_broken("")
        else:
            raise AssertionError(line)


def difference(life):
    """Where the port first says something else, if it does."""
    for count, (one, other) in enumerate(replay(life)):
        if one != other:
            return f"output {count} is\n  {one}\nand was\n  {other}\nin the life {life[0]}"
    return None
