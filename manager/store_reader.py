"""Reading ended tasks and attempts from the journal, on a connection that cannot write."""

import functools
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ParamSpec, TypeVar

from msgspec import Struct, msgpack

from wqueue.manager.store_schema import connect_reader
from wqueue.protocol.attempts import pack_attempt
from wqueue.protocol.errors import StoreError
from wqueue.protocol.messages import AttemptResult, JobRange, TaskRecord

RESULTS_BYTES_MAX = 512 * 1024
"""Encoded bytes of one answer: half of what a control message may hold, so that it always fits."""

P = ParamSpec("P")
T = TypeVar("T")

_LARGEST = 2**63 - 1
_decode_task = msgpack.Decoder(TaskRecord).decode
_decode_result = msgpack.Decoder(AttemptResult).decode


class AttemptRow(Struct, frozen=True):
    """One earlier or open attempt of a task. `result` is None while it is open.

    `counts_as` is as in AttemptFailed.
    """

    attempt: bytes
    worker_id: bytes
    worker: int
    wall_s: float
    counts_as: str = ""
    result: AttemptResult | None = None


def _translated(read: Callable[P, T]) -> Callable[P, T]:
    @functools.wraps(read)
    def guarded(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return read(*arguments, **named)
        except sqlite3.Error as error:
            raise StoreError(f"the journal cannot be read: {error}") from error

    return guarded


class StoreReader:
    """Queries on committed state. Any one thread at a time may call; open it after Store.open()."""

    def __init__(self, path: Path) -> None:
        self._connection = connect_reader(path)
        # A connection opens its file with the first query: do it now, while there are descriptors.
        self._connection.execute("SELECT COUNT(*) FROM meta").fetchone()

    @_translated
    def results(self, job: int, cursor: int, limit: int) -> list[TaskRecord]:
        """Read the ended tasks of a job after event `cursor`, in order of their events.

        At most `limit` and at most RESULTS_BYTES_MAX encoded, but always one if there is one.
        """
        rows = self._connection.execute(
            "SELECT record FROM ended WHERE job = ? AND event > ? ORDER BY event LIMIT ?",
            (job, cursor, limit),
        )
        records: list[TaskRecord] = []
        _take(rows, limit, RESULTS_BYTES_MAX, records)
        return records

    @_translated
    def records(self, ranges: Iterable[JobRange], limit: int) -> list[TaskRecord]:
        """Read the ended tasks of these ranges by job and index, bounded as in `results`."""
        records: list[TaskRecord] = []
        bytes_left = RESULTS_BYTES_MAX
        for range_ in ranges:
            rows = self._connection.execute(
                "SELECT record FROM ended WHERE job = ? AND idx BETWEEN ? AND ?"
                " ORDER BY idx LIMIT ?",
                (range_.job, range_.first, min(range_.last, _LARGEST), limit - len(records)),
            )
            bytes_left = _take(rows, limit, bytes_left, records)
            if bytes_left <= 0 or len(records) >= limit:
                break
        return records

    def attempts(self, job: int, index: int) -> list[AttemptRow]:
        """Read the attempts of a task that did not end it, oldest first, and the open ones."""
        rows = self._connection.execute(
            "SELECT uid, epoch, number, worker_id, worker, wall_s, counts_as, record"
            " FROM attempt JOIN job USING (job) WHERE job = ? AND idx = ?"
            " ORDER BY epoch, number",
            (job, index),
        )
        return [
            AttemptRow(
                attempt=pack_attempt(uid, index, epoch, number),
                worker_id=worker_id,
                worker=worker,
                wall_s=wall_s,
                counts_as=counts_as or "",
                result=None if record is None else _decode_result(record),
            )
            for uid, epoch, number, worker_id, worker, wall_s, counts_as, record in rows
        ]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _take(rows: sqlite3.Cursor, limit: int, bytes_left: int, records: list[TaskRecord]) -> int:
    """Decode rows into `records` while there is room; give the bytes left (0: no room)."""
    for (encoded,) in rows:
        if records and len(encoded) > bytes_left:
            rows.close()
            return 0
        records.append(_decode_task(encoded))
        bytes_left -= len(encoded)
        if len(records) >= limit:
            break
    rows.close()
    return bytes_left
