"""Numbers in rows: what `--array` means, and many indexes on one line."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from wqueue.protocol.errors import UsageError
from wqueue.protocol.limits import TASKS_PER_JOB_MAX

_RANGE = re.compile(r"(\d{1,18})-(\d{1,18})(?::(\d{1,18}))?", re.ASCII)
_COUNT = re.compile(r"\d{1,18}", re.ASCII)


class IndexRange(NamedTuple):
    """As many numbers as `length` says: start, start + step, ..."""

    start: int
    step: int
    length: int


def parse_array(text: str) -> IndexRange:
    """Read what `--array` was given: `0-99`, `1-10:3` (1, 4, 7, 10), or N for 0 to N-1.

    Raises UsageError with a sentence.
    """
    if _COUNT.fullmatch(text):
        return _checked(text, IndexRange(0, 1, int(text)))
    found = _RANGE.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r} is no array; write 0-99, 1-10:3 or the number of tasks")
    first, last, step = int(found.group(1)), int(found.group(2)), int(found.group(3) or 1)
    if last < first:
        raise UsageError(f"the array {text!r} runs backwards; write {last}-{first}")
    if step == 0:
        raise UsageError(f"the array {text!r} has the step 0; a step is at least 1")
    return _checked(text, IndexRange(first, step, (last - first) // step + 1))


def _checked(text: str, given: IndexRange) -> IndexRange:
    if given.length == 0:
        raise UsageError(f"the array {text!r} has no tasks")
    if given.length > TASKS_PER_JOB_MAX:
        raise UsageError(
            f"the array {text!r} has {given.length} tasks; a job may have {TASKS_PER_JOB_MAX}"
        )
    return given


def compress(indexes: Iterable[int], parts_max: int = 12) -> str:
    """Write many indexes on one line: `0-4,7,9-11`, cut after `parts_max` parts."""
    spans: list[list[int]] = []
    for index in sorted(set(indexes)):
        if spans and index == spans[-1][1] + 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in spans]
    left = sum(last - first + 1 for first, last in spans[parts_max:])
    rest = f" and {left} more" if left else ""
    return ",".join(shown[:parts_max]) + rest
