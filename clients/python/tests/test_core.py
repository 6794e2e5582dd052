"""The core says what the Rust core says, in every life of the corpus."""

import subprocess
import sys
from pathlib import Path

import pytest
import replay

from coordinator_client import _core, _wire as wire


def test_the_corpus_of_traces_is_replayed_without_a_difference():
    lives = replay.lives()
    assert len(lives) > 300
    for life in lives:
        assert replay.difference(life) is None


@pytest.mark.parametrize("length, left", [(10_000, 9_750), (2_000, 1_910), (51, 0), (0, 0)])
def test_belief_ends_two_percent_and_50_ms_before_the_ttl(length, left):
    assert _core.sure(length * _core.MILLISECOND) == left * _core.MILLISECOND


@pytest.mark.parametrize(
    "bug",
    [
        "belief_is_one_percent_longer",
        "a_restart_raises_no_doubt",
        "a_late_grant_is_believed",
        "what_is_lost_is_reclaimed",
        "a_conversion_leaves_what_it_converts",
    ],
)
def test_bugs_that_are_planted_are_found_by_the_corpus(bug):
    # All of them: planted.py
    command = [sys.executable, Path(__file__).parent / "planted.py", bug]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "1 bugs planted, 1 found" in done.stdout, done.stdout + done.stderr


def test_moments_have_an_end():
    assert _core.after(2**64 - 3, 10 * _core.SECOND) == 2**64 - 2
    assert _core.since(1, 2) == 0


def test_a_long_account_is_given_in_parts_that_follow_each_other():
    core = _core.Core(_core.Introduction(), _core.Reconnect(_core.SECOND, 1), 0)
    core.receive(wire.Welcome(1, "", 1, 7, 8, 1, 10_000, wire.Opened()), 0)
    for _ in range(_core.ACCOUNT_IDS_MAX + 1):
        core.request(_core.Ask([wire.Claim("a", wire.Exclusive())]), 0)
    core.connection_lost(1)
    core.connected(2)
    core.drain_messages()
    core.receive(wire.Welcome(1, "", 1, 7, 8, 2, 10_000, wire.Resumed()), 3)
    accounts = [m for m in core.drain_messages() if isinstance(m, wire.Account)]
    assert [(a.from_, a.to, len(a.waiting)) for a in accounts] == [(1, 2000, 2000), (2001, 2001, 1)]
