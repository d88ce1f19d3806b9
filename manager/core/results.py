"""Results: which one counts, where its outputs go, and when the worker may forget it.

A result is judged by its attempt id alone, whatever session brings it and however often. The first
valid one of a task wins. Without outputs it takes one record; with outputs they are staged, one
record picks the winner ("publishing"), they get their names, a second record ends the task. The
worker is told only then, and repeats the result until it is.
"""

from msgspec.structs import replace

from wqueue.manager.core.events import (
    DiscardOutputs,
    OutputsPublished,
    OutputsStaged,
    PublishOutputs,
    StagedOutput,
    StageOutputs,
    TaskPublishing,
)
from wqueue.manager.core.job import Attempt, Job
from wqueue.manager.core.limits import STAGING_RETRY_S
from wqueue.manager.core.registration import find_task
from wqueue.manager.core.state import State
from wqueue.manager.core.task import Cause, Phase
from wqueue.manager.core.worker import Worker, WorkerState
from wqueue.protocol import outcomes
from wqueue.protocol.messages import (
    STDERR,
    STDOUT,
    AttemptResult,
    OutputResult,
    Result,
    TaskRecord,
)


def on_result(state: State, worker: Worker, message: Result) -> None:
    """Take the results a worker reports."""
    for result in message.results:
        _take(state, worker, result)


def _take(state: State, worker: Worker, result: AttemptResult) -> None:
    key = result.attempt
    job, index = find_task(state, key)
    if job is None:
        state.note("warning", f"worker {worker.number} reports a task that is not known here")
        state.acknowledge(worker.session, key, "unknown")
        return
    if job.is_task_ended(index):
        state.acknowledge(worker.session, key, "superseded")
        return
    fault = why_invalid(job, result)
    if fault:
        result = AttemptResult(key, outcomes.OUTPUT_FAILED, text=f"an invalid result came: {fault}")
    attempt = job.find_attempt(index, key)
    if attempt is None:
        attempt = state.adopt_attempt(key, job, index, worker)
    elif attempt.worker_id != worker.worker_id:
        state.hand_over(attempt, worker)
    _note_result(state, worker, attempt, result)


def _note_result(state: State, worker: Worker, attempt: Attempt, result: AttemptResult) -> None:
    is_new = attempt.phase < Phase.FINISHED
    attempt.move(Cause.RESULT_CAME)
    if attempt.phase >= Phase.RETRIEVING:
        attempt.is_result_repeated = True
        return
    attempt.result = result
    if is_new:
        worker.note_duration(result.usage.wall_s)
        worker.release(attempt)
        state.scheduler.worker_has_room(worker)
        attempt.job.refresh(attempt.index)
    _judge(state, attempt)


def _judge(state: State, attempt: Attempt) -> None:
    """Go on with a finished attempt, unless another one of its task is further."""
    job, index, result = attempt.job, attempt.index, attempt.result
    assert result is not None, "an attempt is judged before its result came"
    if any(other.phase >= Phase.RETRIEVING for other in job.active[index]):
        return
    if result.outcome == outcomes.SANDBOX_FAILED and not state.is_lost_too_often(job, index):
        _retry(state, attempt, result, "lost")
        return
    if result.outcome != outcomes.SUCCEEDED and _may_retry(job, index, result):
        _retry(state, attempt, result, "failure")
        return
    staged = outputs_to_stage(job, index, result)
    if staged:
        attempt.move(Cause.STAGING_BEGAN)
        job.refresh(index)
        attempt.is_result_repeated = False
        worker = state.worker_of(attempt)
        session = worker.session if worker is not None else 0
        state.emit(StageOutputs(session, job.number, index, attempt.key, staged))
        return
    _win(state, attempt, result)


def _may_retry(job: Job, index: int, result: AttemptResult) -> bool:
    if result.outcome in (outcomes.INPUT_MISSING, outcomes.OUTPUT_UNSAFE):
        return False
    return job.failures.get(index, 0) < job.spec.max_retries


def _retry(state: State, attempt: Attempt, result: AttemptResult, counts_as: str) -> None:
    worker = state.worker_of(attempt)
    kept = _without_inline(result)
    if worker is not None:
        worker.failed += 1
        state.acknowledge(worker.session, attempt.key, "recorded")
    state.fail_attempt(attempt, counts_as, kept)


def _win(state: State, attempt: Attempt, result: AttemptResult) -> None:
    """End the task by an attempt that has nothing to stage."""
    worker = state.worker_of(attempt)
    session = worker.session if worker is not None else 0
    event = state.next_event(attempt.job)
    state.end_task(attempt, state.make_record(attempt, result, event))
    state.acknowledge(session, attempt.key, "recorded")


# --- outputs --------------------------------------------------------------------------------------


def why_invalid(job: Job, result: AttemptResult) -> str:
    """Say what is impossible about a result; an empty string means nothing."""
    if result.outcome not in outcomes.MEANINGS:
        return f"unknown outcome {result.outcome[:40]!r}"
    count = len(job.spec.template.outputs)
    seen: dict[int, None] = {}
    for output in result.outputs:
        position = output.position
        if position >= count and position not in (STDOUT, STDERR):
            return f"output {position} of {count}"
        if position in seen:
            return f"output {position} twice"
        if output.inline is None and len(output.digest) != 32:
            return f"output {position} without content or digest"
        if output.inline is not None and len(output.inline) != output.size:
            return f"output {position} has another size than its content"
        seen[position] = None
    if result.outcome == outcomes.SUCCEEDED and any(i not in seen for i in range(count)):
        return "it succeeded without all its outputs"
    return ""


def outputs_to_stage(job: Job, index: int, result: AttemptResult) -> list[StagedOutput]:
    """Give the outputs that have to be written somewhere: all declared ones, and long prints."""
    return [
        StagedOutput(
            position=output.position,
            size=output.size,
            mode=output.mode,
            digest=output.digest,
            destination=_destination(job, index, output.position),
            inline=output.inline,
        )
        for output in result.outputs
        if output.position < STDOUT or output.inline is None
    ]


def _destination(job: Job, index: int, position: int) -> bytes:
    if position >= STDOUT or not job.may_write:
        return b""
    return job.filled(job.spec.template.outputs[position].destination, index)


def _recorded(output: OutputResult) -> OutputResult:
    if output.position >= STDOUT or output.inline is None:
        return output
    return OutputResult(output.position, output.size, output.mode, output.digest)


def _without_inline(result: AttemptResult) -> AttemptResult:
    """Give the result as it is kept: content of declared outputs lies in files, not in records."""
    return replace(result, outputs=[_recorded(output) for output in result.outputs])


def on_staged(state: State, event: OutputsStaged) -> None:
    """Pick the winner, or see what else can be done."""
    attempt = _find(state, event.attempt)
    if attempt is None or attempt.phase is not Phase.RETRIEVING:
        return
    if event.error:
        _staging_failed(state, attempt, event)
        return
    attempt.move(Cause.STAGED)
    job, index = attempt.job, attempt.index
    assert attempt.result is not None, "outputs were staged without a result"
    task = state.make_record(attempt, _without_inline(attempt.result))
    record = state.next_record()
    state.emit(TaskPublishing(record, attempt.key, job.number, index, task))
    publish(state, attempt, task, after=record)


def publish(state: State, attempt: Attempt, task: TaskRecord, *, after: int) -> None:
    """Want the staged outputs of the winner to get their names."""
    job, index = attempt.job, attempt.index
    staged = [
        StagedOutput(
            output.position,
            output.size,
            output.mode,
            output.digest,
            _destination(job, index, output.position),
        )
        for output in task.outputs
        if output.position < STDOUT or output.inline is None
    ]
    state.publishing[attempt.key] = task
    state.emit(PublishOutputs(job.number, index, attempt.key, staged, after=after))


def _staging_failed(state: State, attempt: Attempt, event: OutputsStaged) -> None:
    attempt.move(Cause.STAGING_FAILED)
    job, index = attempt.job, attempt.index
    job.refresh(index)
    state.emit(DiscardOutputs(job.number, index, attempt.key))
    if event.is_temporary:
        state.note("warning", f"task {job.number}.{index}: {event.error}; tried again later")
        state.retry_later(attempt, STAGING_RETRY_S)
    elif event.is_worker_at_fault:
        _outputs_lost(state, attempt, event.error)
    else:
        _output_failed(state, attempt, event.error)
    for other in list(job.active.get(index, ())):
        if other is not attempt and other.phase is Phase.FINISHED:
            _judge(state, other)
            break


def _outputs_lost(state: State, attempt: Attempt, error: str) -> None:
    worker = state.worker_of(attempt)
    if attempt.is_result_repeated and worker is not None and worker.session:
        _judge(state, attempt)
    elif worker is None or worker.state is WorkerState.GONE:
        lost = AttemptResult(attempt.key, outcomes.WORKER_LOST, text=error)
        state.fail_attempt(attempt, "lost", lost)
    elif worker.state is WorkerState.LIVE:
        state.note("warning", f"task {attempt.job.number}.{attempt.index}: {error}")
        state.acknowledge(worker.session, attempt.key, "superseded")
        state.fail_attempt(attempt, "lost", _failed_result(attempt, error))


def _output_failed(state: State, attempt: Attempt, error: str) -> None:
    worker = state.worker_of(attempt)
    result = _failed_result(attempt, error)
    event = state.next_event(attempt.job)
    state.end_task(attempt, state.make_record(attempt, result, event))
    if worker is not None:
        state.acknowledge(worker.session, attempt.key, "recorded")


def _failed_result(attempt: Attempt, error: str) -> AttemptResult:
    came = attempt.result
    assert came is not None, "staging failed for an attempt without a result"
    prints = [o for o in came.outputs if o.position >= STDOUT and o.inline is not None]
    return replace(came, outcome=outcomes.OUTPUT_FAILED, text=error, outputs=prints)


def on_published(state: State, event: OutputsPublished) -> None:
    """End the task whose outputs have their names."""
    attempt = _find(state, event.attempt)
    task = state.publishing.get(event.attempt)
    if attempt is None or task is None:
        return
    if event.error and event.is_temporary:
        state.note("warning", f"task {task.job}.{task.index}: {event.error}; tried again later")
        state.retry_later(attempt, STAGING_RETRY_S)
        return
    del state.publishing[event.attempt]
    task = replace(task, event=state.next_event(attempt.job))
    if event.error:
        task = _as_output_failed(task, event.error)
    worker = state.worker_of(attempt)
    state.end_task(attempt, task)
    if worker is not None:
        state.acknowledge(worker.session, attempt.key, "recorded")


def _as_output_failed(task: TaskRecord, error: str) -> TaskRecord:
    prints = [o for o in task.outputs if o.position >= STDOUT and o.inline is not None]
    return replace(task, outcome=outcomes.OUTPUT_FAILED, text=error, outputs=prints)


def retry_outputs(state: State) -> None:
    """Try again what waited for room on the disk."""
    for attempt in state.take_due_retries():
        if attempt.phase is Phase.FINISHED:
            _judge(state, attempt)
        elif attempt.phase is Phase.PUBLISHING:
            publish(state, attempt, state.publishing[attempt.key], after=0)


def _find(state: State, key: bytes) -> Attempt | None:
    job, index = find_task(state, key)
    return job.find_attempt(index, key) if job is not None else None
