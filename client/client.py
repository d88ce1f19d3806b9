"""Client: submit, wait, cancel, look, fetch. Every tool is made of it; none talks to sockets.

A Client is safe to use from many threads. A lost manager is not an error while there is hope: the
connection is made again in the background, everything unanswered is sent again under the same
submission ids, and whoever waits goes on waiting, until `manager_grace_s` is over. Only the first
connection fails at once. All errors are WqueueErrors.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from wqueue.job import Job, Summary
from wqueue.protocol.messages import (
    JobRange,
    JobRow,
    Progress,
    QueueRow,
    TaskRecord,
    TaskRow,
    WorkerRow,
)
from wqueue.tasks import Task

MANAGER_GRACE_S = 900.0
"""How long a lost manager is waited for: as long as workers carry on without one."""


class Client:
    """A connection to one manager, found by the rules that all tools share.

    `manager` is "HOST:PORT"; without anything given the running manager of this account is used.
    `on_connection` hears "lost: why" and "connected" while the connection comes and goes; it is
    called from the background thread. Raises ManagerUnreachable, NotAuthorized, VersionMismatch or
    UsageError at once when the first connection cannot be made.
    """

    def __init__(
        self,
        manager: str | None = None,
        *,
        name: str | None = None,
        info_file: str | os.PathLike[str] | None = None,
        state_dir: str | os.PathLike[str] | None = None,
        password_file: str | os.PathLike[str] | None = None,
        program: str = "",
        role: str | None = None,
        manager_grace_s: float = MANAGER_GRACE_S,
        on_connection: Callable[[str], None] | None = None,
    ) -> None:
        raise NotImplementedError

    # --- submitting ---------------------------------------------------------------------------

    def submit(
        self, task: Task, *, watch: bool = True, on_hashed: Callable[[int, int], None] | None = None
    ) -> Job:
        """Submit one task; when this returns, the manager has committed it.

        Input files are read here, to know them by content, and uploaded if the manager cannot read
        them itself; `on_hashed(bytes done, bytes in all)` hears how far that is. `watch` asks for
        news of the job from the start, which saves a round trip to whoever will wait for it.
        """
        raise NotImplementedError

    def submit_many(
        self,
        tasks: Iterable[Task],
        *,
        watch: bool = True,
        on_hashed: Callable[[int, int], None] | None = None,
    ) -> list[Job]:
        """Submit separate tasks, each a job of its own, in few round trips; all or an error.

        When one is refused the error is raised; those before it may have been taken.
        """
        raise NotImplementedError

    def submit_array(
        self,
        task: Task,
        *,
        count: int | None = None,
        values: Iterable[str | bytes] | None = None,
        start: int = 0,
        step: int = 1,
        watch: bool = True,
        on_hashed: Callable[[int, int], None] | None = None,
    ) -> Job:
        """Submit one job of many tasks, from `values`, or numbers: `count` from `start` by `step`.

        Placeholders in command, env, file names and destinations are filled per task.
        """
        raise NotImplementedError

    def job(self, job_id: int) -> Job:
        """Give a handle of a job by its number; NoSuchTask if the manager does not know it."""
        raise NotImplementedError

    # --- waiting and results ------------------------------------------------------------------

    def wait(
        self,
        jobs: Job | int | Iterable[Job | int],
        timeout_s: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> list[Summary]:
        """Wait until all these jobs have ended; say what became of each, in the order given.

        `on_progress` is called in this thread with the news of each job. WaitTimedOut when the
        time is over first: the work goes on. Outputs that the manager could not write for us are
        fetched to their local destinations here.
        """
        raise NotImplementedError

    def results(
        self,
        jobs: Job | int | Iterable[Job | int],
        cursor: int = 0,
        *,
        follow: bool = True,
        timeout_s: float | None = None,
    ) -> Iterator[TaskRecord]:
        """Give the record of each ended task once, in the order in which they ended in their job.

        With `follow` it goes on until all tasks have ended, else until what has ended now is
        given. `cursor` (one job only) is the `event` of the last record seen before.
        """
        raise NotImplementedError

    def progress(self, job: Job | int) -> Progress:
        """Ask the manager how far a job is."""
        raise NotImplementedError

    def cancel(self, ranges: Job | int | Iterable[Job | int | JobRange]) -> int:
        """Cancel tasks that have not ended; give their number."""
        raise NotImplementedError

    # --- looking ------------------------------------------------------------------------------

    def queue(self) -> QueueRow:
        """Give the manager at a glance."""
        raise NotImplementedError

    def jobs(self, ranges: Sequence[JobRange] = (), *, active_only: bool = False) -> list[JobRow]:
        """List jobs."""
        raise NotImplementedError

    def tasks(
        self,
        ranges: Sequence[JobRange] = (),
        *,
        active_only: bool = False,
        limit: int | None = None,
    ) -> Iterator[TaskRow]:
        """List tasks page by page, at most `limit`; without ranges those of all jobs."""
        raise NotImplementedError

    def workers(self) -> list[WorkerRow]:
        """List workers."""
        raise NotImplementedError

    # --- outputs ------------------------------------------------------------------------------

    def output(self, record: TaskRecord, position: int, to: str | Path | None = None) -> bytes:
        """Give an output of an ended task (STDOUT, STDERR or a position among its outputs).

        What came with the record is given at once, the rest is fetched. With `to` the content is
        written there instead, whole or not at all, and b"" is returned.
        """
        raise NotImplementedError

    def stdout(self, record: TaskRecord) -> bytes:
        """Give what an ended task printed."""
        raise NotImplementedError

    def stderr(self, record: TaskRecord) -> bytes:
        """Give what an ended task printed on its standard error."""
        raise NotImplementedError

    def fetch(
        self, job: Job | int, index: int, position: int, to: str | Path | None = None
    ) -> bytes:
        """Like output(), for a task that is known by its number only."""
        raise NotImplementedError

    # --- control ------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Order the manager to end and to send its workers home; owner only."""
        raise NotImplementedError

    def close(self) -> None:
        """End the connection; unanswered requests fail. Doing it twice is harmless."""
        raise NotImplementedError

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
