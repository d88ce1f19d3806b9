"""Reading the journal back at start: what the core must know, in the smallest form.

Of a job of a million ended tasks only the indexes are read, from an index of the table, into
arrays of four bytes each; the records stay on disk.
"""

import sqlite3
from array import array
from collections.abc import Sequence

from msgspec import msgpack

from wqueue.manager.core.events import (
    AttemptStarted,
    JobAdded,
    Restored,
    StoredJob,
    TaskPublishing,
    WorkerAdmitted,
)
from wqueue.manager.store_group import OpenRows
from wqueue.manager.store_schema import CANCELED_KIND, FAILED_KIND
from wqueue.protocol.attempts import pack_attempt
from wqueue.protocol.messages import TaskRecord

INDEX_CODE = "I"
"""Array type of task indexes: four bytes, enough for TASKS_PER_JOB_MAX."""

_decode_task = msgpack.Decoder(TaskRecord).decode


def load(connection: sqlite3.Connection, epoch: int, rows: OpenRows) -> Restored:
    """Read everything the core starts from; note in `rows` what is open."""
    attempts, lost, failures = _load_attempts(connection)
    restored = Restored(
        epoch=epoch,
        next_job=read_meta(connection, "next_job"),
        next_worker=read_meta(connection, "next_worker"),
        jobs=_load_jobs(connection, lost, failures),
        attempts=attempts,
        publishing=_load_publishing(connection),
        workers=_load_workers(connection),
    )
    rows.attempts.update((attempt.job, attempt.index) for attempt in restored.attempts)
    rows.publishing.update(((row.job, row.index), row.attempt) for row in restored.publishing)
    return restored


def read_meta(connection: sqlite3.Connection, key: str) -> int:
    """Read one number of the table meta."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return int(row[0])


_Tries = dict[int, dict[int, int]]


def _load_jobs(connection: sqlite3.Connection, lost: _Tries, failures: _Tries) -> list[StoredJob]:
    ends = {
        job: (wall_s, bool(is_canceled))
        for job, wall_s, is_canceled in connection.execute("SELECT * FROM job_end")
    }
    jobs = []
    for job, uid, credential, submission, wall_s, may_write, spec in connection.execute(
        "SELECT job, uid, credential, submission, submitted_wall_s, may_write, spec"
        " FROM job ORDER BY job"
    ):
        ended_wall_s, is_canceled = ends.get(job, (0.0, False))
        failed = _load_indexes(connection, job, FAILED_KIND)
        ended, last_event = _load_ended(connection, job)
        jobs.append(
            StoredJob(
                added=JobAdded(
                    record=0,
                    job=job,
                    job_uid=uid,
                    credential=credential,
                    submission=submission,
                    spec_bytes=spec,
                    submitted_wall_s=wall_s,
                    may_write=bool(may_write),
                ),
                ended=ended,
                failed=len(failed),
                canceled=_load_indexes(connection, job, CANCELED_KIND),
                is_canceled=is_canceled,
                ended_wall_s=ended_wall_s,
                lost=lost.get(job, {}),
                failures=failures.get(job, {}),
                failed_indexes=failed,
                last_event=last_event,
            )
        )
    return jobs


def _load_ended(connection: sqlite3.Connection, job: int) -> tuple[Sequence[int], int]:
    """Read the indexes by the order of their events, and the last event's number.

    Without sorting, and without touching the records.
    """
    last = connection.execute("SELECT MAX(event) FROM ended WHERE job = ?", (job,)).fetchone()[0]
    if last is None:
        return array(INDEX_CODE), 0
    ended = array(INDEX_CODE, bytes(4 * last))
    is_there = bytearray(last)
    for event, index in connection.execute(
        "SELECT event, idx FROM ended INDEXED BY ended_task WHERE job = ?", (job,)
    ):
        ended[event - 1] = index
        is_there[event - 1] = 1
    if all(is_there):
        return ended, last
    return array(INDEX_CODE, (ended[at] for at in range(last) if is_there[at])), last


def _load_indexes(connection: sqlite3.Connection, job: int, kind: int) -> Sequence[int]:
    rows = connection.execute(
        "SELECT idx FROM ended INDEXED BY ended_badly WHERE job = ? AND kind = ? AND kind <> 0",
        (job, kind),
    )
    return array(INDEX_CODE, (row[0] for row in rows))


def _load_attempts(
    connection: sqlite3.Connection,
) -> tuple[list[AttemptStarted], _Tries, _Tries]:
    """Read the open attempts of unfinished tasks, and how often these were tried before."""
    attempts: list[AttemptStarted] = []
    lost: _Tries = {}
    failures: _Tries = {}
    counted = {"lost": lost, "failure": failures}
    for job, uid, index, epoch, number, worker_id, worker, wall_s, counts_as in connection.execute(
        "SELECT a.job, j.uid, a.idx, a.epoch, a.number, a.worker_id, a.worker, a.wall_s,"
        " a.counts_as FROM attempt a JOIN job j ON j.job = a.job"
        " LEFT JOIN job_end d ON d.job = a.job"
        " WHERE d.job IS NULL"
        " AND NOT EXISTS (SELECT 1 FROM ended e WHERE e.job = a.job AND e.idx = a.idx)"
        " ORDER BY a.job, a.idx, a.epoch, a.number"
    ):
        if counts_as is None:
            attempt = pack_attempt(uid, index, epoch, number)
            attempts.append(AttemptStarted(0, attempt, job, index, worker_id, worker, wall_s))
        elif counts_as in counted:
            tries = counted[counts_as].setdefault(job, {})
            tries[index] = tries.get(index, 0) + 1
    return attempts, lost, failures


def _load_publishing(connection: sqlite3.Connection) -> list[TaskPublishing]:
    return [
        TaskPublishing(0, attempt, job, index, _decode_task(record))
        for job, index, attempt, record in connection.execute(
            "SELECT job, idx, attempt, record FROM publishing p WHERE NOT EXISTS"
            " (SELECT 1 FROM ended e WHERE e.job = p.job AND e.idx = p.idx) ORDER BY job, idx"
        )
    ]


def _load_workers(connection: sqlite3.Connection) -> list[WorkerAdmitted]:
    return [
        WorkerAdmitted(0, worker_id, number, host, wall_s)
        for worker_id, number, host, wall_s in connection.execute(
            "SELECT worker_id, number, host, wall_s FROM worker ORDER BY number"
        )
    ]
