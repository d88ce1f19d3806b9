"""Views of the core, row by row."""

from support.manager_core import Bench, array_of

from wqueue.manager.core.events import Now
from wqueue.manager.report import COMMAND_SHOWN_BYTES, Facts, answer, needs_records
from wqueue.protocol.messages import CancelTasks, JobRange, JobSpec, Query, TaskTemplate

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


def test_long_commands_are_cut_in_listings_of_several_and_whole_in_those_of_one() -> None:
    bench = Bench()
    spec = JobSpec(TaskTemplate([b"echo", b"{#}" * 50_000], is_array=True), count=2)
    first, _ = bench.submit(spec), bench.submit(spec)
    core, now = bench.core, Now(1.0, 1.0)

    jobs = answer(core, FACTS, Query(1, "jobs"), now).jobs
    assert [len(row.command) for row in jobs] == [COMMAND_SHOWN_BYTES + 3] * 2
    tasks = answer(core, FACTS, Query(1, "tasks", [JobRange(first)]), now).tasks
    assert tasks[1].command == b"echo " + b"1" * 165 + b"..."

    (job,) = answer(core, FACTS, Query(1, "jobs", [JobRange(first)]), now).jobs
    assert job.command == b"echo " + b"{#}" * 50_000
    (task,) = answer(core, FACTS, Query(1, "tasks", [JobRange(first, 1, 1)]), now).tasks
    assert task.command == b"echo " + b"1" * 50_000


def test_a_short_command_is_listed_as_it_is() -> None:
    bench = Bench()
    bench.submit(array_of(2))
    tasks = answer(bench.core, FACTS, Query(1, "tasks"), Now(1.0, 1.0)).tasks
    assert [row.command for row in tasks] == [b"work 0", b"work 1"]


def test_sums_over_all_jobs_follow_what_ends_and_what_comes() -> None:
    bench = Bench()
    core = bench.core
    first, second = bench.submit(array_of(3)), bench.submit(array_of(4))

    def queue() -> tuple[int, int, int, int]:
        row = answer(core, FACTS, Query(1, "queue"), Now(1.0, 1.0)).queue
        assert row is not None
        return row.jobs, row.jobs_active, row.counts.ready, row.counts.canceled

    def active() -> list[int]:
        view = answer(core, FACTS, Query(1, "jobs", active_only=True), Now(1.0, 1.0))
        return [row.job for row in view.jobs]

    assert (queue(), active()) == ((2, 2, 7, 0), [first, second])
    bench.ask(CancelTasks(1, [JobRange(first)]))
    assert (queue(), active()) == ((2, 1, 4, 3), [second])
    third = bench.submit(array_of(2))
    assert (queue(), active()) == ((3, 2, 6, 3), [second, third])
    assert answer(core, FACTS, Query(1, "tasks"), Now(1.0, 1.0)).total == 9
