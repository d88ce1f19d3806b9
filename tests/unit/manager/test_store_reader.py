import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.journal import Journal, attempt, record

from wqueue.manager.core.events import (
    TaskEnded,
)
from wqueue.manager.store import StoreReader
from wqueue.manager.store_reader import RESULTS_BYTES_MAX
from wqueue.protocol.messages import (
    AttemptResult,
    JobRange,
)


def read(path: Path, calls: Sequence[tuple[int, int]]) -> list[list[int]]:
    reader = StoreReader(path)
    answers = [[r.event for r in reader.results(1, *call)] for call in calls]
    reader.close()
    return answers


def test_results_come_after_the_cursor_in_order_of_their_events(journal: Journal) -> None:
    j = journal
    j.commit(j.job(), *(j.ended(9 - i, i + 1) for i in range(10)))
    assert read(j.path, [(0, 3), (3, 100), (10, 5)]) == [[1, 2, 3], [4, 5, 6, 7, 8, 9, 10], []]


def test_results_are_bounded_in_bytes_but_never_stuck(journal: Journal) -> None:
    j = journal
    j.commit(j.job())
    for i in range(30):
        task = record(i, i + 1, stdout=b"z" * 32_000)
        j.commit(TaskEnded(j.next(), attempt(i), 1, i, task))
    reader = StoreReader(j.path)
    seen: list[int] = []
    calls = 0
    while answer := reader.results(1, seen[-1] if seen else 0, 1000):
        assert sum(len(r.outputs[0].inline or b"") for r in answer) <= RESULTS_BYTES_MAX
        seen += [r.event for r in answer]
        calls += 1
    reader.close()
    assert seen == list(range(1, 31))
    assert calls == 2


def test_records_are_chosen_by_ranges(journal: Journal) -> None:
    j = journal
    j.commit(j.job(), *(j.ended(9 - i, i + 1) for i in range(10)))
    reader = StoreReader(j.path)
    chosen = reader.records([JobRange(1, 7), JobRange(1, 0, 1), JobRange(2)], 4)
    limited = reader.records([JobRange(1)], 3)
    reader.close()
    assert [r.index for r in chosen] == [7, 8, 9, 0]
    assert [r.index for r in limited] == [0, 1, 2]


def test_attempts_of_a_task_are_kept_as_history(journal: Journal) -> None:
    j = journal
    j.commit(j.job(), j.started(0), j.failed(0, "failure"), j.started(0, number=2))
    reader = StoreReader(j.path)
    first, second = reader.attempts(1, 0)
    reader.close()
    assert (first.attempt, first.worker, first.counts_as) == (attempt(0), 3, "failure")
    assert first.result == AttemptResult(attempt(0), "exit_nonzero", 2)
    assert (second.attempt, second.result) == (attempt(0, 2), None)


def test_a_reader_cannot_write_and_sees_each_commit(journal: Journal) -> None:
    j = journal
    j.commit(j.job())
    reader = StoreReader(j.path)
    assert reader.results(1, 0, 10) == []
    j.commit(j.ended(0, 1))
    assert len(reader.results(1, 0, 10)) == 1
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._connection.execute("DELETE FROM ended")
    reader.close()
