"""The journal in memory: what is committed survives a crash of the manager, what waits does not."""

from collections.abc import Callable

from simulation.faults import Faults
from simulation.schedule import Schedule
from wqueue.manager.core.events import (
    AttemptFailed,
    AttemptStarted,
    JobAdded,
    JobEnded,
    Record,
    Restored,
    StoredJob,
    TaskEnded,
    TaskPublishing,
    WorkerAdmitted,
    WorkerLeft,
)
from wqueue.protocol import outcomes
from wqueue.protocol.messages import TaskRecord


class Tables:
    """What is on disk."""

    def __init__(self) -> None:
        self.epoch = 0
        self.next_worker = 1
        self.jobs: dict[int, JobAdded] = {}
        self.job_ends: dict[int, JobEnded] = {}
        self.ended: dict[int, dict[int, TaskRecord]] = {}
        self.attempts: dict[bytes, AttemptStarted] = {}
        self.failed: list[AttemptFailed] = []
        self.publishing: dict[bytes, TaskPublishing] = {}
        self.workers: dict[bytes, WorkerAdmitted] = {}

    def apply(self, record: Record) -> None:
        """Take one record in."""
        match record:
            case JobAdded():
                self.jobs[record.job] = record
                self.ended[record.job] = {}
            case JobEnded():
                self.job_ends.setdefault(record.job, record)
            case WorkerAdmitted():
                self.workers[record.worker_id] = record
                self.next_worker = record.number + 1
            case WorkerLeft():
                self.workers.pop(record.worker_id, None)
            case AttemptStarted():
                self.attempts[record.attempt] = record
            case AttemptFailed():
                self.attempts.pop(record.attempt, None)
                self.failed.append(record)
            case TaskPublishing():
                self.publishing[record.attempt] = record
            case TaskEnded():
                self._end_task(record)

    def _end_task(self, record: TaskEnded) -> None:
        rows = self.ended[record.job]
        assert record.index not in rows, f"task {record.job}.{record.index} has ended twice"
        rows[record.index] = record.task
        self.publishing.pop(record.attempt, None)
        gone = [
            key
            for key, row in self.attempts.items()
            if row.job == record.job and row.index == record.index
        ]
        for key in gone:
            del self.attempts[key]

    def restored(self) -> Restored:
        """Read everything back for a new manager process, under a raised epoch."""
        self.epoch += 1
        return Restored(
            epoch=self.epoch,
            next_job=max(self.jobs, default=0) + 1,
            next_worker=self.next_worker,
            jobs=[self._stored(job) for job in self.jobs.values()],
            attempts=list(self.attempts.values()),
            publishing=list(self.publishing.values()),
            workers=list(self.workers.values()),
        )

    def _stored(self, added: JobAdded) -> StoredJob:
        rows = sorted(self.ended[added.job].values(), key=lambda row: row.event)
        end = self.job_ends.get(added.job)
        counts: dict[str, dict[int, int]] = {"lost": {}, "failure": {}, "": {}}
        for failed in self.failed:
            if failed.job == added.job and failed.index not in self.ended[added.job]:
                per_index = counts[failed.counts_as]
                per_index[failed.index] = per_index.get(failed.index, 0) + 1
        good = (outcomes.SUCCEEDED, outcomes.CANCELED)
        failed_indexes = [row.index for row in rows if row.outcome not in good]
        return StoredJob(
            added=added,
            ended=[row.index for row in rows],
            failed=len(failed_indexes),
            canceled=[row.index for row in rows if row.outcome == outcomes.CANCELED],
            is_canceled=end is not None and end.is_canceled,
            ended_wall_s=end.wall_s if end is not None else 0.0,
            lost=counts["lost"],
            failures=counts["failure"],
            failed_indexes=failed_indexes,
            last_event=rows[-1].event if rows else 0,
        )


class ModelStore:
    """The writer of one manager process over the tables that outlive it."""

    def __init__(
        self,
        tables: Tables,
        schedule: Schedule,
        faults: Faults,
        on_commit: Callable[[], None],
        on_blocked: Callable[[bool], None],
    ) -> None:
        self._tables = tables
        self._schedule = schedule
        self._faults = faults
        self._on_commit = on_commit
        self._on_blocked = on_blocked
        self._waiting: list[Record] = []
        self._is_busy = False
        self._is_blocked = False
        self.is_dead = False
        self.committed = 0

    def write(self, record: Record) -> None:
        """Queue a record; it is committed together with what gathers meanwhile."""
        self._waiting.append(record)
        if not self._is_busy:
            self._begin()

    def _begin(self) -> None:
        self._is_busy = True
        self._schedule.soon(self._commit, 0.003)

    def _commit(self) -> None:
        if self.is_dead:
            return
        if self._faults.strikes("failed_commit"):
            self._block(True)
            self._schedule.soon(self._commit, 2.0)
            return
        self._block(False)
        group, self._waiting = self._waiting, []
        for record in group:
            self._tables.apply(record)
        self.committed = group[-1].record
        self._is_busy = False
        if self._waiting:
            self._begin()
        self._on_commit()

    def _block(self, is_blocked: bool) -> None:
        if is_blocked != self._is_blocked:
            self._is_blocked = is_blocked
            self._on_blocked(is_blocked)
