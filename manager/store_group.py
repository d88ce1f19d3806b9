"""A group of records as one transaction: fold them in memory, then write what is left.

Folding saves most of the work: an attempt that starts and ends within one group costs no row.
Writing is repeatable: a commit that reported an error may have reached the disk all the same, and
its group is then carried out a second time.

Rows go in many per statement, because each call into SQLite gives the interpreter's lock away, and
a busy loop may take milliseconds to give it back (wire 7.1).
"""

import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, ClassVar

from msgspec import msgpack

from wqueue.manager.core.events import (
    AttemptFailed,
    AttemptStarted,
    JobAdded,
    JobEnded,
    Record,
    TaskEnded,
    TaskPublishing,
    WorkerAdmitted,
    WorkerLeft,
)
from wqueue.manager.store_schema import CANCELED_KIND, FAILED_KIND, SUCCEEDED_KIND
from wqueue.protocol.attempts import show_attempt, unpack_attempt
from wqueue.protocol.messages import TaskRecord
from wqueue.protocol.outcomes import CANCELED, SUCCEEDED

_log = logging.getLogger(__name__)
_encode = msgpack.Encoder().encode
_KINDS = {SUCCEEDED: SUCCEEDED_KIND, CANCELED: CANCELED_KIND}

TaskKey = tuple[int, int]
"""Job and index."""

Row = tuple[Any, ...]

_CHUNKS = (128, 16, 1)
"""Rows per statement: few sizes, so that the prepared statements stay in the connection's cache."""


class OpenRows:
    """Which tasks may have rows in attempt (open ones) and publishing: whose end must look there.

    Bounded by the attempts in flight. A key too many costs a needless delete, one too few a row
    that the next start ignores. `publishing` says which attempt is being published.
    """

    def __init__(self) -> None:
        self.attempts: set[TaskKey] = set()
        self.publishing: dict[TaskKey, bytes] = {}


class Group:
    """What a series of records comes to."""

    def __init__(self, records: Iterable[Record], rows: OpenRows) -> None:
        self.jobs: list[JobAdded] = []
        self.job_ends: list[JobEnded] = []
        self.workers: dict[bytes, WorkerAdmitted | None] = {}
        self.started: dict[TaskKey, list[AttemptStarted]] = {}
        self.failed: list[Row] = []
        self.publishing: dict[TaskKey, TaskPublishing | None] = {}
        self.ended: dict[TaskKey, TaskEnded] = {}
        self.closed: list[TaskKey] = []
        self.last = 0
        self.last_worker = 0
        self._rows = rows
        take = self._TAKE
        for record in records:
            take[type(record)](self, record)
            self.last = record.record

    def write(self, connection: sqlite3.Connection) -> None:
        """Carry everything out within the transaction that the caller has begun."""
        self._write_jobs(connection)
        self._write_workers(connection)
        self._write_attempts(connection)
        self._write_publishing(connection)
        self._write_ended(connection)
        self._write_job_ends(connection)

    def settle(self) -> None:
        """Note which rows are there, once the transaction is committed."""
        rows = self._rows
        rows.attempts.difference_update(self.closed)
        rows.attempts.update(self.started)
        for key, record in self.publishing.items():
            if record is None:
                rows.publishing.pop(key, None)
            else:
                rows.publishing[key] = record.attempt
        for end in self.job_ends:
            if end.is_canceled:
                rows.attempts = {key for key in rows.attempts if key[0] != end.job}

    # --- folding ------------------------------------------------------------------------------

    def _take_attempt_started(self, record: AttemptStarted) -> None:
        self.started.setdefault((record.job, record.index), []).append(record)

    def _take_task_ended(self, record: TaskEnded) -> None:
        key = (record.job, record.index)
        self.started.pop(key, None)
        if key in self._rows.attempts:
            self.closed.append(key)
        if key in self.publishing or key in self._rows.publishing:
            self.publishing[key] = None
        first = self.ended.setdefault(key, record)
        if first is not record:
            _note_second_end(record, first.attempt)

    def _take_attempt_failed(self, record: AttemptFailed) -> None:
        key = (record.job, record.index)
        worker_id, worker, wall_s = b"", 0, 0.0
        begun = self.started.get(key, [])
        for start in begun:
            if start.attempt == record.attempt:
                worker_id, worker, wall_s = start.worker_id, start.worker, start.wall_s
                begun.remove(start)
                if not begun:
                    del self.started[key]
                break
        _, _, epoch, number = unpack_attempt(record.attempt)
        end = (record.counts_as, _encode(record.result))
        self.failed.append((*key, epoch, number, worker_id, worker, wall_s, *end))
        if self._published(key) == record.attempt:
            self.publishing[key] = None

    def _published(self, key: TaskKey) -> bytes | None:
        if key in self.publishing:
            record = self.publishing[key]
            return None if record is None else record.attempt
        return self._rows.publishing.get(key)

    def _take_task_publishing(self, record: TaskPublishing) -> None:
        self.publishing[record.job, record.index] = record

    def _take_job_added(self, record: JobAdded) -> None:
        self.jobs.append(record)

    def _take_job_ended(self, record: JobEnded) -> None:
        self.job_ends.append(record)
        if record.is_canceled:
            for key in [key for key in self.started if key[0] == record.job]:
                del self.started[key]

    def _take_worker_admitted(self, record: WorkerAdmitted) -> None:
        self.workers[record.worker_id] = record
        self.last_worker = max(self.last_worker, record.number)

    def _take_worker_left(self, record: WorkerLeft) -> None:
        self.workers[record.worker_id] = None

    _TAKE: ClassVar[dict[type, Callable[..., None]]] = {
        AttemptStarted: _take_attempt_started,
        TaskEnded: _take_task_ended,
        AttemptFailed: _take_attempt_failed,
        TaskPublishing: _take_task_publishing,
        JobAdded: _take_job_added,
        JobEnded: _take_job_ended,
        WorkerAdmitted: _take_worker_admitted,
        WorkerLeft: _take_worker_left,
    }

    # --- writing ------------------------------------------------------------------------------

    def _write_jobs(self, connection: sqlite3.Connection) -> None:
        for job in self.jobs:
            names = (job.job, job.job_uid, job.credential, job.submission)
            done = connection.execute(
                "INSERT OR IGNORE INTO job VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*names, job.submitted_wall_s, job.may_write, job.spec_bytes),
            )
            if done.rowcount == 0:
                _assert_same_job(connection, job)
        if self.jobs:
            _raise_next(connection, "next_job", max(job.job for job in self.jobs))

    def _write_workers(self, connection: sqlite3.Connection) -> None:
        for worker_id, worker in self.workers.items():
            if worker is None:
                connection.execute("DELETE FROM worker WHERE worker_id = ?", (worker_id,))
            else:
                connection.execute(
                    "INSERT OR REPLACE INTO worker VALUES (?, ?, ?, ?)",
                    (worker_id, worker.number, worker.host, worker.wall_s),
                )
        if self.last_worker:
            _raise_next(connection, "next_worker", self.last_worker)

    def _write_attempts(self, connection: sqlite3.Connection) -> None:
        starts = [_row_of(start) for begun in self.started.values() for start in begun]
        _insert(
            connection,
            "INSERT INTO attempt (job, idx, epoch, number, worker_id, worker, wall_s)",
            "ON CONFLICT (job, idx, epoch, number) DO UPDATE SET worker_id = excluded.worker_id,"
            " worker = excluded.worker, wall_s = excluded.wall_s",
            starts,
        )
        _insert(
            connection,
            "INSERT INTO attempt",
            "ON CONFLICT (job, idx, epoch, number) DO UPDATE SET counts_as = excluded.counts_as,"
            " record = excluded.record",
            self.failed,
        )
        _delete(connection, "attempt", "record IS NULL AND", self.closed)

    def _write_publishing(self, connection: sqlite3.Connection) -> None:
        rows = [
            (record.job, record.index, record.attempt, _encode(record.task))
            for record in self.publishing.values()
            if record is not None
        ]
        _insert(connection, "INSERT OR REPLACE INTO publishing", "", rows)
        over = [key for key, record in self.publishing.items() if record is None]
        _delete(connection, "publishing", "", over)

    def _write_ended(self, connection: sqlite3.Connection) -> None:
        kinds = _KINDS
        ended = list(self.ended.values())
        rows = []
        for end in ended:
            task = end.task
            kind = kinds.get(task.outcome, FAILED_KIND)
            rows.append((end.job, task.event, end.index, kind, _encode(task)))
        if _insert(connection, "INSERT OR IGNORE INTO ended", "", rows) < len(rows):
            for end in ended:
                _check_end(connection, end)

    def _write_job_ends(self, connection: sqlite3.Connection) -> None:
        for end in self.job_ends:
            connection.execute(
                "INSERT INTO job_end VALUES (?, ?, ?) ON CONFLICT (job) DO UPDATE SET"
                " wall_s = excluded.wall_s, is_canceled = MAX(is_canceled, excluded.is_canceled)",
                (end.job, end.wall_s, end.is_canceled),
            )
            if end.is_canceled:
                connection.execute(
                    "DELETE FROM attempt WHERE job = ? AND record IS NULL", (end.job,)
                )


def _row_of(start: AttemptStarted) -> Row:
    _, index, epoch, number = unpack_attempt(start.attempt)
    return start.job, index, epoch, number, start.worker_id, start.worker, start.wall_s


def _insert(connection: sqlite3.Connection, head: str, tail: str, rows: Sequence[Row]) -> int:
    """Insert rows of equal length; give the number of rows that were changed."""
    if not rows:
        return 0
    one = "(" + ",".join("?" * len(rows[0])) + ")"
    changed = at = 0
    for size in _CHUNKS:
        statement = f"{head} VALUES {','.join([one] * size)} {tail}"
        while len(rows) - at >= size:
            values = tuple(chain.from_iterable(rows[at : at + size]))
            changed += connection.execute(statement, values).rowcount
            at += size
    return changed


def _delete(
    connection: sqlite3.Connection, table: str, condition: str, keys: Sequence[TaskKey]
) -> None:
    at = 0
    for size in _CHUNKS:
        pairs = ",".join(["(?,?)"] * size)
        statement = f"DELETE FROM {table} WHERE {condition} (job, idx) IN (VALUES {pairs})"
        while len(keys) - at >= size:
            connection.execute(statement, tuple(chain.from_iterable(keys[at : at + size])))
            at += size


def _raise_next(connection: sqlite3.Connection, key: str, used: int) -> None:
    connection.execute(
        "UPDATE meta SET value = MAX(value, ?) WHERE key = ?",
        (used + 1, key),
    )


def _assert_same_job(connection: sqlite3.Connection, job: JobAdded) -> None:
    """The group is carried out again, or two jobs share what must be theirs alone: a bug."""
    row = connection.execute(
        "SELECT uid, credential, submission FROM job WHERE job = ?", (job.job,)
    ).fetchone()
    same = (job.job_uid, job.credential, job.submission)
    assert row == same, f"job {job.job} contradicts one that is stored"


def _check_end(connection: sqlite3.Connection, end: TaskEnded) -> None:
    """Find out why an end was not stored: stored before, not the first, or a bug."""
    row = connection.execute(
        "SELECT event, record FROM ended WHERE job = ? AND idx = ?", (end.job, end.index)
    ).fetchone()
    assert row is not None, f"event {end.task.event} of job {end.job} belongs to another task"
    stored = msgpack.decode(row[1], type=TaskRecord)
    if (row[0], stored.attempt) != (end.task.event, end.task.attempt):
        _note_second_end(end, stored.attempt)


def _note_second_end(end: TaskEnded, first: bytes) -> None:
    _log.error(
        "task %d.%d ended a second time (attempt %s); the first end stands (attempt %s)",
        end.job,
        end.index,
        show_attempt(end.attempt),
        show_attempt(first),
    )
