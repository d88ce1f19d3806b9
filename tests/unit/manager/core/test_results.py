import pytest
from support.manager_core import Bench, array_of

from wqueue.manager.core.events import (
    AttemptFailed,
    DiscardOutputs,
    OutputsPublished,
    OutputsStaged,
    PublishOutputs,
    StageOutputs,
    TaskEnded,
    TaskPublishing,
    Ticked,
    WorkerLost,
)
from wqueue.protocol import outcomes
from wqueue.protocol.attempts import pack_attempt
from wqueue.protocol.messages import (
    STDOUT,
    AttemptResult,
    Cancel,
    CancelTasks,
    HeldAttempt,
    JobRange,
    OutputResult,
    OutputSpec,
    Progress,
    Result,
)

SMALL = OutputResult(0, 3, inline=b"abc", digest=b"d" * 32)
LARGE = OutputResult(0, 10**6, digest=b"d" * 32)
ONE_OUTPUT = [OutputSpec(b"out", b"/data/{}.out")]


def _running(bench: Bench, **spec: object) -> bytes:
    bench.submit(array_of(1, **spec))
    (attempt,) = bench.join(1)
    return attempt


def test_a_result_without_outputs_takes_one_record_and_is_acknowledged_behind_it() -> None:
    bench = Bench()
    attempt = _running(bench)
    bench.finish(1, attempt)
    assert bench.kinds() == ["TaskEnded", "JobEnded", "ResultAck", "Progress"]
    ended = bench.one(TaskEnded)
    assert all(getattr(effect, "after", 10**9) >= ended.record for effect in bench.effects[2:])
    assert bench.acknowledged(1) == {attempt: "recorded"}
    assert ended.task.outcome == outcomes.SUCCEEDED
    assert (ended.task.event, ended.task.tries, ended.task.host) == (1, 1, "host1")


def test_a_repeated_result_is_recorded_once() -> None:
    bench = Bench()
    attempt = _running(bench)
    bench.finish(1, attempt)
    bench.finish(1, attempt)
    assert bench.kinds() == ["ResultAck"]
    assert bench.acknowledged(1) == {attempt: "superseded"}


def test_a_result_of_an_unknown_job_is_kept_by_the_worker() -> None:
    bench = Bench()
    bench.join(1)
    stranger = pack_attempt(b"?" * 16, 0, 1, 1)
    bench.finish(1, stranger)
    assert bench.acknowledged(1) == {stranger: "unknown"}


def test_outputs_are_staged_then_published_then_the_task_ends() -> None:
    bench = Bench()
    attempt = _running(bench, outputs=ONE_OUTPUT)
    bench.finish(1, attempt, outputs=[SMALL])
    (staged,) = bench.one(StageOutputs).outputs
    assert (staged.destination, staged.inline) == (b"/data/0.out", b"abc")
    assert not bench.acknowledged(1)
    bench.feed(OutputsStaged(attempt))
    publishing = bench.one(TaskPublishing)
    assert bench.one(PublishOutputs).after == publishing.record
    assert publishing.task.outputs[0].inline is None
    bench.feed(OutputsPublished(attempt))
    assert bench.one(TaskEnded).task.event == 1
    assert bench.acknowledged(1) == {attempt: "recorded"}


def test_what_was_printed_stays_in_the_record_and_declared_outputs_do_not() -> None:
    bench = Bench()
    attempt = _running(bench)
    printed = OutputResult(STDOUT, 3, inline=b"hi\n")
    bench.finish(1, attempt, outputs=[printed])
    assert bench.one(TaskEnded).task.outputs == [printed]


def test_an_output_that_cannot_be_written_fails_the_task_and_says_why() -> None:
    bench = Bench()
    attempt = _running(bench, outputs=ONE_OUTPUT)
    bench.finish(1, attempt, outputs=[SMALL])
    bench.feed(OutputsStaged(attempt, "cannot write /data: permission denied"))
    task = bench.one(TaskEnded).task
    assert task.outcome == outcomes.OUTPUT_FAILED
    assert "permission denied" in task.text
    assert bench.one(DiscardOutputs).attempt == attempt


def test_a_full_disk_makes_the_outputs_wait_and_try_again() -> None:
    bench = Bench()
    attempt = _running(bench, outputs=ONE_OUTPUT)
    bench.finish(1, attempt, outputs=[SMALL])
    bench.feed(OutputsStaged(attempt, "no space left", is_temporary=True))
    assert not bench.all(TaskEnded)
    deadline = bench.core.deadline()
    assert deadline is not None
    bench.feed(Ticked(), later_s=10.0)
    assert bench.one(StageOutputs).attempt == attempt
    bench.feed(OutputsStaged(attempt))
    bench.feed(OutputsPublished(attempt, "no space left", is_temporary=True))
    assert not bench.all(TaskEnded)
    bench.feed(Ticked(), later_s=10.0)
    bench.one(PublishOutputs)
    bench.feed(OutputsPublished(attempt))
    assert bench.one(TaskEnded).task.outcome == outcomes.SUCCEEDED


def test_a_failure_is_final_unless_retries_are_asked_for() -> None:
    bench = Bench()
    attempt = _running(bench)
    bench.finish(1, attempt, outcomes.EXIT_NONZERO)
    assert bench.one(TaskEnded).task.outcome == outcomes.EXIT_NONZERO


def test_a_failure_is_tried_again_as_often_as_asked() -> None:
    bench = Bench()
    attempt = _running(bench, max_retries=2)
    for _ in range(2):
        bench.finish(1, attempt, outcomes.EXIT_NONZERO)
        assert bench.one(AttemptFailed).counts_as == "failure"
        assert bench.acknowledged(1) == {attempt: "recorded"}
        (attempt,) = bench.dispatched(1)
    bench.finish(1, attempt, outcomes.EXIT_NONZERO)
    assert bench.one(TaskEnded).task.tries == 3


def test_a_failure_of_the_worker_is_tried_again_without_being_asked() -> None:
    bench = Bench()
    attempt = _running(bench)
    for _ in range(5):
        bench.finish(1, attempt, outcomes.SANDBOX_FAILED)
        assert bench.one(AttemptFailed).counts_as == "lost"
        (attempt,) = bench.dispatched(1)
    bench.finish(1, attempt, outcomes.SANDBOX_FAILED)
    assert bench.one(TaskEnded).task.outcome == outcomes.SANDBOX_FAILED


def test_a_missing_input_is_not_tried_again() -> None:
    bench = Bench()
    attempt = _running(bench, max_retries=2)
    bench.finish(1, attempt, outcomes.INPUT_MISSING)
    assert bench.one(TaskEnded).task.outcome == outcomes.INPUT_MISSING


def test_events_count_the_ends_of_tasks_even_when_publishing_takes_long() -> None:
    bench = Bench()
    bench.submit(array_of(1, outputs=ONE_OUTPUT))
    (slow,) = bench.join(1)
    bench.finish(1, slow, outputs=[SMALL])
    bench.feed(OutputsStaged(slow))
    bench.submit(array_of(2))
    (quick, _) = bench.dispatched(1)
    bench.finish(1, quick)
    assert bench.one(TaskEnded).task.event == 1
    bench.feed(OutputsPublished(slow))
    assert bench.one(TaskEnded).task.event == 1
    assert bench.replied(Progress)[-1].events == 1


@pytest.mark.parametrize(
    ("outputs", "outcome", "part"),
    [
        ([], outcomes.SUCCEEDED, "without all its outputs"),
        ([OutputResult(5, 1, inline=b"x")], outcomes.SUCCEEDED, "output 5 of 1"),
        ([SMALL, SMALL], outcomes.SUCCEEDED, "twice"),
        ([OutputResult(0, 9, inline=b"abc")], outcomes.SUCCEEDED, "another size"),
        ([OutputResult(0, 9)], outcomes.SUCCEEDED, "without content or digest"),
        ([SMALL], "marvellous", "unknown outcome"),
    ],
)
def test_an_impossible_result_fails_the_task_and_hurts_nobody(
    outputs: list[OutputResult], outcome: str, part: str
) -> None:
    bench = Bench()
    attempt = _running(bench, outputs=ONE_OUTPUT)
    bench.hear(1, Result([AttemptResult(attempt, outcome, 0, outputs=outputs)]))
    task = bench.one(TaskEnded).task
    assert task.outcome == outcomes.OUTPUT_FAILED
    assert part in task.text


def test_the_first_valid_result_wins_and_the_other_attempt_is_canceled() -> None:
    bench = Bench()
    first = _running(bench)
    bench.feed(WorkerLost(1))
    bench.feed(Ticked(), later_s=60.0)
    assert bench.one(AttemptFailed).counts_as == "lost"
    (second,) = bench.join(2)
    bench.join(3, name=(1).to_bytes(16, "big"), inventory=[HeldAttempt(first, "finished")])
    bench.finish(3, first)
    assert bench.one(TaskEnded).attempt == first
    assert [c.attempts for c in bench.sent(2, Cancel)] == [[second]]
    bench.finish(2, second)
    assert bench.acknowledged(2) == {second: "superseded"}


def test_of_two_finished_attempts_the_second_waits_for_the_first_to_be_staged() -> None:
    bench = Bench()
    first = _running(bench, outputs=ONE_OUTPUT)
    bench.feed(WorkerLost(1))
    bench.feed(Ticked(), later_s=60.0)
    (second,) = bench.join(2)
    bench.join(3, name=(1).to_bytes(16, "big"), inventory=[HeldAttempt(first, "finished")])
    bench.finish(3, first, outputs=[LARGE])
    assert bench.one(StageOutputs).attempt == first
    bench.finish(2, second, outputs=[LARGE])
    assert not bench.all(StageOutputs)
    bench.feed(OutputsStaged(first, "its digest is wrong", is_worker_at_fault=True))
    assert bench.one(StageOutputs).attempt == second
    bench.feed(OutputsStaged(second))
    bench.feed(OutputsPublished(second))
    assert bench.one(TaskEnded).attempt == second


def test_staging_that_broke_with_the_link_begins_again_with_the_repeated_result() -> None:
    bench = Bench()
    attempt = _running(bench, outputs=ONE_OUTPUT)
    bench.finish(1, attempt, outputs=[LARGE])
    bench.feed(WorkerLost(1))
    bench.join(2, name=(1).to_bytes(16, "big"), inventory=[HeldAttempt(attempt, "finished")])
    bench.finish(2, attempt, outputs=[LARGE])
    assert not bench.all(StageOutputs)
    bench.feed(OutputsStaged(attempt, "its link was lost", is_worker_at_fault=True))
    assert bench.one(StageOutputs).session == 2


def test_outputs_lost_with_their_worker_make_the_task_run_again() -> None:
    bench = Bench()
    attempt = _running(bench, outputs=ONE_OUTPUT)
    bench.finish(1, attempt, outputs=[LARGE])
    bench.feed(WorkerLost(1))
    bench.feed(Ticked(), later_s=60.0)
    bench.join(2)
    assert not bench.dispatched(2)
    bench.feed(OutputsStaged(attempt, "its link was lost", is_worker_at_fault=True))
    assert len(bench.dispatched(2)) == 1


def test_canceling_while_outputs_come_in_discards_them() -> None:
    bench = Bench()
    job = bench.submit(array_of(1, outputs=ONE_OUTPUT))
    (attempt,) = bench.join(1)
    bench.finish(1, attempt, outputs=[LARGE])
    bench.ask(CancelTasks(5, [JobRange(job)]))
    assert bench.one(DiscardOutputs).attempt == attempt
    assert bench.acknowledged(1) == {attempt: "superseded"}


def test_staging_is_a_no_op_for_attempts_that_are_over() -> None:
    bench = Bench()
    attempt = _running(bench, outputs=ONE_OUTPUT)
    bench.finish(1, attempt, outputs=[SMALL])
    bench.feed(OutputsStaged(attempt))
    bench.feed(OutputsPublished(attempt))
    assert not bench.feed(OutputsStaged(attempt))
    assert not bench.feed(OutputsPublished(attempt))
