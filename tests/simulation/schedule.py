"""Virtual time: what happens next, and who is still there to see it happen."""

import heapq
from collections.abc import Callable
from random import Random


class Schedule:
    """A heap of calls by virtual time; equal times in the order in which they were planned."""

    def __init__(self, dice: Random) -> None:
        self.dice = dice
        self.now_s = 1000.0
        self.events = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._planned = 0

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        """Plan `call` for `delay_s` from now."""
        self._planned += 1
        heapq.heappush(self._heap, (self.now_s + delay_s, self._planned, call))

    def soon(self, call: Callable[[], None], longest_s: float = 0.005) -> None:
        """Plan `call` for some moment within `longest_s`."""
        self.after(self.dice.random() * longest_s, call)

    def run_until(self, is_over: Callable[[], bool], limit_s: float) -> bool:
        """Let time pass until `is_over()`; False when `limit_s` came first or nothing was left."""
        while not is_over():
            if not self._heap or self._heap[0][0] > limit_s:
                return False
            self.now_s, _, call = heapq.heappop(self._heap)
            self.events += 1
            call()
        return True


class Ticker:
    """Ticks for one process: a call at the earliest deadline its core has told."""

    def __init__(self, schedule: Schedule, tick: Callable[[], None]) -> None:
        self._schedule = schedule
        self._tick = tick
        self._planned_s = float("inf")

    def plan(self, at_s: float | None) -> None:
        """Plan a tick for `at_s`, unless an earlier one is planned already."""
        if at_s is None or at_s >= self._planned_s:
            return
        self._planned_s = at_s
        self._schedule.after(max(0.0, at_s - self._schedule.now_s), self._come)

    def _come(self) -> None:
        self._planned_s = float("inf")
        self._tick()
