"""How often it is worth getting up for news that keep coming.

Each round of waking, asking and answering costs more than what it brings when tasks end by the
thousand. The first rounds after a quiet time go at once, so that a single short task is not
delayed; in a stream the later ones wait a little and find more.
"""

BURST_ROUNDS = 8
"""Rounds that go at once after a quiet time: a task that starts and ends takes two or three."""


class Pace:
    """Says how long to rest before the next round. `interval_s` is the rest in a steady stream."""

    __slots__ = ("_full_at_s", "_interval_s")

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        # When all rounds of the burst are there again; every round moves it by one interval.
        self._full_at_s = 0.0

    def rest_s(self, now_s: float) -> float:
        """Count a round and give the time to wait before it."""
        self._full_at_s = max(self._full_at_s, now_s) + self._interval_s
        rounds_taken = (self._full_at_s - now_s) / self._interval_s
        # Half a round of tolerance, so that rounding never delays the last of a burst.
        if rounds_taken < BURST_ROUNDS + 0.5:
            return 0.0
        return (rounds_taken - BURST_ROUNDS) * self._interval_s
