"""Reading ended tasks and attempts from the journal, on a connection that cannot write."""

from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from wqueue.protocol.messages import AttemptResult, JobRange, TaskRecord

RESULTS_BYTES_MAX = 512 * 1024
"""Encoded bytes of one answer: half of what a control message may hold, so that it always fits."""


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


class StoreReader:
    """Queries on committed state. Any one thread at a time may call; open it after Store.open()."""

    def __init__(self, path: Path) -> None:
        raise NotImplementedError

    def results(self, job: int, cursor: int, limit: int) -> list[TaskRecord]:
        """Read the ended tasks of a job after event `cursor`, in order of their events.

        At most `limit` and at most RESULTS_BYTES_MAX encoded, but always one if there is one.
        """
        raise NotImplementedError

    def records(self, ranges: Iterable[JobRange], limit: int) -> list[TaskRecord]:
        """Read the ended tasks of these ranges by job and index, bounded as in `results`."""
        raise NotImplementedError

    def attempts(self, job: int, index: int) -> list[AttemptRow]:
        """Read the attempts of a task that did not end it, oldest first, and the open ones."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the connection."""
        raise NotImplementedError
