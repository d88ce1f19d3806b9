"""A worker as the manager sees it: its room, its attempts, the last word heard of it."""

from enum import IntEnum

from wqueue.manager.core.job import Attempt, Job
from wqueue.manager.core.limits import KNOWN_JOBS_MAX, PREFETCH_MAX, PREFETCH_S
from wqueue.protocol.messages import Register
from wqueue.protocol.resources import Resources, Room

_DURATION_WEIGHT = 0.1
"""Share of the newest task in the running mean of durations: follows a change within ~20 tasks."""


class WorkerState(IntEnum):
    """live: linked. away: link lost, within its grace. gone: over, or said goodbye."""

    LIVE = 0
    AWAY = 1
    GONE = 2


class Worker:
    """One worker process, known by its id; its number is what people see."""

    __slots__ = (
        "address",
        "attempts",
        "away_until_s",
        "done",
        "duration_s",
        "failed",
        "heard_s",
        "host",
        "is_leaving",
        "known_jobs",
        "known_jobs_max",
        "number",
        "queued",
        "register",
        "room",
        "session",
        "state",
        "worker_id",
    )

    def __init__(self, worker_id: bytes, number: int, host: str) -> None:
        self.worker_id = worker_id
        self.number = number
        self.host = host
        self.state = WorkerState.AWAY
        self.session = 0
        self.address = ""
        self.register: Register | None = None
        self.room = Room(Resources(0))
        self.attempts: dict[bytes, Attempt] = {}
        self.queued: dict[bytes, Attempt] = {}
        self.known_jobs: dict[bytes, Job] = {}
        self.known_jobs_max = KNOWN_JOBS_MAX
        self.is_leaving = False
        self.heard_s = 0.0
        self.away_until_s = 0.0
        self.duration_s: float | None = None
        self.done = 0
        self.failed = 0

    def add(self, attempt: Attempt) -> None:
        """Note an attempt at this worker; it takes room if there is any, else it is queued."""
        self.attempts[attempt.key] = attempt
        wanted = attempt.job.spec.template.resources
        if self.room.fits(wanted):
            self.room.take(wanted)
            attempt.is_allocated = True
        else:
            self.queued[attempt.key] = attempt

    def release(self, attempt: Attempt) -> None:
        """Give back the room an attempt has taken; it is no longer computed here."""
        if attempt.is_allocated:
            attempt.is_allocated = False
            self.room.give_back(attempt.job.spec.template.resources)
            self._allocate_queued()
        else:
            self.queued.pop(attempt.key, None)

    def remove(self, attempt: Attempt) -> None:
        """Forget an attempt."""
        if self.attempts.pop(attempt.key, None) is not None:
            self.release(attempt)

    def allocate(self, attempt: Attempt) -> None:
        """Take room for a queued attempt that the worker says is running, as far as there is."""
        wanted = attempt.job.spec.template.resources
        if not attempt.is_allocated and self.room.fits(wanted):
            self.queued.pop(attempt.key, None)
            self.room.take(wanted)
            attempt.is_allocated = True

    def _allocate_queued(self) -> None:
        """Mirror what the worker does with freed room: the oldest queued attempts take it."""
        while self.queued:
            attempt = next(iter(self.queued.values()))
            if attempt.is_taken_back or not self.room.fits(attempt.job.spec.template.resources):
                return
            self.allocate(attempt)

    def note_duration(self, wall_s: float) -> None:
        """Learn from an ended attempt how long tasks take here."""
        mean = self.duration_s
        self.duration_s = wall_s if mean is None else mean + _DURATION_WEIGHT * (wall_s - mean)

    def prefetch_max(self) -> int:
        """How many attempts may wait here beyond what runs."""
        running = max(1, len(self.attempts) - len(self.queued))
        if self.duration_s is None:
            return running
        wanted = int(running * PREFETCH_S / max(self.duration_s, 1e-4))
        return min(PREFETCH_MAX, max(1, wanted))

    def queue_ends_in_s(self) -> float:
        """Guess how long the last queued attempt waits; without experience, for ever."""
        if self.duration_s is None:
            return float("inf")
        running = max(1, len(self.attempts) - len(self.queued))
        return self.duration_s * (len(self.queued) + 1) / running

    def committed(self) -> Resources:
        """Give what the attempts here have taken."""
        total, left = self.room.total, self.room.left()
        return Resources(
            total.cores_milli - left.cores_milli,
            total.memory_mb - left.memory_mb,
            total.disk_mb - left.disk_mb,
            total.gpus - left.gpus,
            {name: amount - left.named.get(name, 0) for name, amount in total.named.items()},
        )

    def check(self) -> None:
        """Assert that no more is taken than offered and that the lists agree."""
        taken = Room(self.room.total)
        for attempt in self.attempts.values():
            assert attempt.worker_id == self.worker_id, (
                f"attempt of another worker at {self.number}"
            )
            if attempt.is_allocated:
                taken.take(attempt.job.spec.template.resources)
            assert not (attempt.is_allocated and attempt.key in self.queued)
        assert taken.left() == self.room.left(), f"worker {self.number}: room is wrong"
        for key in self.queued:
            assert key in self.attempts, f"worker {self.number} queues a forgotten attempt"
