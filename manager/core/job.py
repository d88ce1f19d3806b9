"""A job and its attempts: one description, a byte per task, and objects only for what deviates.

A million tasks that have not begun cost a million bytes and nothing else: the ready ones are a
cursor over those never touched and a heap of those that came back.
"""

import heapq
from collections.abc import Sequence

from wqueue.manager.core.task import FINAL_STATES, MOVES, SHOWN, Cause, Phase, TaskState
from wqueue.protocol.messages import AttemptResult, Counts, Describe, FileRef, JobSpec
from wqueue.protocol.template import expand

_READY_BYTE = bytes([TaskState.READY])


class Attempt:
    """One try of a task on one worker.

    `worker_id` is empty when no worker is known to have it. `is_allocated` says that its resources
    are taken out of the worker's room; a prefetched attempt waits without.
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
        "worker_id",
    )

    def __init__(self, key: bytes, job: "Job", index: int, worker_id: bytes, now_s: float):
        self.key = key
        self.job = job
        self.index = index
        self.worker_id = worker_id
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
        return SHOWN[attempts[0].phase]
    return SHOWN[max(attempt.phase for attempt in attempts)]


class Job:
    """One accepted submission and the state of its tasks."""

    __slots__ = (
        "_back",
        "_cursor",
        "_state",
        "_totals",
        "active",
        "counts",
        "ended_wall_s",
        "events",
        "failures",
        "is_canceled",
        "is_restored",
        "lost",
        "may_write",
        "number",
        "record",
        "shape",
        "spec",
        "submitted_wall_s",
        "tries",
        "uid",
        "watchers",
    )

    def __init__(
        self,
        number: int,
        uid: bytes,
        spec: JobSpec,
        totals: list[int],
        *,
        record: int,
        wall_s: float,
        may_write: bool,
    ) -> None:
        """`totals` are the numbers of tasks by TaskState over all jobs, kept right from here."""
        self.number = number
        self.uid = uid
        self.spec = spec
        self.record = record
        self.submitted_wall_s = wall_s
        self.ended_wall_s = 0.0
        self.may_write = may_write
        self.is_canceled = False
        self.is_restored = False
        self.events = 0
        self.counts = [0] * len(TaskState)
        self.counts[TaskState.READY] = spec.count
        self._totals = totals
        totals[TaskState.READY] += spec.count
        self.active: dict[int, list[Attempt]] = {}
        self.lost: dict[int, int] = {}
        self.failures: dict[int, int] = {}
        self.tries: dict[int, int] = {}
        self.watchers: dict[int, None] = {}
        self.shape: object = None
        self._state = bytearray(_READY_BYTE) * spec.count
        self._cursor = 0
        self._back: list[int] = []

    # --- states -----------------------------------------------------------------------------

    def state(self, index: int) -> TaskState:
        """Give the state of one task."""
        return TaskState(self._state[index])

    def set_state(self, index: int, state: TaskState) -> None:
        """Move one task to `state` and keep the counts right."""
        old = self._state[index]
        if old == state:
            return
        self._state[index] = state
        self.counts[old] -= 1
        self.counts[state] += 1
        self._totals[old] -= 1
        self._totals[state] += 1
        if state == TaskState.READY:
            heapq.heappush(self._back, index)

    def is_task_ended(self, index: int) -> bool:
        """Tell whether a task is done, failed or canceled."""
        return self._state[index] >= TaskState.DONE

    def restore_ended(
        self, ended: Sequence[int], failed: Sequence[int], canceled: Sequence[int]
    ) -> None:
        """Put back what the store says has ended; `failed` and `canceled` are parts of `ended`."""
        states = self._state
        for index in ended:
            states[index] = TaskState.DONE
        for index in failed:
            states[index] = TaskState.FAILED
        for index in canceled:
            states[index] = TaskState.CANCELED
        self._count_again()

    def _count_again(self) -> None:
        for state in TaskState:
            count = self._state.count(state)
            self._totals[state] += count - self.counts[state]
            self.counts[state] = count

    def end_all_waiting(self) -> list[int]:
        """Cancel all tasks that have no attempt; give the indexes of those that have one."""
        kept = list(self.active)
        untouched = {index: self._state[index] for index in kept}
        ended = (TaskState.DONE, TaskState.FAILED, TaskState.CANCELED)
        table = bytes(b if b in ended else TaskState.CANCELED for b in range(256))
        self._state = self._state.translate(table)
        for index, state in untouched.items():
            self._state[index] = state
        self._count_again()
        return kept

    @property
    def is_ended(self) -> bool:
        """Tell whether no task is left to do."""
        counts = self.counts
        ended = counts[TaskState.DONE] + counts[TaskState.FAILED] + counts[TaskState.CANCELED]
        return ended == self.spec.count

    @property
    def ready_count(self) -> int:
        """The number of tasks that could be dispatched."""
        return self.counts[TaskState.READY]

    def take_ready(self) -> int | None:
        """Give the index of the next ready task, those that came back first; None if none is.

        The task is still ready afterwards; the caller adds an attempt to it.
        """
        state = self._state
        back = self._back
        while back:
            index = heapq.heappop(back)
            if state[index] == TaskState.READY:
                return index
        if not self.counts[TaskState.READY]:
            return None
        index = state.find(_READY_BYTE, self._cursor)
        assert index >= 0, f"job {self.number} counts a ready task that is not there"
        self._cursor = index + 1
        return index

    # --- attempts -----------------------------------------------------------------------------

    def add_attempt(self, attempt: Attempt) -> None:
        """Note a new attempt of one of this job's tasks."""
        self.active.setdefault(attempt.index, []).append(attempt)
        self.refresh(attempt.index)

    def remove_attempt(self, attempt: Attempt) -> None:
        """Forget an attempt; the task is ready again when it was the last and nothing ended it."""
        attempts = self.active[attempt.index]
        attempts.remove(attempt)
        if not attempts:
            del self.active[attempt.index]
        self.refresh(attempt.index)

    def refresh(self, index: int) -> None:
        """Read the task's state off its attempts again."""
        if self.is_task_ended(index):
            return
        attempts = self.active.get(index)
        self.set_state(index, shown_state(attempts) if attempts else TaskState.READY)

    def find_attempt(self, index: int, key: bytes) -> Attempt | None:
        """Give the attempt with this id, or None."""
        for attempt in self.active.get(index, ()):
            if attempt.key == key:
                return attempt
        return None

    # --- what a task is ---------------------------------------------------------------------------

    def value(self, index: int) -> bytes:
        """Give the value of a task: what {} stands for."""
        spec = self.spec
        if not spec.template.is_array:
            return b""
        if spec.items:
            return spec.items[index]
        return str(spec.start + index * spec.step).encode()

    def column_files(self, index: int) -> list[FileRef]:
        """Give the files that belong to this task alone, as a worker sees them."""
        files = self.spec.files
        return [content_of(files[column[index]]) for column in self.spec.columns]

    def describe(self) -> Describe:
        """Give the description of the job that a worker needs."""
        return describe(self.spec, self.uid, self.number)

    def filled(self, template: bytes, index: int) -> bytes:
        """Fill the placeholders of a name for a task."""
        if not self.spec.template.is_array:
            return template
        return expand(template, self.value(index), index)

    def shown_counts(self) -> Counts:
        """Give the counts as they are shown."""
        return counts_of(self.counts)

    def check(self) -> None:
        """Assert that counts, states and attempts agree."""
        for state in TaskState:
            there = self._state.count(state)
            assert there == self.counts[state], f"job {self.number}: {state.name} {there}"
        for index, attempts in self.active.items():
            assert attempts, f"job {self.number}: no attempts of {index}"
            state = self.state(index)
            assert state not in FINAL_STATES, f"{self.number}.{index} ended with attempts left"
            assert state == shown_state(attempts), f"{self.number}.{index} is {state.name}"


def counts_of(c: Sequence[int]) -> Counts:
    """Turn numbers of tasks by TaskState into what is shown: failed is a part of done."""
    return Counts(
        blocked=c[TaskState.BLOCKED],
        held=c[TaskState.HELD],
        ready=c[TaskState.READY],
        assigned=c[TaskState.ASSIGNED],
        running=c[TaskState.RUNNING],
        retrieving=c[TaskState.RETRIEVING],
        unknown=c[TaskState.UNKNOWN],
        done=c[TaskState.DONE] + c[TaskState.FAILED],
        failed=c[TaskState.FAILED],
        canceled=c[TaskState.CANCELED],
    )


def describe(spec: JobSpec, uid: bytes, number: int) -> Describe:
    """Describe a job to a worker: its template, and the files that all tasks share."""
    shared = [entry.file for entry in spec.template.inputs if entry.file >= 0]
    files = [content_of(ref) for ref in spec.files[: max(shared, default=-1) + 1]]
    return Describe(uid, number, spec.template, files)


def content_of(ref: FileRef) -> FileRef:
    """Give what a worker needs of a file; where the manager reads it is not its business."""
    return ref if ref.in_place is None else FileRef(ref.digest, ref.size, ref.mode)
