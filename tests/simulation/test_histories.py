"""Two hundred histories, each from its seed; a failing one is replayed by `make sim SEED=…`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.faults import KINDS
from simulation.history import History

SEEDS = 200
GROUPS = 20


@pytest.mark.parametrize("group", range(GROUPS))
def test_nothing_accepted_is_lost_and_everything_ends(group: int) -> None:
    for seed in range(group, SEEDS, GROUPS):
        try:
            History(seed).run()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_every_kind_of_fault_strikes_in_the_histories_that_are_run() -> None:
    seen = dict.fromkeys(KINDS, 0)
    for seed in range(0, SEEDS, 8):
        for kind, count in History(seed).run().faults.items():
            seen[kind] += count
    assert all(seen.values()), seen


def test_one_seed_is_one_history_whatever_the_hash_seed() -> None:
    digests = [_digest_of(seed=11, hash_seed=hash_seed) for hash_seed in ("1", "2")]
    assert digests[0] == digests[1]


def _digest_of(seed: int, hash_seed: str) -> str:
    code = f"from simulation.history import History; print(History({seed}).run().trace_digest)"
    environment = dict(os.environ, PYTHONHASHSEED=hash_seed)
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
