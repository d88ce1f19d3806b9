"""The views of one job and of one task."""

from typing import TYPE_CHECKING

from wqueue.cli.amounts import show_mb, show_seconds
from wqueue.cli.failure import (
    failure_fields,
    failure_lines,
    find_failures,
    outcome_line,
    tail_of,
    with_tails,
)
from wqueue.cli.indexes import compress
from wqueue.cli.options import Place
from wqueue.cli.output import pairs, screen_width
from wqueue.cli.views import (
    View,
    count_sentence,
    find_output,
    job_fields,
    local_time,
    resources_sentence,
    task_fields,
    under_way,
    waiting,
)
from wqueue.protocol.errors import NoSuchTask
from wqueue.protocol.messages import STDERR, STDOUT, JobRange, JobRow, TaskRecord, TaskRow, Usage
from wqueue.protocol.names import show

if TYPE_CHECKING:
    from wqueue.client import Client

INDEXES_MAX = 1000
"""Tasks at workers whose indexes are asked for: more would not fit on a line."""

Pairs = list[tuple[str, str]]


def job_view(client: "Client", job: int, place: Place) -> View:
    """Show one job: what it is, how far, and its first failures."""
    found = client.jobs([JobRange(job)])
    if not found:
        raise NoSuchTask(f"there is no job {job}; see: {place.command('wq-status', '-J', '--all')}")
    row = found[0]
    failed = find_failures(client, [job], row.counts.failed)
    reason = _why_waiting(client, row)
    indexes = _at_workers(client, row) | {"failed": compress(r.index for r in failed)}
    failures = with_tails(client, failed)
    values = {
        "job": job_fields(row) | {"reason": reason or None},
        "indexes": {state: text or None for state, text in indexes.items()},
        "failures": failure_fields(failures),
    }
    lines = pairs(_job_pairs(row, indexes, reason), screen_width())
    if failures:
        lines += ["", *failure_lines(failures, row.counts.failed)]
    return View(values, lines, [])


def task_view(client: "Client", wanted: JobRange, place: Place) -> View:
    """Show one task: its command, its state and why, how it ended and what it printed."""
    row = next(iter(client.tasks([wanted], limit=1)), None)
    if row is None:
        raise NoSuchTask(
            f"there is no task {wanted.job}.{wanted.first}; "
            f"see: {place.command('wq-status', wanted.job)}"
        )
    values = task_fields(row)
    shown: Pairs = [
        ("Task", values["task"]),
        ("State", values["state"]),
        ("Command", show(row.command)),
        ("Resources", resources_sentence(row.resources)),
        ("Priority", f"{row.priority:g}"),
        ("Attempts", str(row.tries)),
    ]
    if row.reason:
        shown.append(("Waits for", row.reason))
    if row.running_s is not None:
        shown.append(("Running", f"{show_seconds(row.running_s)} on {_worker(row)}"))
    if row.record is None:
        return View({"task": values}, pairs(shown, screen_width()), [])
    shown += _ending_pairs(row.record, _worker(row))
    lines = pairs(shown, screen_width())
    for title, position in (("stdout", STDOUT), ("stderr", STDERR)):
        output = find_output(row.record, position)
        if output is not None and output.size:
            tail = tail_of(client, row.record, position)
            lines += ["", f"{title} ({output.size} bytes), its end:"]
            lines += [f"  | {text}" for text in tail]
    return View({"task": values}, lines, [])


def _at_workers(client: "Client", row: JobRow) -> dict[str, str]:
    """Say which tasks workers have; the others are too many to name."""
    indexes: dict[str, list[int]] = {"running": [], "assigned": []}
    if under_way(row.counts):
        for task in client.tasks([JobRange(row.job)], active_only=True, limit=INDEXES_MAX):
            indexes["assigned" if task.state == "assigned" else "running"].append(task.index)
    return {state: compress(chosen) for state, chosen in indexes.items()}


def _why_waiting(client: "Client", row: JobRow) -> str:
    """Say why the last task has not begun: tasks begin in order, and wait for the same."""
    if not waiting(row.counts):
        return ""
    last = JobRange(row.job, row.count - 1, row.count - 1)
    return next((task.reason for task in client.tasks([last], limit=1)), "")


def _job_pairs(row: JobRow, indexes: dict[str, str], reason: str) -> Pairs:
    shown: Pairs = [
        ("Job", str(row.job)),
        ("State", row.state),
        ("Tasks", f"{row.count}: {count_sentence(row.counts)}"),
    ]
    shown += [(state.capitalize(), text) for state, text in indexes.items() if text]
    shown += [("Waits for", reason)] if reason else []
    shown += [("Name", row.name)] if row.name else []
    shown += [("Tag", row.tag)] if row.tag else []
    shown += [
        ("Command", show(row.command)),
        ("Resources", resources_sentence(row.resources)),
        ("Category", row.category),
        ("Priority", f"{row.priority:g}"),
        ("Submitted", local_time(row.submitted_wall_s)),
    ]
    if row.ended_wall_s:
        took = show_seconds(max(0.0, row.ended_wall_s - row.submitted_wall_s))
        shown.append(("Ended", f"{local_time(row.ended_wall_s)} (after {took})"))
    if row.directory:
        shown.append(("Folder", show(row.directory)))
    return shown


def _ending_pairs(record: TaskRecord, worker: str) -> Pairs:
    return [
        ("Outcome", outcome_line(record)),
        ("Ended", f"{local_time(record.ended_wall_s)} on {worker}"),
        ("Usage", _usage(record.usage)),
    ]


def _usage(usage: Usage) -> str:
    parts = [f"{show_seconds(usage.wall_s)} wall"]
    if usage.user_s is not None and usage.system_s is not None:
        parts.append(f"{show_seconds(usage.user_s + usage.system_s)} cpu")
    if usage.memory_peak_mb is not None:
        parts.append(f"{show_mb(usage.memory_peak_mb)} memory at most")
    return ", ".join(parts)


def _worker(row: TaskRow) -> str:
    number = row.worker or (row.record.worker if row.record else 0)
    host = row.host or (row.record.host if row.record else "")
    return f"{host or 'an unknown host'} (worker {number})" if number else "no worker"
