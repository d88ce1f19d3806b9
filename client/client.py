"""Client: submit, wait, cancel, look, fetch. Every tool is made of it; none talks to sockets.

A Client is safe to use from many threads. A lost manager is not an error while there is hope: the
connection is made again in the background, everything unanswered is sent again under the same
submission ids, and whoever waits goes on waiting, until `manager_grace_s` is over. Only the first
connection fails at once. All errors are WqueueErrors.
"""

import itertools
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from wqueue.deliver import Deliveries
from wqueue.exchange import Reply, Request
from wqueue.fetch import read_output, save_output
from wqueue.follow import ResultStream, ask_progress, wait_for_end
from wqueue.hashing import Hasher, OnHashed
from wqueue.job import Job, Summary, summarize
from wqueue.protocol.errors import NoSuchTask, Refused, RemoteProtocolError, UsageError
from wqueue.protocol.messages import (
    STDERR,
    STDOUT,
    Answer,
    CancelTasks,
    ClientToManager,
    Control,
    Done,
    JobRange,
    JobRow,
    Progress,
    Query,
    QueueRow,
    TaskRecord,
    TaskRow,
    WorkerRow,
)
from wqueue.reach import Reach
from wqueue.spec import Plan
from wqueue.submit import Submitter
from wqueue.task_array import Array, array_of
from wqueue.tasks import Task
from wqueue.wire import Connection

MANAGER_GRACE_S = 900.0
"""How long a lost manager is waited for: as long as workers carry on without one."""

ROWS_MAX = 1000
"""Rows asked for at once."""

NUMBER_MAX = 2**63 - 1
"""Largest number of a job, a task or an event: what the wire takes."""

FilePath = str | os.PathLike[str]


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
        info_file: FilePath | None = None,
        state_dir: FilePath | None = None,
        password_file: FilePath | None = None,
        role: str | None = None,
        program: str = "",
        manager_grace_s: float = MANAGER_GRACE_S,
        on_connection: Callable[[str], None] | None = None,
    ) -> None:
        reach = Reach(manager, info_file, state_dir, name, password_file, role)
        self._connection = Connection(
            reach.dial, program=program, grace_s=manager_grace_s, on_connection=on_connection
        )
        self._submitter = Submitter(self._connection, Hasher())
        self._deliveries = Deliveries(self._connection)
        # The thread holds the connection, not the Client, so that a forgotten Client is closed.
        self._stop = weakref.finalize(self, self._connection.stop)
        try:
            self._connection.start()
        except BaseException:
            self.close()
            raise

    # --- submitting ---------------------------------------------------------------------------

    def submit(self, task: Task, *, watch: bool = True, on_hashed: OnHashed | None = None) -> Job:
        """Submit one task; when this returns, the manager has committed it.

        Input files are read here, to know them by content, and uploaded if the manager cannot read
        them itself; `on_hashed(bytes done, bytes in all)` hears how far that is. `watch` asks for
        news of the job from the start, which saves a round trip to whoever will wait for it.
        """
        return self._submit([(task, None)], watch, on_hashed)[0]

    def submit_many(
        self, tasks: Iterable[Task], *, watch: bool = True, on_hashed: OnHashed | None = None
    ) -> list[Job]:
        """Submit separate tasks, each a job of its own, in few round trips.

        When one is refused the error is raised; others may have been taken.
        """
        return self._submit(((task, None) for task in tasks), watch, on_hashed)

    def submit_array(
        self,
        task: Task,
        *,
        count: int | None = None,
        values: Iterable[str | bytes] | None = None,
        start: int = 0,
        step: int = 1,
        watch: bool = True,
        on_hashed: OnHashed | None = None,
    ) -> Job:
        """Submit one job of many tasks, from `values`, or numbers: `count` from `start` by `step`.

        Placeholders in command, env, file names and destinations are filled per task.
        """
        array = array_of(count, values, start, step)
        return self._submit([(task, array)], watch, on_hashed)[0]

    def _submit(
        self,
        tasks: Iterable[tuple[Task, Array | None]],
        watch: bool,
        on_hashed: OnHashed | None,
    ) -> list[Job]:
        self._connection.check()
        folder = os.fsencode(Path.cwd())
        plans = (Plan(task, array, folder) for task, array in tasks)
        jobs = []
        for taken in self._submitter.submit(plans, watch=watch, on_hashed=on_hashed):
            array = taken.plan.array
            if taken.keeps_outputs:
                self._deliveries.add(taken.job, taken.plan)
            jobs.append(Job(self, taken.job, taken.job_uid, 1 if array is None else array.count))
        return jobs

    def job(self, job_id: int) -> Job:
        """Give a handle of a job by its number; NoSuchTask if the manager does not know it."""
        rows = self.jobs([JobRange(job_id)])
        if not rows:
            raise NoSuchTask(f"there is no job {job_id}")
        return Job(self, job_id, b"", rows[0].count)

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
        self._connection.check()
        ids = _ids(jobs)

        def note(progress: Progress) -> None:
            self._deliveries.deliver(progress)
            if on_progress is not None:
                on_progress(progress)

        ended = wait_for_end(self._connection, ids, timeout_s, note)
        return [summarize(ended[job]) for job in ids]

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
        self._connection.check()
        ids = _ids(jobs)
        if cursor and len(ids) != 1:
            raise UsageError(f"a cursor belongs to one job, not to {len(ids)}")
        _check_numbers("a cursor", [cursor])
        cursors = dict.fromkeys(ids, cursor)
        for record in ResultStream(self._connection, cursors, follow=follow, timeout_s=timeout_s):
            self._deliveries.deliver_record(record)
            yield record

    def progress(self, job: Job | int) -> Progress:
        """Ask the manager how far a job is."""
        self._connection.check()
        return ask_progress(self._connection, *_ids(job))

    def cancel(self, ranges: Job | int | JobRange | Iterable[Job | int | JobRange]) -> int:
        """Cancel tasks that have not ended; give their number."""
        some = [ranges] if isinstance(ranges, Job | int | JobRange) else list(ranges)
        wanted = [
            entry if isinstance(entry, JobRange) else JobRange(*_ids(entry)) for entry in some
        ]
        _check_ranges(wanted)
        return self._order(lambda number: CancelTasks(number, wanted))

    # --- looking ------------------------------------------------------------------------------

    def queue(self) -> QueueRow:
        """Give the manager at a glance."""
        queue = self._query("queue", [], 0, False).queue
        if queue is None:
            raise RemoteProtocolError("the manager's answer to a query is empty")
        return queue

    def jobs(self, ranges: Sequence[JobRange] = (), *, active_only: bool = False) -> list[JobRow]:
        """List jobs."""
        return [row for page in self._pages("jobs", ranges, active_only) for row in page.jobs]

    def tasks(
        self,
        ranges: Sequence[JobRange] = (),
        *,
        active_only: bool = False,
        limit: int | None = None,
    ) -> Iterator[TaskRow]:
        """List tasks, at most `limit`, page by page as they are asked for.

        Without ranges those of all jobs.
        """
        pages = self._pages("tasks", ranges, active_only)
        rows = itertools.chain.from_iterable(page.tasks for page in pages)
        return rows if limit is None else itertools.islice(rows, limit)

    def workers(self) -> list[WorkerRow]:
        """List workers."""
        return [row for page in self._pages("workers", [], False) for row in page.workers]

    def explain(self, ranges: Sequence[JobRange]) -> list[TaskRow]:
        """List tasks with the reason why each one waits."""
        return [row for page in self._pages("explain", ranges, False) for row in page.tasks]

    def _pages(self, what: str, ranges: Sequence[JobRange], active_only: bool) -> Iterator[Answer]:
        _check_ranges(ranges)
        offset = 0
        while True:
            page = self._query(what, ranges, offset, active_only)
            yield page
            count = len(page.jobs) + len(page.tasks) + len(page.workers)
            offset += count
            if not count or offset >= page.total:
                return

    def _query(
        self, what: str, ranges: Sequence[JobRange], offset: int, active_only: bool
    ) -> Answer:
        reply = self._ask(
            lambda number: Query(number, what, list(ranges), offset, ROWS_MAX, active_only)
        )
        if not isinstance(reply, Answer):
            raise RemoteProtocolError(f"a query was answered by {type(reply).__name__}")
        return reply

    # --- outputs ------------------------------------------------------------------------------

    def output(self, record: TaskRecord, position: int, to: FilePath | None = None) -> bytes:
        """Give an output of an ended task (STDOUT, STDERR or a position among its outputs).

        What came with the record is given at once, the rest is fetched. With `to` the content is
        written there instead, whole or not at all, and b"" is returned.
        """
        self._connection.check()
        if to is None:
            return read_output(self._connection, record, position)
        save_output(self._connection, record, position, Path(to))
        return b""

    def stdout(self, record: TaskRecord) -> bytes:
        """Give what an ended task printed."""
        return self.output(record, STDOUT)

    def stderr(self, record: TaskRecord) -> bytes:
        """Give what an ended task printed on its standard error."""
        return self.output(record, STDERR)

    def fetch(self, job: Job | int, index: int, position: int, to: FilePath | None = None) -> bytes:
        """Like output(), for a task that is known by its number only."""
        [job_id] = _ids(job)
        row = next(self.tasks([JobRange(job_id, index, index)]), None)
        if row is None:
            raise NoSuchTask(f"there is no task {job_id}.{index}")
        if row.record is None:
            raise Refused(f"task {job_id}.{index} has not ended; it is {row.state}", "not_ended")
        return self.output(row.record, position, to)

    # --- control ------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Order the manager to end and to send its workers home; owner only."""
        self._order(lambda number: Control(number, "shutdown"))

    def _order(self, make: Callable[[int], ClientToManager]) -> int:
        reply = self._ask(make)
        if not isinstance(reply, Done):
            raise RemoteProtocolError(f"an order was answered by {type(reply).__name__}")
        return reply.count

    def _ask(self, make: Callable[[int], ClientToManager]) -> Reply | None:
        self._connection.check()
        number = self._connection.exchange.next_number()
        request = Request(make(number))
        self._connection.ask([(number, request)])
        return self._connection.answer_of(request)

    def close(self) -> None:
        """End the connection; unanswered requests fail. Doing it twice is harmless."""
        self._stop()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _ids(jobs: Job | int | Iterable[Job | int]) -> list[int]:
    some = [jobs] if isinstance(jobs, Job | int) else jobs
    ids = [entry.id if isinstance(entry, Job) else entry for entry in some]
    _check_numbers("the number of a job", ids)
    return ids


def _check_ranges(ranges: Iterable[JobRange]) -> None:
    for entry in ranges:
        _check_numbers("the number of a job", [entry.job])
        _check_numbers("the index of a task", [entry.first, entry.last])


def _check_numbers(what: str, numbers: Iterable[object]) -> None:
    # What the wire cannot carry would end the connection's thread, and with it every other call.
    for number in numbers:
        if not (isinstance(number, int) and 0 <= number <= NUMBER_MAX):
            raise UsageError(f"{number!r} is not {what}")
