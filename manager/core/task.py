"""The states of a task and of its attempts, and the table of moves.

A task is stored as one byte. While attempts of it exist its state is not decided but read off
them: the attempt that has come furthest speaks for the task. Several may exist at once, because a
worker that was given up may come back. What an attempt may do next is in `MOVES`; a pair that is
not there is a bug of ours and raises, since everything a peer may send wrongly is sorted out
before a move is made.
"""

from enum import Enum, IntEnum, auto
from typing import TYPE_CHECKING

from wqueue.protocol.messages import AttemptResult

if TYPE_CHECKING:
    from wqueue.manager.core.job import Job
    from wqueue.manager.core.worker import Worker


class TaskState(IntEnum):
    """Where a task is; DONE and FAILED are both shown as done."""

    BLOCKED = 0
    HELD = 1
    READY = 2
    UNKNOWN = 3
    ASSIGNED = 4
    RUNNING = 5
    RETRIEVING = 6
    DONE = 7
    FAILED = 8
    CANCELED = 9


class Phase(IntEnum):
    """How far an attempt has come, least first."""

    AWAY = 0
    ASSIGNED = 1
    RUNNING = 2
    FINISHED = 3
    RETRIEVING = 4
    PUBLISHING = 5


class Cause(Enum):
    """What moves an attempt on."""

    LINK_LOST = auto()
    SEEN_QUEUED = auto()
    SEEN_RUNNING = auto()
    RESULT_CAME = auto()
    STAGING_BEGAN = auto()
    STAGING_FAILED = auto()
    STAGED = auto()


MOVES: dict[tuple[Phase, Cause], Phase] = {
    (Phase.AWAY, Cause.LINK_LOST): Phase.AWAY,
    (Phase.AWAY, Cause.SEEN_QUEUED): Phase.ASSIGNED,
    (Phase.AWAY, Cause.SEEN_RUNNING): Phase.RUNNING,
    (Phase.AWAY, Cause.RESULT_CAME): Phase.FINISHED,
    (Phase.ASSIGNED, Cause.LINK_LOST): Phase.AWAY,
    (Phase.ASSIGNED, Cause.SEEN_QUEUED): Phase.ASSIGNED,
    (Phase.ASSIGNED, Cause.SEEN_RUNNING): Phase.RUNNING,
    (Phase.ASSIGNED, Cause.RESULT_CAME): Phase.FINISHED,
    (Phase.RUNNING, Cause.LINK_LOST): Phase.AWAY,
    (Phase.RUNNING, Cause.SEEN_QUEUED): Phase.RUNNING,
    (Phase.RUNNING, Cause.SEEN_RUNNING): Phase.RUNNING,
    (Phase.RUNNING, Cause.RESULT_CAME): Phase.FINISHED,
    (Phase.FINISHED, Cause.LINK_LOST): Phase.FINISHED,
    (Phase.FINISHED, Cause.SEEN_QUEUED): Phase.FINISHED,
    (Phase.FINISHED, Cause.SEEN_RUNNING): Phase.FINISHED,
    (Phase.FINISHED, Cause.RESULT_CAME): Phase.FINISHED,
    (Phase.FINISHED, Cause.STAGING_BEGAN): Phase.RETRIEVING,
    (Phase.RETRIEVING, Cause.LINK_LOST): Phase.RETRIEVING,
    (Phase.RETRIEVING, Cause.SEEN_QUEUED): Phase.RETRIEVING,
    (Phase.RETRIEVING, Cause.SEEN_RUNNING): Phase.RETRIEVING,
    (Phase.RETRIEVING, Cause.RESULT_CAME): Phase.RETRIEVING,
    (Phase.RETRIEVING, Cause.STAGING_FAILED): Phase.FINISHED,
    (Phase.RETRIEVING, Cause.STAGED): Phase.PUBLISHING,
    (Phase.PUBLISHING, Cause.LINK_LOST): Phase.PUBLISHING,
    (Phase.PUBLISHING, Cause.SEEN_QUEUED): Phase.PUBLISHING,
    (Phase.PUBLISHING, Cause.SEEN_RUNNING): Phase.PUBLISHING,
    (Phase.PUBLISHING, Cause.RESULT_CAME): Phase.PUBLISHING,
}
"""Every move an attempt may make. Its end (won, superseded, returned, canceled, worker gone) is
its removal and possible from everywhere but PUBLISHING, where it has already won."""

_SHOWN = {
    Phase.AWAY: TaskState.UNKNOWN,
    Phase.ASSIGNED: TaskState.ASSIGNED,
    Phase.RUNNING: TaskState.RUNNING,
    Phase.FINISHED: TaskState.RETRIEVING,
    Phase.RETRIEVING: TaskState.RETRIEVING,
    Phase.PUBLISHING: TaskState.RETRIEVING,
}

FINAL_STATES = (TaskState.DONE, TaskState.FAILED, TaskState.CANCELED)


class Attempt:
    """One try of a task on one worker.

    `worker` is None when the worker is not known (it was forgotten, or the manager was started
    anew and it has not come back). `is_allocated` says that its resources are taken out of the
    worker's room; a prefetched attempt waits without.
    """

    __slots__ = (
        "index",
        "is_allocated",
        "is_result_repeated",
        "is_taken_back",
        "job",
        "key",
        "phase",
        "result",
        "retry_at_s",
        "since_s",
        "worker",
    )

    def __init__(self, key: bytes, job: "Job", index: int, worker: "Worker | None", now_s: float):
        self.key = key
        self.job = job
        self.index = index
        self.worker = worker
        self.phase = Phase.ASSIGNED
        self.is_allocated = False
        self.is_taken_back = False
        self.is_result_repeated = False
        self.retry_at_s = 0.0
        self.result: AttemptResult | None = None
        self.since_s = now_s

    def move(self, cause: Cause) -> None:
        """Make the move that the table holds for `cause`."""
        self.phase = MOVES[self.phase, cause]


def shown_state(attempts: list[Attempt]) -> TaskState:
    """Read a task's state off its attempts; there must be one."""
    if len(attempts) == 1:
        return _SHOWN[attempts[0].phase]
    return _SHOWN[max(attempt.phase for attempt in attempts)]
