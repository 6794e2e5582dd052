#!/usr/bin/env python3
"""Plants known bugs in the core, one after the other, and says how many the corpus finds.

Usage: planted.py [NAME...]

Each is a text in a file of the core that is replaced by another. A port is good enough if the
corpus finds 20 of 25.
"""

import importlib
import shutil
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src/coordinator_client"
FOUND_MIN = 20

BUGS = {
    "belief_is_one_percent_longer": ("_values", "length * 98 // 100", "length * 99 // 100"),
    "belief_has_no_margin": ("_values", "- 50 * MILLISECOND", "- 0 * MILLISECOND"),
    "belief_counts_from_the_answer": (
        "_core", "lease.confirm(sent)", "lease.confirm(now)",
    ),
    "a_keep_alive_every_third": ("_values", "KEEP_ALIVES_PER_TTL = 4", "KEEP_ALIVES_PER_TTL = 3"),
    "a_restart_raises_no_doubt": (
        "_connections", "if known not in (NOTHING, EVERYTHING):", "if False:",
    ),
    "a_ticket_outlives_its_session": (
        "_connections", "                known.ticket = None\n", "",
    ),
    "repetitions_are_not_known": (
        "_connections", "self._request_repeated = self._request_next", "pass",
    ),
    "tokens_seen_are_forgotten": (
        "_core", "self._token_seen = max(self._token_seen, token)", "pass",
    ),
    "epochs_seen_are_forgotten": (
        "_connections", "self._epoch_seen = max(self._epoch_seen, welcome.epoch)", "pass",
    ),
    "the_rest_of_a_timeout_is_cut": (
        "_records", "-(-since(self.deadline, now) // MILLISECOND)",
        "since(self.deadline, now) // MILLISECOND",
    ),
    "a_timeout_begins_anew": (
        "_records", "if self.deadline is not None:\n            left", "if 0:\n            left",
    ),
    "a_lapsed_hold_is_not_given_back": (
        "_holds", "            self._messages.append(wire.Release(number, known.token))\n"
        "        else:\n            # The account", "            pass\n"
        "        else:\n            # The account",
    ),
    "a_cancelled_grant_is_told": (
        "_core", "elif known.stage == CANCELLING:\n            pass",
        "elif known.stage == CANCELLING:\n"
        "            self._effects.append(Granted(number, token))",
    ),
    "a_late_grant_is_believed": (
        "_core", "self.lease is not None and now < self.lease.believed_until()",
        "self.lease is not None",
    ),
    "the_account_lists_what_is_released": (
        "_connections", "if known.stage in (WAITING, UNCONFIRMED, HELD)",
        "if known.stage in (WAITING, UNCONFIRMED, HELD, RELEASING)",
    ),
    "no_account_is_given": (
        "_connections", "            self._give_account()\n", "            pass\n",
    ),
    "the_new_seal_is_ignored": (
        "_core", "Grant(token, message.seal, known.grant.since)",
        "Grant(token, known.grant.seal, known.grant.since)",
    ),
    "the_secret_of_the_first_welcome_counts": (
        "_connections", "Session(welcome.session, welcome.secret, latest",
        "Session(welcome.session, getattr(self._session, 'secret', welcome.secret), latest",
    ),
    "a_generation_is_used_twice": ("_holds", "self._session.generation += 1", "pass"),
    "what_is_lost_is_reclaimed": (
        "_holds", "while self._doubts and self._doubts[0][0] <= now:", "while False:",
    ),
    "a_linger_cuts_nothing": (
        "_connections", "self.lease.cut_short(now, linger_ms * MILLISECOND)", "pass",
    ),
    "an_answer_is_overdue_after_an_eighth": (
        "_values", "ANSWERS_PER_TTL = 16", "ANSWERS_PER_TTL = 8",
    ),
    "slow_answers_are_forgotten_at_once": (
        "_connections", "max(took, self._slowest * 3 // 4)", "took",
    ),
    "a_second_is_given_up_with_its_first": (
        "_connections",
        "if second is not None and self._go_on_with(second, now):\n            return",
        "pass",
    ),
    "the_pause_does_not_grow": ("_values", "PAUSE_MIN << min(doublings, 16)", "PAUSE_MIN"),
    "a_conversion_leaves_what_it_converts": (
        "_core", "                self._replace_converted(known)\n", "",
    ),
    "a_loss_leaves_the_conversion": (
        "_holds", "        self._effects.append(LostHold(number, reason))\n"
        "        self._give_up_conversion(number, reason)",
        "        self._effects.append(LostHold(number, reason))",
    ),
    "silence_is_never_too_long": ("_values", "SILENCE_TTLS_MAX = 2", "SILENCE_TTLS_MAX = 200"),
    "a_try_waits_for_the_server": ("_connections", "            self._refuse_tries()\n", ""),
    "a_goodbye_of_draining_is_the_end": (
        "_records", "Code.DRAINING, Code.HANDSHAKE", "Code.HANDSHAKE",
    ),
    "a_stale_generation_is_said_again": (
        "_connections", "self._session.generation += GENERATION_LEAP", "pass",
    ),
    "a_supersede_is_not_said": (
        "_records", "        if ask.supersedes:\n", "        if False:\n",
    ),
    "a_minimum_hold_time_is_not_said": (
        "_records", "        if ask.at_least_ms:\n", "        if False:\n",
    ),
}  # fmt: skip


def finds(name, bug):
    """Whether the corpus finds it; None if it cannot be planted any more."""
    module, text, other = bug
    with tempfile.TemporaryDirectory() as directory:
        package = Path(directory) / "coordinator_client"
        shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("__pycache__"))
        path = package / f"{module}.py"
        source = path.read_text()
        if text not in source:
            return None
        path.write_text(source.replace(text, other))
        for loaded in [m for m in sys.modules if m.split(".")[0] == "coordinator_client"]:
            del sys.modules[loaded]
        sys.modules.pop("replay", None)
        sys.path.insert(0, directory)
        try:
            importlib.invalidate_caches()
            replay = importlib.import_module("replay")
            for life in LIVES or LIVES.extend(replay.lives()) or LIVES:
                try:
                    if replay.difference(life):
                        return True
                except Exception:
                    return True
            return False
        finally:
            sys.path.remove(directory)


LIVES = []


def main(names):
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(Path(__file__).parent))
    bugs = {name: BUGS[name] for name in names} if names else BUGS
    if finds("nothing", ("_core", "class Core", "class Core")):
        print("the corpus finds a bug where none was planted", file=sys.stderr)
        return 1
    outcomes = {name: finds(name, bug) for name, bug in bugs.items()}
    for name, found in outcomes.items():
        words = {True: "found", False: "NOT FOUND", None: "CANNOT BE PLANTED"}[found]
        print(f"{name:45} {words}")
    found = sum(outcome is True for outcome in outcomes.values())
    print(f"\n{len(outcomes)} bugs planted, {found} found")
    stale = [name for name, outcome in outcomes.items() if outcome is None]
    return int(bool(stale) or (not names and found < FOUND_MIN))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
