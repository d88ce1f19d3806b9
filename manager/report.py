"""Read-only views of the core for people and tools: the rows that a Query is answered with.

Ended tasks are in the store, not in the core: for a listing of tasks the shell first reads the
records of the ranges that `needs_records` names and hands them to `answer`.
"""

import re
from collections.abc import Iterator, Sequence

from msgspec import Struct

from wqueue.manager.core.core import Core
from wqueue.manager.core.events import Now
from wqueue.manager.core.job import Attempt, Job, counts_of
from wqueue.manager.core.scheduler import why_none
from wqueue.manager.core.task import Phase, TaskState
from wqueue.manager.core.worker import Worker, WorkerState
from wqueue.protocol.messages import (
    Answer,
    JobRange,
    JobRow,
    Query,
    QueueRow,
    TaskRecord,
    TaskRow,
    TaskTemplate,
    WorkerRow,
)
from wqueue.protocol.resources import Resources
from wqueue.protocol.template import expand

TASK_VIEWS = ("tasks", "explain")
"""Views of single tasks: the same, since the row of a task that waits says why it does."""

ROWS_MAX = 300
"""Most rows in one answer, whatever was asked for: 4 to 8 ms of the loop's time."""


COMMAND_SHOWN_BYTES = 500
"""Most of a command in a listing of several rows, so that ROWS_MAX of them fit into a frame; of a
single job or task it is shown whole."""

_BEGUN_PLACEHOLDER = re.compile(rb"\{[^{}]{0,3}\Z")


class Facts(Struct, frozen=True):
    """What the views need and the core does not know: who this manager process is."""

    name: str
    server_id: bytes
    host: str
    port: int
    software: str
    started_monotonic_s: float
    state_dir: bytes


def needs_records(core: Core, query: Query) -> list[JobRange]:
    """Give the ranges whose ended tasks must be read from the store to answer `query`."""
    if query.what not in TASK_VIEWS or query.active_only:
        return []
    pages = _pages(core, query)
    return [JobRange(job.number, first, last) for job, first, last in pages]


def answer(
    core: Core, facts: Facts, query: Query, now: Now, records: Sequence[TaskRecord] = ()
) -> Answer:
    """Answer a query: "queue", "jobs", "workers" or one of TASK_VIEWS; others have no rows."""
    if query.what == "queue":
        return Answer(query.request, 1, queue=_queue_row(core, facts, now))
    if query.what == "jobs":
        jobs = _selected_jobs(core, query)
        page = _page(jobs, query)
        rows = [_job_row(job, _command_max(len(page))) for job in page]
        return Answer(query.request, len(jobs), jobs=rows)
    if query.what == "workers":
        workers = sorted(core.state.workers.values(), key=lambda w: w.number)
        if query.active_only:
            workers = [w for w in workers if w.state is not WorkerState.GONE]
        listed = [_worker_row(worker, now) for worker in _page(workers, query)]
        return Answer(query.request, len(workers), workers=listed)
    if query.what in TASK_VIEWS:
        return _task_answer(core, query, now, records)
    return Answer(query.request)


def _page(rows: list[object] | list[Job] | list[Worker], query: Query) -> list:  # type: ignore[type-arg]
    return rows[query.offset : query.offset + _limit(query)]


def _limit(query: Query) -> int:
    return min(query.limit, ROWS_MAX)


# --- queue, jobs, workers -------------------------------------------------------------------------


def _command_max(rows: int) -> int | None:
    return COMMAND_SHOWN_BYTES if rows > 1 else None


def _cut(command: bytes, most: int | None) -> bytes:
    return command if most is None or len(command) <= most else command[:most] + b"..."


def _queue_row(core: Core, facts: Facts, now: Now) -> QueueRow:
    state = core.state
    live = [w for w in state.workers.values() if w.state is WorkerState.LIVE]
    away = [w for w in state.workers.values() if w.state is WorkerState.AWAY]
    return QueueRow(
        name=facts.name,
        server_id=facts.server_id,
        epoch=state.epoch,
        host=facts.host,
        port=facts.port,
        software=facts.software,
        up_s=now.monotonic_s - facts.started_monotonic_s,
        counts=counts_of(state.totals),
        jobs=len(state.jobs),
        jobs_active=len(state.unended),
        workers=len(live),
        workers_away=len(away),
        workers_busy=sum(bool(worker.attempts) for worker in live),
        total=_sum([worker.room.total for worker in live]),
        committed=_sum([worker.committed() for worker in live]),
        store_error=state.store_error,
        state_dir=facts.state_dir,
    )


def _sum(amounts: list[Resources]) -> Resources:
    named: dict[str, int] = {}
    for amount in amounts:
        for name, count in amount.named.items():
            named[name] = named.get(name, 0) + count
    return Resources(
        sum(a.cores_milli for a in amounts),
        sum(a.memory_mb for a in amounts),
        sum(a.disk_mb for a in amounts),
        sum(a.gpus for a in amounts),
        named,
    )


def _selected_jobs(core: Core, query: Query) -> list[Job]:
    jobs = core.state.jobs
    if not query.ranges:
        return list((core.state.unended if query.active_only else jobs).values())
    wanted = sorted({entry.job for entry in query.ranges})
    chosen = [jobs[number] for number in wanted if number in jobs]
    return [job for job in chosen if not (query.active_only and job.is_ended)]


def _job_state(job: Job) -> str:
    counts = job.counts
    if not job.is_ended:
        is_begun = counts[TaskState.READY] + counts[TaskState.BLOCKED] + counts[TaskState.HELD]
        return "waiting" if is_begun == job.spec.count else "running"
    if counts[TaskState.FAILED]:
        return "failed"
    return "canceled" if counts[TaskState.CANCELED] else "done"


def _job_row(job: Job, command_max: int | None) -> JobRow:
    spec = job.spec
    return JobRow(
        job=job.number,
        name=spec.name,
        tag=spec.tag,
        category=spec.category,
        priority=spec.priority,
        state=_job_state(job),
        count=spec.count,
        counts=job.shown_counts(),
        command=_cut(_line(spec.template, command_max), command_max),
        submitted_wall_s=job.submitted_wall_s,
        ended_wall_s=job.ended_wall_s,
        resources=spec.template.resources,
        directory=spec.directory.path if spec.directory is not None else b"",
    )


def _worker_row(worker: Worker, now: Now) -> WorkerRow:
    register = worker.register
    return WorkerRow(
        number=worker.number,
        state=worker.state.name.lower(),
        host=worker.host,
        address=worker.address,
        pid=register.pid if register is not None else 0,
        total=worker.room.total,
        committed=worker.committed(),
        queued=len(worker.queued),
        running=len(worker.attempts) - len(worker.queued),
        done=worker.done,
        failed=worker.failed,
        heard_ago_s=max(0.0, now.monotonic_s - worker.heard_s) if worker.heard_s else 0.0,
        software=register.software if register is not None else "",
        features=register.features if register is not None else [],
        workdir=register.workdir if register is not None else b"",
    )


# --- tasks ----------------------------------------------------------------------------------------


def _pages(core: Core, query: Query) -> list[tuple[Job, int, int]]:
    """Cut the selected tasks to the page asked for: job, first and last index of each piece."""
    skip, left = query.offset, _limit(query)
    pieces: list[tuple[Job, int, int]] = []
    for job, first, last in _selected_ranges(core, query):
        count = last - first + 1
        if skip >= count:
            skip -= count
            continue
        taken = min(count - skip, left)
        pieces.append((job, first + skip, first + skip + taken - 1))
        left -= taken
        skip = 0
        if not left:
            break
    return pieces


def _selected_ranges(core: Core, query: Query) -> Iterator[tuple[Job, int, int]]:
    jobs = core.state.jobs
    if not query.ranges:
        for job in jobs.values():
            yield job, 0, job.spec.count - 1
        return
    for entry in query.ranges:
        found = jobs.get(entry.job)
        if found is None:
            continue
        last = min(entry.last, found.spec.count - 1)
        if entry.first <= last:
            yield found, entry.first, last


def _task_answer(core: Core, query: Query, now: Now, records: Sequence[TaskRecord]) -> Answer:
    if query.active_only:
        found = _active_tasks(core, query)
        total, page = len(found), found[query.offset : query.offset + _limit(query)]
    else:
        total = _task_count(core, query)
        pieces = _pages(core, query)
        page = [(job, i) for job, first, last in pieces for i in range(first, last + 1)]
    listing = _Listing(core, now, _command_max(len(page)), records)
    return Answer(query.request, total, tasks=[listing.row(job, index) for job, index in page])


def _task_count(core: Core, query: Query) -> int:
    if not query.ranges:
        return sum(core.state.totals)
    return sum(last - first + 1 for _, first, last in _selected_ranges(core, query))


def _active_tasks(core: Core, query: Query) -> list[tuple[Job, int]]:
    if not query.ranges:
        return _tasks_with_attempts(core)
    return [
        (job, index)
        for job, first, last in _selected_ranges(core, query)
        for index in sorted(job.active)
        if first <= index <= last
    ]


def _tasks_with_attempts(core: Core) -> list[tuple[Job, int]]:
    state = core.state
    at_workers = [a for worker in state.workers.values() for a in worker.attempts.values()]
    found = {(attempt.job.number, attempt.index): attempt.job for attempt in at_workers}
    found |= {(task.job, task.index): state.jobs[task.job] for task in state.publishing.values()}
    return [(found[place], place[1]) for place in sorted(found)]


class _Listing:
    """Rows of tasks. Why the ready tasks of a job wait is asked once, since it is the same."""

    def __init__(
        self, core: Core, now: Now, command_max: int | None, records: Sequence[TaskRecord]
    ) -> None:
        self._core = core
        self._now = now
        self._command_max = command_max
        self._records = {(record.job, record.index): record for record in records}
        self._known: dict[int, str] = {}

    def row(self, job: Job, index: int) -> TaskRow:
        """Give the row of one task."""
        record = self._records.get((job.number, index))
        state = job.state(index)
        attempts = job.active.get(index, [])
        attempt = max(attempts, key=lambda a: a.phase) if attempts else None
        worker = self._core.state.worker_of(attempt) if attempt is not None else None
        template = job.spec.template
        return TaskRow(
            job=job.number,
            index=index,
            state="done" if state is TaskState.FAILED else state.name.lower(),
            command=_command(job, index, self._command_max),
            worker=worker.number if worker is not None else 0,
            host=worker.host if worker is not None else "",
            running_s=_running_s(attempt, self._now),
            tries=job.tries.get(index, 0) if record is None else record.tries,
            resources=template.resources,
            record=record,
            reason=self._reason(job, index),
            priority=job.spec.priority,
        )

    def _reason(self, job: Job, index: int) -> str:
        if job.state(index) is not TaskState.READY:
            return waiting_reason(self._core, job, index)
        if job.number not in self._known:
            self._known[job.number] = waiting_reason(self._core, job, index)
        return self._known[job.number]


def _running_s(attempt: Attempt | None, now: Now) -> float | None:
    if attempt is None or attempt.phase is not Phase.RUNNING:
        return None
    return max(0.0, now.monotonic_s - attempt.since_s)


def _command(job: Job, index: int, most: int | None) -> bytes:
    template = job.spec.template
    line = _line(template, most)
    if not template.is_array:
        return _cut(line, most)
    value = job.value(index)
    if most is None or len(line) <= most:
        return _cut(expand(line, value, index, quote=template.is_shell), most)
    begun = _BEGUN_PLACEHOLDER.sub(b"", line[:most])
    return expand(begun, value, index, quote=template.is_shell)[:most] + b"..."


def _line(template: TaskTemplate, most: int | None) -> bytes:
    """Give the command as one line; of a long one a byte more than `most`."""
    if most is None:
        return b" ".join(template.command)
    words = (word[: most + 1] for word in template.command[: most + 1])
    return b" ".join(words)[: most + 1]


def waiting_reason(core: Core, job: Job, index: int) -> str:
    """Say why a task has not begun; an empty string when it has."""
    state = job.state(index)
    if state is TaskState.UNKNOWN:
        return "its worker is away; it is waited for"
    if state is TaskState.ASSIGNED:
        return "it is at its worker and waits for room or for its inputs there"
    if state is not TaskState.READY:
        return ""
    if core.state.store_error:
        return f"the manager cannot write its journal: {core.state.store_error}"
    if core.state.is_stopping:
        return "the manager is ending"
    if job.is_restored and core.state.awaited:
        return f"the manager has started anew and waits for {len(core.state.awaited)} workers"
    return why_none(job, list(core.state.workers.values()))
