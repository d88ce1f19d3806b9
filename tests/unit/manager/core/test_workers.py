from support.manager_core import WALL_S, Bench, array_of

from wqueue.manager.core.events import (
    Announce,
    AttemptFailed,
    AttemptStarted,
    DropWorker,
    JobAdded,
    Restored,
    Resumed,
    Send,
    Stop,
    StopRequested,
    StoredJob,
    TaskEnded,
    TaskPublishing,
    Ticked,
    WorkerAdmitted,
    WorkerLeft,
    WorkerLost,
)
from wqueue.manager.core.limits import Settings
from wqueue.manager.core.submissions import job_uid
from wqueue.protocol import outcomes
from wqueue.protocol.attempts import pack_attempt
from wqueue.protocol.codec import encode_spec
from wqueue.protocol.messages import (
    Bye,
    Control,
    Describe,
    HeldAttempt,
    JobSpec,
    Leave,
    OutputResult,
    OutputSpec,
    Registered,
    Returned,
    Started,
    TakeBack,
    TaskRecord,
    TaskTemplate,
    WorkerHeartbeat,
)
from wqueue.protocol.resources import Resources

ONE = (1).to_bytes(16, "big")


def test_a_worker_is_told_that_it_is_admitted_behind_the_record() -> None:
    bench = Bench()
    bench.join(1)
    admitted = bench.one(WorkerAdmitted)
    (answer,) = bench.sent(1, Registered)
    assert answer.number == admitted.number == 1
    assert getattr(bench.effects[-1], "after", 0) == admitted.record


def test_a_dispatch_waits_for_the_record_of_its_job_and_not_for_its_own() -> None:
    bench = Bench()
    bench.join(1)
    bench.submit(array_of(1))
    added, started = bench.one(JobAdded), bench.one(AttemptStarted)
    gates = {type(send.message).__name__: send.after for send in bench.all(Send)}
    assert gates["Describe"] == gates["Dispatch"] == added.record < started.record


def test_a_job_is_described_once_per_session() -> None:
    bench = Bench()
    bench.submit(array_of(9))
    (first, _) = bench.join(1)
    assert len(bench.sent(1, Describe)) == 1
    bench.finish(1, first)
    assert bench.dispatched(1)
    assert not bench.sent(1, Describe)


def test_a_worker_gets_what_it_can_run_and_a_little_more() -> None:
    bench = Bench()
    bench.submit(array_of(50))
    assert len(bench.join(1, cores=4)) == 8


def test_short_tasks_are_held_ready_in_greater_number() -> None:
    bench = Bench()
    bench.submit(array_of(500))
    (first, *_) = bench.join(1)
    bench.finish(1, first, wall_s=0.001)
    assert len(bench.dispatched(1)) > 50


def test_a_task_goes_only_where_its_resources_and_features_are() -> None:
    bench = Bench()
    bench.submit(array_of(1, resources=Resources(1000, memory_mb=500)))
    bench.submit(array_of(1, features=["avx"]))
    assert bench.join(1) == []
    assert len(bench.join(2, features=["avx"])) == 1


def test_urgent_tasks_go_first() -> None:
    bench = Bench()
    bench.submit(array_of(5))
    urgent = bench.submit(array_of(1, priority=3.0))
    bench.join(1)
    started = bench.all(AttemptStarted)
    assert started[0].job == urgent


def test_a_lost_worker_is_waited_for_before_its_tasks_run_elsewhere() -> None:
    bench = Bench()
    bench.submit(array_of(1))
    (attempt,) = bench.join(1)
    bench.feed(WorkerLost(1))
    assert bench.join(2) == []
    bench.feed(Ticked(), later_s=14.0)
    assert not bench.all(AttemptFailed)
    bench.feed(Ticked(), later_s=1.0)
    assert bench.one(AttemptFailed).attempt == attempt
    assert bench.one(WorkerLeft).worker_id == ONE
    assert len(bench.dispatched(2)) == 1


def test_a_worker_that_comes_back_keeps_what_it_runs() -> None:
    bench = Bench()
    bench.submit(array_of(1))
    (attempt,) = bench.join(1)
    bench.feed(WorkerLost(1))
    bench.join(2, name=ONE, inventory=[HeldAttempt(attempt, "running", 3.0)])
    (answer,) = bench.sent(2, Registered)
    assert answer.adopted == [attempt]
    bench.finish(2, attempt)
    assert bench.one(TaskEnded).task.outcome == outcomes.SUCCEEDED


def test_a_dispatch_that_never_arrived_is_ready_again() -> None:
    bench = Bench()
    bench.submit(array_of(1))
    (lost,) = bench.join(1)
    bench.feed(WorkerLost(1))
    bench.join(2, name=ONE)
    assert bench.one(AttemptFailed).counts_as == ""
    (again,) = bench.dispatched(2)
    assert again != lost


def test_an_attempt_of_an_ended_task_is_not_wanted_any_more() -> None:
    bench = Bench()
    bench.submit(array_of(1))
    (attempt,) = bench.join(1)
    bench.finish(1, attempt)
    bench.feed(WorkerLost(1))
    bench.join(2, name=ONE, inventory=[HeldAttempt(attempt, "finished")])
    assert bench.sent(2, Registered)[0].unwanted == [attempt]


def test_a_running_attempt_that_comes_back_takes_back_the_copy_that_waits() -> None:
    bench = Bench()
    bench.submit(array_of(1))
    (first,) = bench.join(1)
    bench.feed(WorkerLost(1))
    bench.feed(Ticked(), later_s=60.0)
    (copy,) = bench.join(2)
    bench.join(3, name=ONE, inventory=[HeldAttempt(first, "running")])
    assert [t.attempts for t in bench.sent(2, TakeBack)] == [[copy]]
    bench.hear(2, Returned([copy], "taken_back"))
    assert not bench.dispatched(2)
    bench.finish(3, first)
    assert bench.one(TaskEnded).attempt == first


def test_a_newer_link_of_a_worker_replaces_the_older() -> None:
    bench = Bench()
    bench.join(1)
    bench.join(2, name=ONE)
    assert bench.one(DropWorker).session == 1
    assert not bench.all(WorkerAdmitted)


def test_a_task_that_loses_its_workers_again_and_again_fails_in_the_end() -> None:
    bench = Bench()
    bench.submit(array_of(1))
    for session in range(1, 7):
        assert len(bench.join(session)) == 1
        bench.feed(WorkerLost(session))
        bench.feed(Ticked(), later_s=60.0)
    task = bench.one(TaskEnded).task
    assert task.outcome == outcomes.WORKER_LOST
    assert task.tries == 6
    assert "host6" in task.text


def test_a_silent_worker_is_cut_off() -> None:
    bench = Bench()
    bench.join(1)
    bench.feed(Ticked(), later_s=20.0)
    bench.hear(1, WorkerHeartbeat())
    bench.feed(Ticked(), later_s=20.0)
    assert not bench.all(DropWorker)
    bench.feed(Ticked(), later_s=15.0)
    assert bench.one(DropWorker).session == 1


def test_limits_begin_anew_when_the_loop_stood_still() -> None:
    bench = Bench()
    bench.join(1)
    bench.feed(Resumed(), later_s=3600.0)
    bench.feed(Ticked(), later_s=1.0)
    assert not bench.all(DropWorker)


def test_a_worker_that_says_goodbye_leaves_nothing_behind() -> None:
    bench = Bench()
    bench.submit(array_of(1))
    (attempt,) = bench.join(1)
    bench.hear(1, Returned([attempt], "leaving"))
    bench.hear(1, Bye("leaving"))
    assert bench.one(WorkerLeft).worker_id == ONE
    (again,) = bench.join(2)
    assert again != attempt


def test_a_leaving_worker_is_given_nothing_more() -> None:
    bench = Bench()
    bench.submit(array_of(3))
    (running, waiting) = bench.join(1)
    bench.hear(1, Returned([waiting], "leaving"))
    assert not bench.dispatched(1)
    bench.finish(1, running)
    assert not bench.dispatched(1)
    bench.feed(WorkerLost(1))
    assert len(bench.join(2, name=ONE)) == 2


def test_returned_attempts_do_not_count() -> None:
    bench = Bench()
    bench.submit(array_of(1))
    (attempt,) = bench.join(1)
    for _ in range(20):
        bench.hear(1, Returned([attempt], "does_not_matter"))
        (attempt,) = bench.dispatched(1)
    bench.finish(1, attempt)
    assert bench.one(TaskEnded).task.outcome == outcomes.SUCCEEDED


def test_what_waits_at_a_busy_worker_is_taken_back_for_an_idle_one() -> None:
    bench = Bench()
    bench.submit(array_of(2))
    (running, waiting) = bench.join(1)
    bench.hear(1, Started([running]))
    bench.join(2)
    assert [t.attempts for t in bench.sent(1, TakeBack)] == [[waiting]]
    bench.hear(1, Returned([waiting], "taken_back"))
    assert len(bench.dispatched(2)) == 1


def test_no_more_is_asked_back_than_idle_workers_can_take() -> None:
    bench = Bench()
    bench.submit(array_of(9))
    bench.join(1, cores=4)
    bench.join(2)
    bench.hear(1, WorkerHeartbeat())
    bench.join(3)
    asked = [t.attempts for t in bench.sent(1, TakeBack)]
    assert len(asked) == 1
    bench.hear(1, WorkerHeartbeat())
    assert not bench.sent(1, TakeBack)


def test_a_task_that_was_asked_back_and_has_begun_stays_where_it_is() -> None:
    bench = Bench()
    bench.submit(array_of(2))
    (running, waiting) = bench.join(1)
    bench.join(2)
    bench.finish(1, running)
    bench.hear(1, Started([waiting]))
    bench.finish(1, waiting)
    assert bench.one(TaskEnded).attempt == waiting


def test_shutdown_sends_the_workers_home_and_ends() -> None:
    bench = Bench()
    bench.join(1)
    bench.ask(Control(3, "shutdown"))
    assert bench.one(Announce).is_final
    assert bench.sent(1, Leave)
    assert bench.one(Stop).is_final


def test_a_stop_for_a_restart_leaves_the_workers_running() -> None:
    bench = Bench()
    bench.join(1)
    bench.feed(StopRequested(is_final=False))
    assert not bench.sent(1, Leave)
    assert not bench.one(Stop).is_final


# --- after a start ------------------------------------------------------------------------------

SPEC = JobSpec(TaskTemplate([b"work"], is_array=True, outputs=[OutputSpec(b"o")]), count=3)
UID = job_uid(b"owner", b"s" * 16)


def _restored(**changes: object) -> Restored:
    added = JobAdded(0, 1, UID, b"owner", b"s" * 16, encode_spec(SPEC), 1.0, may_write=True)
    fields: dict[str, object] = {
        "epoch": 7,
        "next_job": 2,
        "next_worker": 2,
        "jobs": [StoredJob(added, ended=[1])],
        "attempts": [],
        "publishing": [],
        "workers": [WorkerAdmitted(0, ONE, 1, "host1", WALL_S + 90.0)],
    }
    return Restored(**{**fields, **changes})  # type: ignore[arg-type]


def test_old_tasks_wait_for_the_known_workers_and_new_ones_do_not() -> None:
    bench = Bench(_restored())
    assert bench.join(5) == []
    bench.submit(array_of(1))
    assert len(bench.dispatched(5)) == 1


def test_an_idle_worker_from_long_ago_holds_nobody_up() -> None:
    bench = Bench(_restored(workers=[WorkerAdmitted(0, ONE, 1, "host1", WALL_S)]))
    assert len(bench.join(5)) == 2


def test_old_tasks_go_when_the_known_workers_are_back() -> None:
    bench = Bench(_restored())
    assert len(bench.join(5, name=ONE)) == 2
    assert {a.index for a in bench.all(AttemptStarted)} == {0, 2}


def test_old_tasks_go_when_the_wait_is_over() -> None:
    bench = Bench(_restored(), Settings(reattach_wait_s=30.0))
    bench.join(5)
    bench.feed(Ticked(), later_s=29.0)
    bench.hear(5, WorkerHeartbeat())
    assert not bench.dispatched(5)
    bench.feed(Ticked(), later_s=2.0)
    assert bench.dispatched(5)


def test_an_attempt_whose_record_was_lost_is_adopted() -> None:
    bench = Bench(_restored())
    unrecorded = pack_attempt(UID, 2, 6, 99)
    bench.join(5, name=ONE, inventory=[HeldAttempt(unrecorded, "running")])
    assert bench.sent(5, Registered)[0].adopted == [unrecorded]
    bench.finish(5, unrecorded, outcomes.EXIT_NONZERO)
    assert bench.one(TaskEnded).index == 2


def test_a_result_that_outlived_its_worker_is_taken_from_the_next_one() -> None:
    started = AttemptStarted(0, pack_attempt(UID, 0, 6, 1), 1, 0, ONE, 1, 1.0)
    bench = Bench(_restored(attempts=[started]))
    bench.join(5, inventory=[HeldAttempt(started.attempt, "finished")])
    bench.finish(5, started.attempt, outcomes.EXIT_NONZERO)
    assert bench.one(TaskEnded).index == 0
    assert bench.acknowledged(5) == {started.attempt: "recorded"}


def test_publishing_that_was_interrupted_is_repeated() -> None:
    attempt = pack_attempt(UID, 0, 6, 1)
    task = TaskRecord(1, 0, 0, outcomes.SUCCEEDED, outputs=[OutputResult(0, 3, digest=b"d" * 32)])
    bench = Bench(_restored(publishing=[TaskPublishing(0, attempt, 1, 0, task)]))
    assert "PublishOutputs" in bench.kinds()


def test_numbers_go_on_where_they_were() -> None:
    bench = Bench(_restored())
    assert bench.submit(array_of(1)) == 2
    bench.join(5)
    assert bench.one(WorkerAdmitted).number == 2


def test_the_epoch_makes_new_attempts_unlike_old_ones() -> None:
    bench = Bench(_restored())
    first, *_ = bench.join(5, name=ONE)
    assert first == pack_attempt(UID, 0, 7, 1)
