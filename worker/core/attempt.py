"""One attempt of a task at the worker: its states and the table of moves.

    queued      its inputs are on their way, or it waits for room; again so if it was not started,
                because an input was spoiled
    running     its process was started, or is about to be
    stopping    it is no longer wanted; its process is being killed and still holds its resources
    collecting  its process has ended; its larger outputs are being hashed

One that has finished is no attempt any more but Undelivered: a result in the outbox, until the
manager acknowledges it. Every change of state goes through `move`, and a pair that the table does
not hold is a bug.
"""

from msgspec import Struct

from wqueue.protocol.messages import AttemptResult
from wqueue.worker.core.events import Ended
from wqueue.worker.core.job import Filled, Job

QUEUED = "queued"
RUNNING = "running"
STOPPING = "stopping"
COLLECTING = "collecting"

MOVES = {
    (QUEUED, "start"): RUNNING,
    (RUNNING, "wait"): QUEUED,
    (RUNNING, "stop"): STOPPING,
    (RUNNING, "collect"): COLLECTING,
}
"""State and move -> next state. The rest is leaving: finishing from queued (an input cannot be
had), running and collecting; being canceled or given back from queued, collecting, stopping."""


class Attempt:
    """One attempt. Mutable, and only Holdings changes it."""

    __slots__ = (
        "ended",
        "filled",
        "gpu_ids",
        "id",
        "index",
        "job",
        "missing",
        "order",
        "pins",
        "queued_s",
        "ready_s",
        "return_as",
        "started_s",
        "state",
    )

    def __init__(
        self, attempt: bytes, job: Job, index: int, filled: Filled, order: int, now_s: float
    ) -> None:
        self.id = attempt
        self.job = job
        self.index = index
        self.filled = filled
        self.order = order
        self.state = QUEUED
        self.pins: dict[bytes, int] = {}
        """Files that the cache keeps for it, with their sizes."""
        self.missing = 0
        """Inputs that have not arrived yet."""
        self.queued_s = self.ready_s = now_s
        self.started_s = 0.0
        self.gpu_ids: tuple[str, ...] = ()
        self.ended: Ended | None = None
        self.return_as = ""
        """The reason with which it is given back when its process has ended; empty: canceled."""

    def move(self, name: str) -> None:
        """Make one move of the table."""
        self.state = MOVES[self.state, name]


class Undelivered:
    """A result that waits in the outbox: all that is left of an attempt that has finished."""

    __slots__ = ("ended_s", "is_quarantined", "result")

    def __init__(self, result: AttemptResult, ended_s: float) -> None:
        self.result = result
        self.ended_s = ended_s
        self.is_quarantined = False
        """The manager does not know it; it stays in the outbox and is not repeated."""


class AttemptStatistics(Struct, frozen=True):
    """How many attempts are in each state; `fetching` are those of the queued that lack inputs."""

    queued: int = 0
    fetching: int = 0
    running: int = 0
    stopping: int = 0
    collecting: int = 0
    finished: int = 0
    quarantined: int = 0
