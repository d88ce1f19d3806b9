"""What the tools show of the manager's rows: as plain values, for tables and JSON alike.

The keys are the schema of `--json` (version 1): keys are only ever added. Names that need not be
UTF-8 are text with escapes; durations are seconds; instants are ISO 8601 in UTC; None means that
it is not known, or not yet.
"""

import signal as signals
from datetime import datetime, timezone
from typing import Any, NamedTuple

from wqueue.cli.amounts import show_cores, show_mb
from wqueue.cli.output import Column
from wqueue.protocol.messages import (
    NO_EXIT_CODE,
    STDERR,
    STDOUT,
    Counts,
    JobRow,
    OutputResult,
    QueueRow,
    TaskRecord,
    TaskRow,
    Usage,
    WorkerRow,
)
from wqueue.protocol.names import show
from wqueue.protocol.outcomes import EXIT_NONZERO, MEANINGS, SIGNAL, SUCCEEDED
from wqueue.protocol.resources import MILLI, Resources

Fields = dict[str, Any]


class View(NamedTuple):
    """What a tool shows: values for JSON, lines for a terminal, and notes for whoever watches."""

    values: Fields
    lines: list[str]
    notes: list[str]


# --- rows as plain values -----------------------------------------------------------------------


def queue_fields(row: QueueRow) -> Fields:
    """Give the queue as plain values."""
    return {
        "project": row.name,
        "host": row.host,
        "port": row.port,
        **_summary(row.counts),
        "workers": row.workers,
        "workers_away": row.workers_away,
        "workers_busy": row.workers_busy,
        "jobs": row.jobs,
        "jobs_active": row.jobs_active,
        "counts": counts_fields(row.counts),
        "total": resources_fields(row.total),
        "committed": resources_fields(row.committed),
        "version": row.software,
        "server_id": row.server_id.hex(),
        "epoch": row.epoch,
        "up_s": row.up_s,
        "store_error": row.store_error or None,
        "state_dir": show(row.state_dir) or None,
    }


def job_fields(row: JobRow) -> Fields:
    """Give a job as plain values."""
    return {
        "job": row.job,
        "name": row.name or None,
        "tag": row.tag or None,
        "category": row.category,
        "priority": row.priority,
        "state": row.state,
        "tasks": row.count,
        **_summary(row.counts),
        "failed": row.counts.failed,
        "canceled": row.counts.canceled,
        "counts": counts_fields(row.counts),
        "command": show(row.command),
        "resources": resources_fields(row.resources),
        "directory": show(row.directory) or None,
        "submitted": instant(row.submitted_wall_s),
        "ended": instant(row.ended_wall_s),
    }


def task_fields(row: TaskRow) -> Fields:
    """Give a task as plain values."""
    record = row.record
    return {
        "task": f"{row.job}.{row.index}",
        "job": row.job,
        "index": row.index,
        "state": "failed" if record is not None and is_failure(record) else row.state,
        "priority": row.priority,
        "host": row.host or (record.host if record else "") or None,
        "worker": row.worker or (record.worker if record else 0) or None,
        "command": show(row.command),
        **resources_fields(row.resources),
        "running_s": row.running_s,
        "attempts": row.tries,
        "reason": row.reason or None,
        "record": None if record is None else record_fields(record),
    }


def worker_fields(row: WorkerRow) -> Fields:
    """Give a worker as plain values."""
    return {
        "worker": row.number,
        "state": row.state,
        "host": row.host,
        "address": row.address,
        "pid": row.pid,
        "completed": row.done,
        "failed": row.failed,
        "queued": row.queued,
        "running": row.running,
        "total": resources_fields(row.total),
        "committed": resources_fields(row.committed),
        "heard_ago_s": row.heard_ago_s,
        "features": list(row.features),
        "version": row.software or None,
        "workdir": show(row.workdir) or None,
    }


def record_fields(record: TaskRecord) -> Fields:
    """Give how a task ended as plain values."""
    return {
        "task": f"{record.job}.{record.index}",
        "outcome": record.outcome,
        "exit_code": None if record.exit_code == NO_EXIT_CODE else record.exit_code,
        "signal": record.signal or None,
        "text": describe_end(record),
        "worker": record.worker or None,
        "host": record.host or None,
        "attempts": record.tries,
        "ended": instant(record.ended_wall_s),
        "usage": usage_fields(record.usage),
        "stdout": output_fields(find_output(record, STDOUT)),
        "stderr": output_fields(find_output(record, STDERR)),
    }


def output_fields(output: OutputResult | None) -> Fields | None:
    """Give what a task printed: its size, and the text if it came along."""
    if output is None:
        return None
    text = None if output.inline is None else output.inline.decode("utf-8", "backslashreplace")
    return {"size": output.size, "text": text}


def usage_fields(usage: Usage) -> Fields:
    """Give what an attempt used as plain values."""
    return {
        "wall_s": usage.wall_s,
        "user_s": usage.user_s,
        "system_s": usage.system_s,
        "memory_peak_mb": usage.memory_peak_mb,
        "stage_in_s": usage.stage_in_s,
        "queued_s": usage.queued_s,
    }


def resources_fields(resources: Resources) -> Fields:
    """Give an amount of everything as plain values."""
    return {
        "cores": resources.cores_milli / MILLI,
        "memory_mb": resources.memory_mb,
        "disk_mb": resources.disk_mb,
        "gpus": resources.gpus,
        "named": dict(resources.named),
    }


def counts_fields(counts: Counts) -> Fields:
    """Give how many tasks are in each state as plain values."""
    return {name: getattr(counts, name) for name in Counts.__struct_fields__}


def _summary(counts: Counts) -> Fields:
    return {
        "waiting": waiting(counts),
        "running": under_way(counts),
        "complete": counts.done,
    }


# --- what rows mean -----------------------------------------------------------------------------


def waiting(counts: Counts) -> int:
    """Count the tasks that wait: blocked, held or ready."""
    return counts.blocked + counts.held + counts.ready


def under_way(counts: Counts) -> int:
    """Count the tasks that a worker has, those it has not begun included, as Work Queue does."""
    return counts.assigned + counts.running + counts.retrieving + counts.unknown


def is_failure(record: TaskRecord) -> bool:
    """Tell whether a task ended otherwise than by success or cancel."""
    return record.outcome not in (SUCCEEDED, "canceled")


def find_output(record: TaskRecord, position: int) -> OutputResult | None:
    """Find one output of an ended task."""
    return next((output for output in record.outputs if output.position == position), None)


def describe_end(record: TaskRecord) -> str:
    """Say in one line how a task ended."""
    if record.text:
        return record.text
    if record.outcome == EXIT_NONZERO:
        return f"exit code {record.exit_code}"
    if record.outcome == SIGNAL:
        return f"killed by signal {record.signal}{_signal_name(record.signal)}"
    return MEANINGS.get(record.outcome, record.outcome)


def count_sentence(counts: Counts) -> str:
    """Say how many tasks are in which state: "120 succeeded, 3 failed, 8 running, 4 waiting"."""
    parts = [
        (counts.done - counts.failed, "succeeded"),
        (counts.failed, "failed"),
        (counts.canceled, "canceled"),
        (under_way(counts) - counts.assigned, "running"),
        (counts.assigned, "assigned"),
        (waiting(counts), "waiting"),
    ]
    return ", ".join(f"{number} {word}" for number, word in parts if number) or "none"


def instant(wall_s: float) -> str | None:
    """Give an instant as ISO 8601 in UTC; nothing for 0."""
    if not wall_s:
        return None
    moment = datetime.fromtimestamp(wall_s, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def local_time(wall_s: float) -> str:
    """Show an instant as the clock on the wall does."""
    if not wall_s:
        return "-"
    return datetime.fromtimestamp(wall_s).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def resources_sentence(resources: Resources) -> str:
    """Say an amount of everything in words."""
    cores = resources.cores_milli / MILLI
    parts = [f"{show_cores(cores)} core{'' if cores == 1 else 's'}"]
    if resources.memory_mb:
        parts.append(f"{show_mb(resources.memory_mb)} memory")
    if resources.disk_mb:
        parts.append(f"{show_mb(resources.disk_mb)} disk")
    if resources.gpus:
        parts.append(f"{resources.gpus} gpu{'' if resources.gpus == 1 else 's'}")
    parts += [f"{amount} {name}" for name, amount in resources.named.items()]
    return ", ".join(parts)


def _signal_name(number: int) -> str:
    try:
        return f" ({signals.Signals(number).name})"
    except ValueError:
        return ""


# --- columns --------------------------------------------------------------------------------------


def _amount(size_mb: int) -> str:
    return show_mb(size_mb) if size_mb else "-"


def _few(number: int) -> str:
    return str(number) if number else "-"


QUEUE_COLUMNS = (
    Column("PROJECT", "project", cut_to=8),
    Column("HOST", "host", cut_to=8),
    Column("PORT", "port", is_number=True),
    Column("WAITING", "waiting", is_number=True),
    Column("RUNNING", "running", is_number=True),
    Column("COMPLETE", "complete", is_number=True),
    Column("WORKERS", "workers", is_number=True),
)

JOB_COLUMNS = (
    Column("JOB", "job", is_number=True),
    Column("STATE", "state", is_state=True),
    Column("NAME", "name", cut_to=4),
    Column("TASKS", "tasks", is_number=True),
    Column("WAITING", "waiting", is_number=True),
    Column("RUNNING", "running", is_number=True),
    Column("COMPLETE", "complete", is_number=True),
    Column("FAILED", "failed", is_number=True),
    Column("COMMAND", "command", cut_to=10),
)

TASK_COLUMNS = (
    Column("TASK", "task", is_number=True),
    Column("STATE", "state", is_state=True),
    Column("PRIORITY", "priority", lambda value: f"{value:g}", is_number=True),
    Column("HOST", "host", cut_to=6),
    Column("COMMAND", "command", cut_to=10),
    Column("CORES", "cores", show_cores, is_number=True),
    Column("MEMORY", "memory_mb", _amount, is_number=True),
    Column("DISK", "disk_mb", _amount, is_number=True),
    Column("GPUS", "gpus", _few, is_number=True),
)

WORKER_COLUMNS = (
    Column("WORKER", "worker", is_number=True),
    Column("STATE", "state", is_state=True),
    Column("HOST", "host", cut_to=8),
    Column("COMPLETED", "completed", is_number=True),
    Column("RUNNING", "running", is_number=True),
    Column("CORES", "cores_of", is_number=True),
    Column("MEMORY", "memory_of", is_number=True),
    Column("DISK", "disk_of", is_number=True),
    Column("GPUS", "gpus_of", is_number=True),
)


def with_use(fields: Fields) -> Fields:
    """Add to a worker's values what its table shows: used of all there is, "2/8"."""
    used, total = fields["committed"], fields["total"]
    return fields | {
        "cores_of": f"{show_cores(used['cores'])}/{show_cores(total['cores'])}",
        "memory_of": f"{_used(used['memory_mb'])}/{show_mb(total['memory_mb'])}",
        "disk_of": f"{_used(used['disk_mb'])}/{show_mb(total['disk_mb'])}",
        "gpus_of": f"{used['gpus']}/{total['gpus']}",
    }


def _used(size_mb: int) -> str:
    return show_mb(size_mb) if size_mb else "0"
