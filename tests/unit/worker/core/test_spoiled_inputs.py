"""Cached inputs that a task has changed: nobody begins with them any more."""

from support.worker_core import Bench, attempt_id, dispatch, file_ref, live_bench, one_job, only

from wqueue.protocol.messages import Cancel, Leave, Returned, Started
from wqueue.worker.core.events import (
    DropFetch,
    Effect,
    Evict,
    Fetch,
    FilesCached,
    FileSpoiled,
    Kill,
    NotStarted,
    SendTask,
    Start,
    StopRequested,
    Ticked,
)

A, B, C = attempt_id(0), attempt_id(1), attempt_id(2)
IN = file_ref("in").digest
ALSO = file_ref("also").digest


def bench_that_runs(*indexes: int, files: tuple[str, ...] = ("in",)) -> Bench:
    """Give a core with room for two that was sent these tasks and has their inputs."""
    bench = live_bench()
    bench.hear(one_job(files=files), dispatch(*indexes))
    bench.feed(FilesCached([(file_ref(name).digest, 10) for name in files]))
    return bench


def started(effects: list[Effect]) -> list[bytes]:
    return [effect.attempt for effect in effects if isinstance(effect, Start)]


def test_a_spoiled_file_is_evicted_and_fetched_again_for_those_that_wait() -> None:
    bench = bench_that_runs(0, 1, 2)
    assert bench.feed(FileSpoiled(IN)) == [Evict([IN]), Fetch(IN, 10)]
    assert started(bench.end(A)) == []
    assert started(bench.feed(FilesCached([(IN, 10)]))) == [C]


def test_those_that_run_with_a_spoiled_file_are_left_alone() -> None:
    bench = bench_that_runs(0, 1)
    assert bench.feed(FileSpoiled(IN)) == [Evict([IN])]
    assert bench.core.statistics().cache.files == 0
    bench.end(A)
    assert bench.hear(dispatch(2)) == [Fetch(IN, 10)]
    bench.feed(FilesCached([(IN, 10)]))
    bench.end(B, C)
    assert bench.core.statistics().cache.file_bytes == 10


def test_a_spoiled_file_that_nobody_uses_is_fetched_by_its_next_user() -> None:
    bench = bench_that_runs(0)
    bench.end(A)
    assert bench.feed(FileSpoiled(IN)) == [Evict([IN])]
    assert bench.hear(dispatch(1)) == [Fetch(IN, 10)]


def test_the_same_file_is_spoiled_once_until_it_has_come_again() -> None:
    bench = bench_that_runs(0, 1, 2)
    bench.feed(FileSpoiled(IN))
    assert bench.feed(FileSpoiled(IN)) == []
    assert bench.feed(FileSpoiled(b"never seen")) == []


def test_one_that_was_not_started_waits_again_and_begins_in_its_turn() -> None:
    bench = bench_that_runs(0, 1, 2)
    assert started(bench.end(A)) == [C]
    assert bench.feed(FileSpoiled(IN)) == [Evict([IN])]
    assert bench.feed(NotStarted(C)) == [Fetch(IN, 10)]
    assert bench.core.statistics().attempts.queued == 1
    assert started(bench.feed(FilesCached([(IN, 10)]))) == [C]


def test_two_that_were_not_started_wait_for_one_fetch() -> None:
    bench = bench_that_runs(0, 1, files=("in", "also"))
    bench.feed(FileSpoiled(IN))
    assert bench.feed(NotStarted(A)) == [Fetch(IN, 10)]
    bench.feed(FileSpoiled(IN))
    assert bench.feed(NotStarted(B)) == []
    assert started(bench.feed(FilesCached([(IN, 10)]))) == [A, B]


def test_one_that_was_not_started_leaves_its_room_and_gpus_to_others() -> None:
    bench = bench_that_runs(0, 1)
    other = b"K" * 16
    assert started(bench.hear(one_job(uid=other), dispatch(0, uid=other))) == []
    bench.feed(FileSpoiled(IN))
    assert started(bench.feed(NotStarted(B))) == [attempt_id(0, uid=other)]


def test_one_that_was_not_started_is_told_as_started_once_when_it_was() -> None:
    bench = bench_that_runs(0)
    bench.feed(FileSpoiled(IN))
    bench.feed(NotStarted(A))
    bench.now_s += 0.05
    bench.feed(FilesCached([(IN, 10)]))
    bench.now_s += 0.06
    assert only(SendTask, bench.feed(Ticked())) == []
    bench.now_s += 0.05
    assert bench.feed(Ticked()) == [SendTask(1, Started([A]))]


def test_one_that_is_killed_before_it_was_not_started_is_gone() -> None:
    bench = bench_that_runs(0, 1)
    bench.feed(FileSpoiled(IN))
    assert bench.hear(Cancel([A])) == [Kill(A, 5.0)]
    assert bench.feed(NotStarted(A)) == []
    assert bench.feed(NotStarted(A)) == []
    assert bench.core.statistics().attempts.running == 1


def test_a_worker_that_leaves_gives_back_what_was_not_started() -> None:
    for event in (None, StopRequested("SIGTERM")):
        bench = bench_that_runs(0, 1)
        bench.feed(FileSpoiled(IN))
        if event is None:
            bench.hear(Leave("enough", finish_running=True))
        else:
            bench.feed(event)
        assert bench.feed(NotStarted(A))[-1:] == [SendTask(1, Returned([A], "leaving"))]


def test_what_waits_for_a_spoiled_file_and_is_canceled_stops_the_fetch() -> None:
    bench = bench_that_runs(0, 1, 2)
    bench.feed(FileSpoiled(IN))
    assert bench.hear(Cancel([C])) == [DropFetch(IN)]


def test_those_behind_one_whose_input_was_spoiled_begin_in_their_order() -> None:
    bench = live_bench()
    one, two, three = b"1" * 16, b"2" * 16, b"3" * 16
    bench.hear(one_job(cores=2), dispatch(0))
    bench.hear(one_job(cores=2, uid=one, files=("in",)), dispatch(0, uid=one))
    bench.hear(one_job(cores=2, uid=two, files=("also",)), dispatch(0, uid=two))
    bench.hear(one_job(cores=2, uid=three), dispatch(0, uid=three))
    bench.feed(FilesCached([(ALSO, 10)]))
    bench.feed(FilesCached([(IN, 10)]))
    bench.feed(FileSpoiled(IN))
    assert started(bench.end(A)) == [attempt_id(0, uid=two)]


def test_other_inputs_are_kept() -> None:
    bench = bench_that_runs(0, 1, 2, files=("in", "also"))
    assert bench.feed(FileSpoiled(IN)) == [Evict([IN]), Fetch(IN, 10)]
    assert bench.core.statistics().cache.files == 1
    assert bench.feed(FileSpoiled(ALSO)) == [Evict([ALSO]), Fetch(ALSO, 10)]
    bench.end(A, B)
    bench.feed(FilesCached([(IN, 10)]))
    assert started(bench.feed(FilesCached([(ALSO, 10)]))) == [C]
