from support.manager_core import CLIENT, Bench, array_of

from wqueue.manager.core.events import (
    ClientGone,
    JobAdded,
    JobEnded,
    JobSubmitted,
    StoreBlocked,
    StoreOpened,
    TaskEnded,
    Ticked,
)
from wqueue.protocol.codec import encode_spec
from wqueue.protocol.limits import OUTPUTS_MAX
from wqueue.protocol.messages import (
    Cancel,
    CancelTasks,
    Describe,
    Dispatch,
    Done,
    FileIdentity,
    FileRef,
    InputSpec,
    JobRange,
    JobSpec,
    OutputSpec,
    Progress,
    Refusal,
    Submitted,
    TaskTemplate,
    Watch,
)


def test_a_submission_is_acknowledged_behind_its_record() -> None:
    bench = Bench()
    bench.submit(array_of(3))
    assert bench.kinds() == ["JobAdded", "Submitted"]
    added, reply = bench.effects
    assert isinstance(added, JobAdded)
    assert getattr(reply, "after", None) == added.record


def test_a_repeated_submission_is_the_same_job() -> None:
    bench = Bench()
    first = bench.submit(array_of(3), submission=b"s" * 16)
    assert bench.submit(array_of(3), submission=b"s" * 16) == first
    assert not bench.all(JobAdded)
    assert [answer.is_repeat for answer in bench.replied(Submitted)] == [True]


def test_a_repeat_to_an_ended_job_tells_how_far_it_is() -> None:
    bench = Bench()
    bench.submit(array_of(1), submission=b"s" * 16)
    (attempt,) = bench.join(1)
    bench.finish(1, attempt)
    bench.submit(array_of(1), submission=b"s" * 16)
    assert [progress.is_ended for progress in bench.replied(Progress)] == [True]


def test_a_submission_id_used_for_another_description_is_a_conflict() -> None:
    bench = Bench()
    bench.submit(array_of(3), submission=b"s" * 16)
    bench.submit(array_of(4), submission=b"s" * 16)
    assert [refusal.code for refusal in bench.replied(Refusal)] == ["conflict"]
    assert len(bench.core.state.jobs) == 1


def test_senseless_descriptions_are_refused() -> None:
    senseless = [
        JobSpec(TaskTemplate([])),
        JobSpec(TaskTemplate([b""])),
        JobSpec(TaskTemplate([b"a\0b"])),
        JobSpec(TaskTemplate([b"a", b"b"], is_shell=True)),
        JobSpec(TaskTemplate([b"a"]), count=2),
        JobSpec(TaskTemplate([b"a"], is_array=True), count=3, items=[b"1", b"2"]),
        JobSpec(TaskTemplate([b"a"]), priority=float("nan")),
        JobSpec(TaskTemplate([b"a"], inputs=[InputSpec(b"x", 0)])),
        JobSpec(TaskTemplate([b"a"], inputs=[InputSpec(b"x", -1)])),
        JobSpec(TaskTemplate([b"a"], is_array=True), count=2, columns=[[0]]),
        JobSpec(TaskTemplate([b"a"]), columns=[[3]]),
        JobSpec(TaskTemplate([b"a"], outputs=[OutputSpec(b"../x")])),
        JobSpec(TaskTemplate([b"a"], outputs=[OutputSpec(b"/x")])),
        JobSpec(TaskTemplate([b"a"], outputs=[OutputSpec(b"x")] * (OUTPUTS_MAX + 1))),
    ]
    bench = Bench()
    for number, spec in enumerate(senseless):
        name = number.to_bytes(16, "big")
        bench.feed(
            JobSubmitted(CLIENT, b"owner", number, name, spec, encode_spec(spec), may_write=True)
        )
        assert bench.kinds() == ["Refusal"], spec
        assert bench.replied(Refusal)[0].code == "bad_spec"
    assert not bench.core.state.jobs


def test_a_full_store_refuses_submissions_until_there_is_room() -> None:
    bench = Bench()
    bench.join(1)
    bench.feed(StoreBlocked("disk full"))
    spec = array_of(1)
    event = JobSubmitted(CLIENT, b"owner", 1, b"s" * 16, spec, encode_spec(spec), True)
    bench.feed(event)
    assert [refusal.code for refusal in bench.replied(Refusal)] == ["store_full"]
    bench.feed(StoreOpened())
    bench.feed(event)
    assert "Submitted" in bench.kinds()
    assert len(bench.dispatched(1)) == 1


def test_nothing_is_dispatched_while_the_store_is_blocked() -> None:
    bench = Bench()
    bench.submit(array_of(2))
    bench.feed(StoreBlocked("disk full"))
    assert bench.join(1) == []
    bench.feed(StoreOpened())
    assert bench.dispatched(1)


def test_canceling_a_job_takes_one_record_and_stops_what_runs() -> None:
    bench = Bench()
    job = bench.submit(array_of(1_000_000))
    (running, queued) = bench.join(1)
    bench.ask(CancelTasks(5, [JobRange(job)]))
    assert [done.count for done in bench.replied(Done)] == [1_000_000]
    assert bench.one(JobEnded).is_canceled
    assert not bench.all(TaskEnded)
    assert [c.attempts for c in bench.sent(1, Cancel)] == [[running], [queued]]
    assert bench.finish(1, running)
    assert bench.acknowledged(1) == {running: "superseded"}


def test_canceling_some_tasks_leaves_the_others() -> None:
    bench = Bench()
    job = bench.submit(array_of(4))
    bench.ask(CancelTasks(5, [JobRange(job, 1, 2)]))
    assert [ended.index for ended in bench.all(TaskEnded)] == [1, 2]
    found = bench.core.job(job)
    assert found is not None
    assert found.shown_counts().ready == 2
    assert found.shown_counts().canceled == 2


def test_a_job_whose_tasks_were_canceled_one_by_one_ends() -> None:
    bench = Bench()
    job = bench.submit(array_of(2))
    bench.ask(CancelTasks(5, [JobRange(job, 0, 0)]))
    bench.ask(CancelTasks(6, [JobRange(job, 1, 1)]))
    assert not bench.one(JobEnded).is_canceled
    assert bench.replied(Progress)[-1].is_ended


def test_canceling_or_watching_a_job_that_is_not_there_is_refused() -> None:
    bench = Bench()
    bench.ask(CancelTasks(5, [JobRange(77)]))
    assert [refusal.code for refusal in bench.replied(Refusal)] == ["no_such_task"]
    bench.ask(Watch(6, [77]))
    assert [refusal.request for refusal in bench.replied(Refusal)] == [6]


def test_a_client_that_is_gone_is_told_nothing() -> None:
    bench = Bench()
    bench.submit(array_of(1))
    bench.feed(ClientGone(CLIENT))
    (attempt,) = bench.join(1)
    bench.finish(1, attempt)
    assert not bench.replied(Progress)


def test_a_job_that_no_message_can_describe_is_refused() -> None:
    bench = Bench()
    outputs = [OutputSpec(b"%0120d" % number) for number in range(9_000)]
    spec = JobSpec(TaskTemplate([b"a"], outputs=outputs))
    bench.feed(JobSubmitted(CLIENT, b"owner", 1, b"s" * 16, spec, encode_spec(spec), True))
    (refusal,) = bench.replied(Refusal)
    assert refusal.code == "bad_spec"
    assert "archive" in refusal.text


def test_workers_are_not_told_where_the_manager_reads_files() -> None:
    bench = Bench()
    place = FileIdentity(b"/home/ada/secret", 3, 1, 1)
    files = [FileRef(b"d" * 32, 3, in_place=place), FileRef(b"e" * 32, 3, in_place=place)]
    inputs = [InputSpec(b"a", 0), InputSpec(b"b", -1)]
    bench.submit(array_of(1, inputs=inputs, files=files, columns=[[1]]))
    bench.join(1)
    assert [ref.in_place for ref in bench.sent(1, Describe)[0].files] == [None]
    (assignment,) = bench.sent(1, Dispatch)[0].assignments
    assert assignment.column_files == [FileRef(b"e" * 32, 3)]


def test_a_range_without_tasks_cancels_nothing() -> None:
    bench = Bench()
    job = bench.submit(array_of(5))
    bench.ask(CancelTasks(5, [JobRange(job, 10**9, 5), JobRange(job, 1, 1)]))
    assert [done.count for done in bench.replied(Done)] == [1]


def test_many_tasks_are_canceled_in_steps() -> None:
    bench = Bench()
    job = bench.submit(array_of(5000))
    bench.ask(CancelTasks(5, [JobRange(job, 0, 3999)]))
    steps = 1
    while not bench.replied(Done):
        assert len(bench.all(TaskEnded)) <= 1000
        assert bench.core.deadline() is not None
        bench.feed(Ticked())
        steps += 1
    assert steps > 3
    assert [done.count for done in bench.replied(Done)] == [4000]
    found = bench.core.job(job)
    assert found is not None
    assert found.shown_counts().ready == 1000
