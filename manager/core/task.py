"""The states of a task and of its attempts, and the table of moves.

A task is stored as one byte. While attempts of it exist its state is not decided but read off
them: the attempt that has come furthest speaks for the task. Several may exist at once, because a
worker that was given up may come back. What an attempt may do next is in `MOVES`; a pair that is
not there is a bug of ours and raises, since everything a peer may send wrongly is sorted out
before a move is made.
"""

from enum import Enum, IntEnum, auto


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

SHOWN = {
    Phase.AWAY: TaskState.UNKNOWN,
    Phase.ASSIGNED: TaskState.ASSIGNED,
    Phase.RUNNING: TaskState.RUNNING,
    Phase.FINISHED: TaskState.RETRIEVING,
    Phase.RETRIEVING: TaskState.RETRIEVING,
    Phase.PUBLISHING: TaskState.RETRIEVING,
}
"""What a task's state is while this is the phase of the attempt that has come furthest."""

FINAL_STATES = (TaskState.DONE, TaskState.FAILED, TaskState.CANCELED)
