"""The values of an array: what its tasks differ in."""

import itertools
import os
from collections.abc import Iterable, Iterator

from msgspec import Struct

from wqueue.protocol.errors import UsageError
from wqueue.protocol.limits import NAME_MAX_BYTES, TASKS_PER_JOB_MAX
from wqueue.protocol.names import show

RANGE_CHECKED_MAX = 1000
"""How many tasks of a range have their names checked here: numbers are much alike, and a million
of them would take seconds. The worker checks every name again."""


class Array(Struct, frozen=True):
    """`count` tasks whose values are `items`, or without items the numbers from start by step."""

    count: int
    start: int = 0
    step: int = 1
    items: list[bytes] = []

    def value(self, index: int) -> bytes:
        """Give the value of one task."""
        return self.items[index] if self.items else b"%d" % (self.start + index * self.step)

    def values(self) -> Iterator[bytes]:
        """Give the value of every task in order."""
        if self.items:
            return iter(self.items)
        return (b"%d" % number for number in itertools.islice(self._numbers(), self.count))

    def checked(self) -> Iterator[tuple[int, bytes]]:
        """Give index and value of those tasks whose names are worth a look."""
        count = self.count if self.items else min(self.count, RANGE_CHECKED_MAX)
        return zip(range(count), self.values(), strict=False)

    def _numbers(self) -> Iterator[int]:
        return itertools.count(self.start, self.step)


def array_of(
    count: int | None, values: Iterable[str | bytes] | None, start: int, step: int
) -> Array:
    """Make the array a user asked for; exactly one of `count` and `values` must be given."""
    if values is not None:
        if count is not None or (start, step) != (0, 1):
            raise UsageError("an array has values, or a count with start and step, not both")
        return _array_of_items([os.fsencode(value) for value in values])
    if count is None:
        raise UsageError("an array needs values or a count")
    if not 1 <= count <= TASKS_PER_JOB_MAX:
        raise UsageError(f"an array has 1 to {TASKS_PER_JOB_MAX} tasks, not {count}")
    if step == 0 and count > 1:
        raise UsageError("the step of an array is 0: all its tasks would be the same")
    if max(abs(start), abs(start + step * (count - 1))) >= 2**63:
        raise UsageError("the numbers of the array are too large")
    return Array(count, start, step)


def _array_of_items(items: list[bytes]) -> Array:
    if not 1 <= len(items) <= TASKS_PER_JOB_MAX:
        raise UsageError(f"an array has 1 to {TASKS_PER_JOB_MAX} values, not {len(items)}")
    for index, item in enumerate(items):
        if len(item) > NAME_MAX_BYTES:
            raise UsageError(f"value {index} has {len(item)} bytes; {NAME_MAX_BYTES} are allowed")
        if b"\0" in item:
            raise UsageError(f"value {index}, {show(item)}, holds a NUL byte")
    return Array(len(items), items=items)
