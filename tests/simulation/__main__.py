"""Replay one history: python -m simulation SEED [--trace] [WORKERS TASKS]."""

import sys

from simulation.faults import big_options
from simulation.history import History


def main() -> None:
    """Run the seed that is given and print what came of it, or its trace and what broke."""
    words = [word for word in sys.argv[1:] if word != "--trace"]
    seed = int(words[0]) if words else 1
    options = big_options(int(words[1]), int(words[2])) if len(words) > 2 else None
    history = History(seed, options, trace="--trace" in sys.argv)
    try:
        print(history.run())  # noqa: T201
    finally:
        for line in history.lines or ():
            print(line)  # noqa: T201


main()
