"""Views of the core, row by row."""

from support.manager_core import Bench, array_of

from wqueue.manager.core.events import Now
from wqueue.manager.report import Facts, answer, needs_records
from wqueue.protocol.messages import JobRange, Query

FACTS = Facts("default", bytes(16), "here", 9123, "wqueue", 0.0, b"/state")
LAST = 2**63 - 1


def test_a_range_that_is_empty_has_no_rows_and_shifts_no_others() -> None:
    bench = Bench()
    job = bench.submit(array_of(10))
    ranges = [JobRange(job, 5, 2), JobRange(job, 10, LAST), JobRange(job, 3, 6)]
    view = answer(bench.core, FACTS, Query(1, "tasks", ranges), Now(1.0, 1.0))
    assert [row.index for row in view.tasks] == [3, 4, 5, 6]
    assert view.total == 4


def test_tasks_are_explained_by_what_they_wait_for() -> None:
    bench = Bench()
    job = bench.submit(array_of(2))
    query = Query(1, "explain", [JobRange(job, 1, 1)])
    view = answer(bench.core, FACTS, query, Now(1.0, 1.0))
    assert needs_records(bench.core, query) == [JobRange(job, 1, 1)]
    assert [(row.index, row.reason) for row in view.tasks] == [(1, "no worker is connected")]
