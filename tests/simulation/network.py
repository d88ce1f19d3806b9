"""The links between processes: FIFO per door and direction, whole links lost, frames by codec.

A link is a worker's or client's connection to one life of the manager. Messages of one door and
direction keep their order and may be late; doors know nothing of each other. When a link is lost
what was on its way is lost with it, and each side learns of it in its own time.
"""

from collections.abc import Callable

from simulation.faults import Faults
from simulation.schedule import Schedule

LOST_NOTICED_S = 0.5
"""Longest time until a side notices that its link is gone."""


class Link:
    """One connection; both ends hold it."""

    def __init__(self, schedule: Schedule, faults: Faults) -> None:
        self._schedule = schedule
        self._faults = faults
        self._free_at_s: dict[str, float] = {}
        self.is_open = True
        self._on_lost: list[Callable[[], None]] = []

    def when_lost(self, call: Callable[[], None]) -> None:
        """Have a side told when the link is lost."""
        self._on_lost.append(call)

    def carry(self, lane: str, deliver: Callable[[], None]) -> None:
        """Carry a message on a lane (door and direction); it may be late, doubled or the last."""
        if not self.is_open:
            return
        if self._faults.strikes("lost_link"):
            self.lose()
            return
        self._deliver(lane, deliver)
        if self._faults.strikes("repeated"):
            self._deliver(lane, deliver)

    def _deliver(self, lane: str, deliver: Callable[[], None]) -> None:
        now_s = self._schedule.now_s
        at_s = max(now_s + self._faults.delay_s(), self._free_at_s.get(lane, 0.0))
        self._free_at_s[lane] = at_s

        def arrive() -> None:
            if self.is_open:
                deliver()

        self._schedule.after(at_s - now_s, arrive)

    def lose(self) -> None:
        """Cut the link; both sides notice in their own time."""
        if not self.is_open:
            return
        self.is_open = False
        for call in self._on_lost:
            self._schedule.soon(call, LOST_NOTICED_S)
