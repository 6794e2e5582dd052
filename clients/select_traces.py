#!/usr/bin/env python3
"""Makes a corpus of recorded lives: as few as show everything that the recordings show.

Usage: select_traces.py DIRECTORY CORPUS.xz

What a life shows is which inputs follow each other and what is said to them: triples of neighbours,
without the numbers in them. Of the simulations, whose lives are long and many, those are taken that
show what few others do. The stories of the core's own tests are taken whole.
"""

import collections
import lzma
import sys
from pathlib import Path

BYTES_MAX = 10_000_000
PACKED_BYTES_MAX = 1_000_000
LIFE_BYTES_MAX = 40_000
# Each triple is shown by so many lives, if there are so many.
SHOWN_BY = 3
# Lives of these tests are many and alike.
ALIKE = ("testing.simulation.", "client.core.simulation.", "client.core.forgotten.")


def signature(line):
    """A line without its numbers: of messages their kind, of effects what they say."""
    word, *rest = line.split(" ")
    if word in ("receive", "second_receive", "request"):
        message = rest[-1]
        kind = message[:8]
        # A Rejected, Lost, Goodbye or Welcome by its code, or by what it says of the session.
        if word != "request":
            kind += {"06000000": message[24:28], "05000000": message[40:44]}.get(kind, "")
            kind += {"08000000": message[8:16], "00000000": message[-24:-16]}.get(message[:8], "")
        return f"{word} {kind}"
    if word in ("sent", "said"):
        return " ".join([word, *sorted({message[:8] for message in rest})])
    if word == "told":
        told = [effect.split(":") for effect in rest]
        said = {f[0] + (f[-1] if f[0] in ("refused", "released", "lost") else "") for f in told}
        return " ".join([word, *sorted(said)])
    if word == "state":
        deadline, connection, second, is_open, believed, _, trouble, hint = rest
        is_there = f"{second != '-'} {is_open} {believed != '-'} {hint != '-'}"
        return f"state {is_there} {trouble.split('/')[0]}"
    return word


def shows(life):
    signatures = [signature(line) for line in life.splitlines()[1:]]
    return set(zip(signatures, signatures[1:], signatures[2:]))


def main():
    directory, corpus = map(Path, sys.argv[1:])
    stories, crowd = set(), set()
    for path in sorted(directory.glob("*.trace")):
        life = path.read_text()
        if path.name.startswith(ALIKE) and len(life) > LIFE_BYTES_MAX:
            # The beginning of a life is one too.
            life = life[: life.rindex("\n", 0, LIFE_BYTES_MAX) + 1]
        # Looks are no part of what a core in another language has to do.
        if life.count("\n") > 1 and "\nlook " not in life:
            (crowd if path.name.startswith(ALIKE) else stories).add(life)
    shown = collections.Counter()
    chosen = sorted(stories)
    for life in chosen:
        shown.update(shows(life))
    crowd = [(life, shows(life)) for life in sorted(crowd)]
    commonness = collections.Counter(triple for _, triples in crowd for triple in triples)
    # Those first that show what is rare.
    crowd.sort(key=lambda pair: -sum(1 / commonness[t] for t in pair[1]) / len(pair[0]))
    for shown_by in range(1, SHOWN_BY + 1):
        for life, triples in crowd:
            is_new = any(shown[triple] < shown_by for triple in triples)
            if is_new and life not in chosen and sum(map(len, chosen)) + len(life) < BYTES_MAX:
                chosen.append(life)
                shown.update(triples)
    text = "".join(life if life.endswith("\n") else life + "\n" for life in chosen)
    packed = lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME)
    left_out = sum(shown[triple] == 0 for triple in commonness)
    print(
        f"{len(chosen)} lives of {len(stories) + len(crowd)}, {text.count(chr(10))} lines, "
        f"{len(text)} bytes, {len(packed)} packed; {len(shown)} triples shown, {left_out} left out"
    )
    if len(packed) > PACKED_BYTES_MAX:
        sys.exit(f"{corpus} would have more than {PACKED_BYTES_MAX} bytes")
    corpus.parent.mkdir(parents=True, exist_ok=True)
    corpus.write_bytes(packed)


main()
