"""Failed tasks as people see them: the first few, each with the end of its stderr."""

import tempfile
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from wqueue.cli.output import coloured, one_line
from wqueue.cli.views import Fields, describe_end, find_output, is_failure, record_fields
from wqueue.protocol.errors import WqueueError
from wqueue.protocol.messages import STDERR, TaskRecord

if TYPE_CHECKING:
    from wqueue.client import Client

SHOWN_MAX = 5
"""Failures shown in full; the others are counted."""

TAIL_LINES = 5
"""Last lines shown of what a task printed."""

TAIL_BYTES = 16 * 1024
"""No more than this is looked at for them."""

FETCH_MAX_BYTES = 16 * 1024 * 1024
"""Larger outputs are not fetched for a few lines."""

SCAN_MAX = 20_000
"""Records looked through for failures; beyond, only those found are shown."""


class Failure(NamedTuple):
    """A failed task and the last lines of its stderr."""

    record: TaskRecord
    tail: list[str]


def find_failures(client: "Client", jobs: Sequence[int], failed: int) -> list[TaskRecord]:
    """Look through the records of ended tasks until all `failed` failures are found."""
    if not failed:
        return []
    records = islice(client.results(jobs, follow=False), SCAN_MAX)
    return list(islice((record for record in records if is_failure(record)), failed))


def with_tails(client: "Client", records: Iterable[TaskRecord]) -> list[Failure]:
    """Give the first few failures with the ends of their stderr."""
    return [
        Failure(record, tail_of(client, record, STDERR)) for record in islice(records, SHOWN_MAX)
    ]


def tail_of(client: "Client", record: TaskRecord, position: int) -> list[str]:
    """Give the last lines of what a task printed, or one line that says why not."""
    output = find_output(record, position)
    if output is None or not output.size:
        return []
    if output.inline is not None:
        return last_lines(output.inline)
    if output.size > FETCH_MAX_BYTES:
        return [f"({output.size} bytes, too many to show)"]
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "output"
            client.output(record, position, to=path)
            return last_lines(_end_of(path))
    except (WqueueError, OSError) as error:
        return [f"(not to be had: {error})"]


def _end_of(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return file.read()


def last_lines(content: bytes, count: int = TAIL_LINES) -> list[str]:
    """Give the last lines of `content`, with control characters as escapes."""
    text = content[-TAIL_BYTES:].decode("utf-8", "backslashreplace")
    lines = [line for line in text.split("\n") if line.strip()]
    return [one_line(line.rstrip("\r").expandtabs()) for line in lines[-count:]]


def failure_lines(failures: Sequence[Failure], failed: int) -> list[str]:
    """Lay out failures and say how many there are in all."""
    lines = []
    for record, tail in failures:
        where = f" on {record.host}" if record.host else ""
        task = coloured(f"task {record.job}.{record.index} failed", "failed")
        lines.append(f"{task}{where}: {outcome_line(record)}")
        lines += [f"  | {line}" for line in tail]
    if failed > len(failures):
        lines.append(f"{count_of_tasks(failed)} failed ({len(failures)} shown)")
    elif failed > 1:
        lines.append(f"{count_of_tasks(failed)} failed")
    return lines


def outcome_line(record: TaskRecord) -> str:
    """Say in one line how a task ended, the outcome's word included."""
    return one_line(f"{describe_end(record)} ({record.outcome})")


def failure_fields(failures: Sequence[Failure]) -> list[Fields]:
    """Give failures as plain values."""
    return [{**record_fields(record), "stderr_tail": tail} for record, tail in failures]


def count_of_tasks(number: int) -> str:
    """Say a number of tasks."""
    return f"{number} task{'' if number == 1 else 's'}"
