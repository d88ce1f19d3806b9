"""Listings of wq-status: the queue, jobs, tasks and workers."""

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from wqueue.cli.connection import ranges_of
from wqueue.cli.output import Column, Row, screen_width, table
from wqueue.cli.selection import EVERYTHING, Selector
from wqueue.cli.views import (
    JOB_COLUMNS,
    QUEUE_COLUMNS,
    TASK_COLUMNS,
    WORKER_COLUMNS,
    Fields,
    View,
    job_fields,
    queue_fields,
    task_fields,
    waiting,
    with_use,
    worker_fields,
)

if TYPE_CHECKING:
    from wqueue.client import Client
    from wqueue.protocol.messages import JobRange


class Wanted(NamedTuple):
    """Which listings were asked for; `limit` is the most tasks to list."""

    queue: bool = False
    jobs: bool = False
    tasks: bool = False
    workers: bool = False
    everything: bool = False
    limit: int | None = None


class Scope(NamedTuple):
    """What the listings are about: these ranges, or with none of them all there is."""

    ranges: "list[JobRange]"
    active_only: bool
    is_empty: bool = False


def listing(client: "Client", wanted: Wanted, selectors: Sequence[Selector]) -> View:
    """Ask for the wanted listings and lay them out one below the other."""
    scope = _scope(client, wanted, selectors)
    values: Fields = {}
    blocks: list[list[str]] = []
    notes: list[str] = []
    if wanted.queue:
        row = client.queue()
        values["queue"] = queue_fields(row)
        blocks.append(_table(QUEUE_COLUMNS, [values["queue"]]))
        if row.store_error:
            notes.append(f"the manager cannot write its journal: {row.store_error}")
        if waiting(row.counts) and not row.workers:
            notes.append(f"there are no workers; start some: wq-worker {row.host} {row.port}")
    if wanted.jobs:
        values["jobs"] = _jobs(client, scope)
        if values["jobs"] or not wanted.queue:
            blocks.append(_table(JOB_COLUMNS, values["jobs"]))
        else:
            notes.append("no active jobs; those that have ended: wq-status -J --all")
    if wanted.tasks:
        tasks = _tasks(client, scope, wanted.limit)
        is_complete = wanted.limit is None or len(tasks) <= wanted.limit
        values |= {"tasks": tasks[: wanted.limit], "is_complete": is_complete}
        blocks.append(_table(TASK_COLUMNS, values["tasks"]))
        if not is_complete:
            notes.append(f"these are the first {wanted.limit} tasks; more: --limit N")
    if wanted.workers:
        values["workers"] = [worker_fields(worker) for worker in client.workers()]
        blocks.append(_table(WORKER_COLUMNS, [with_use(fields) for fields in values["workers"]]))
    lines = [line for block in blocks for line in ["", *block]]
    return View(values, lines[1:], notes)


def _scope(client: "Client", wanted: Wanted, selectors: Sequence[Selector]) -> Scope:
    if any(selector.jobs == EVERYTHING for selector in selectors):
        return Scope([], active_only=False)
    if not selectors:
        return Scope([], active_only=not wanted.everything)
    ranges = ranges_of(client, selectors)
    return Scope(ranges, active_only=False, is_empty=not ranges)


def _jobs(client: "Client", scope: Scope) -> list[Fields]:
    if scope.is_empty:
        return []
    return [job_fields(row) for row in client.jobs(scope.ranges, active_only=scope.active_only)]


def _tasks(client: "Client", scope: Scope, limit: int | None) -> list[Fields]:
    if scope.is_empty:
        return []
    # One more than wanted tells whether there are more.
    rows = client.tasks(
        scope.ranges, active_only=scope.active_only, limit=None if limit is None else limit + 1
    )
    return [task_fields(row) for row in islice(rows, None if limit is None else limit + 1)]


def _table(columns: Sequence[Column], rows: Sequence[Row]) -> list[str]:
    return table(columns, rows, screen_width())
