"""A journal for tests of the manager's store: numbers records, waits for commits."""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from wqueue.manager.core.events import (
    AttemptFailed,
    AttemptStarted,
    JobAdded,
    Record,
    Restored,
    TaskEnded,
    TaskPublishing,
)
from wqueue.manager.store import Store
from wqueue.protocol.attempts import pack_attempt
from wqueue.protocol.messages import (
    STDOUT,
    AttemptResult,
    OutputResult,
    TaskRecord,
)

UID = b"u" * 16
WORKER = b"w" * 16
PATIENCE_S = 20.0


class Journal:
    """A store and the numbering of its records."""

    def __init__(self, path: Path, commit: "FailingCommit | None" = None) -> None:
        self.path = path
        self.woken = threading.Event()
        self.store = Store(path, self.woken.set, commit=commit)
        self.number = 0

    def next(self) -> int:
        self.number += 1
        return self.number

    def write(self, *records: Record) -> None:
        self.store.write(records)

    def commit(self, *records: Record) -> None:
        self.write(*records)
        self.wait_for(lambda: self.store.committed == records[-1].record)

    def wait_for(self, condition: Callable[[], object]) -> None:
        while not condition():
            assert self.woken.wait(PATIENCE_S), "the store did not wake the loop"
            self.woken.clear()

    def job(self, job: int = 1, uid: bytes = UID, spec: bytes = b"spec") -> JobAdded:
        return JobAdded(self.next(), job, uid, b"owner", uid, spec, 5.0, True)

    def started(self, index: int, *, number: int = 1, job: int = 1) -> AttemptStarted:
        return AttemptStarted(self.next(), attempt(index, number), job, index, WORKER, 3, 6.0)

    def failed(self, index: int, counts_as: str, *, number: int = 1) -> AttemptFailed:
        key = attempt(index, number)
        return AttemptFailed(
            self.next(), key, 1, index, counts_as, AttemptResult(key, "exit_nonzero", 2)
        )

    def publishing(self, index: int, event: int, *, number: int = 1) -> TaskPublishing:
        task = record(index, event, number=number)
        return TaskPublishing(self.next(), attempt(index, number), 1, index, task)

    def ended(
        self, index: int, event: int, outcome: str = "succeeded", *, number: int = 1
    ) -> TaskEnded:
        task = record(index, event, outcome, number=number)
        return TaskEnded(self.next(), attempt(index, number), 1, index, task)


def attempt(index: int, number: int = 1) -> bytes:
    return pack_attempt(UID, index, 1, number)


def record(
    index: int, event: int, outcome: str = "succeeded", *, number: int = 1, stdout: bytes = b"out"
) -> TaskRecord:
    printed = OutputResult(STDOUT, len(stdout), inline=stdout)
    return TaskRecord(
        1, index, event, outcome, outputs=[printed], attempt=attempt(index, number), worker=3
    )


def reopen(path: Path) -> Restored:
    store = Store(path, lambda: None)
    restored = store.open()
    store.close()
    return restored


class FailingCommit:
    """Commits, but fails as often as told with what a full disk gives."""

    def __init__(self, failures: int, *, after: bool = False) -> None:
        self.failures = failures
        self.after = after
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, connection: sqlite3.Connection) -> None:
        if self.failures:
            self.failures -= 1
            if self.after:
                connection.execute("COMMIT")
            raise sqlite3.OperationalError("database or disk is full")
        assert self.may_go_on.wait(PATIENCE_S)
        connection.execute("COMMIT")
