"""What clients ask of the core: to take a job, to watch, to cancel, to end."""

import hashlib

from wqueue.manager.core.events import (
    Announce,
    ClientGone,
    ClientHeard,
    JobAdded,
    JobSubmitted,
    Reply,
    Send,
    Stop,
    StopRequested,
    TaskEnded,
)
from wqueue.manager.core.job import Attempt, Job, describe
from wqueue.manager.core.state import Canceling, State, progress_of
from wqueue.manager.core.task import Phase, TaskState
from wqueue.protocol import names, outcomes
from wqueue.protocol.codec import PAYLOAD_MAX_BYTES, encode
from wqueue.protocol.limits import OUTPUTS_MAX
from wqueue.protocol.messages import (
    CancelTasks,
    Control,
    Done,
    JobRange,
    JobSpec,
    Leave,
    Refusal,
    Submitted,
    TaskRecord,
    Watch,
)

DESCRIPTION_MAX_BYTES = PAYLOAD_MAX_BYTES - 1024
"""A job's description for the workers travels in one message: some 18,000 inputs fit."""

_CANCELED_AT_ONCE_MAX = 500
"""Most tasks canceled one by one in one step of the loop: some 5 ms."""


def on_job_submitted(state: State, event: JobSubmitted) -> None:
    """Take a job, or say that it is here already, or refuse it."""
    name = (event.credential, event.submission)
    digest = hashlib.sha256(event.spec_bytes).digest()
    known = state.submissions.get(name)
    if known is not None:
        _answer_repeat(state, event, *known, digest)
        return
    code, text = _why_refused(state, event)
    if code:
        state.emit(Reply(event.client, Refusal(code, text, event.request)))
        return
    job = _add_job(state, event, digest)
    if event.watch:
        _watch(state, event.client, job)
    state.emit(
        Reply(event.client, Submitted(event.request, job.number, job.uid), after=state.record)
    )
    state.scheduler.job_is_ready(job)


def job_uid(credential: bytes, submission: bytes) -> bytes:
    """Make the uid of a job from who submitted it and the id that the client gave it."""
    sizes = len(credential).to_bytes(4, "big")
    return hashlib.sha256(b"wqueue job v1" + sizes + credential + submission).digest()[:16]


def _add_job(state: State, event: JobSubmitted, digest: bytes) -> Job:
    number, state.next_job = state.next_job, state.next_job + 1
    uid = job_uid(event.credential, event.submission)
    record = state.next_record()
    wall_s = state.now.wall_s
    job = Job(
        number,
        uid,
        event.spec,
        state.totals,
        record=record,
        wall_s=wall_s,
        may_write=event.may_write,
    )
    state.emit(
        JobAdded(
            record, number, uid, event.credential, event.submission, event.spec_bytes, wall_s,
            event.may_write,
        )
    )  # fmt: skip
    state.jobs[number] = job
    state.unended[number] = job
    state.jobs_by_uid[uid] = job
    state.submissions[event.credential, event.submission] = (number, digest)
    return job


def _answer_repeat(
    state: State, event: JobSubmitted, number: int, known: bytes, digest: bytes
) -> None:
    if known != digest:
        text = "this submission id was used before with another description"
        state.emit(Reply(event.client, Refusal("conflict", text, event.request)))
        return
    job = state.jobs[number]
    if event.watch:
        _watch(state, event.client, job)
        state.mark_dirty(job)
    answer = Submitted(event.request, number, job.uid, is_repeat=True)
    state.emit(Reply(event.client, answer, after=state.record))


def _why_refused(state: State, event: JobSubmitted) -> tuple[str, str]:
    if state.is_stopping:
        return "draining", "the manager is ending and takes no new work"
    if state.store_error:
        return "store_full", f"the manager cannot write its journal: {state.store_error}"
    text = why_invalid(event.spec) or _why_too_large(event)
    return ("bad_spec", text) if text else ("", "")


def _why_too_large(event: JobSubmitted) -> str:
    if len(event.spec_bytes) < DESCRIPTION_MAX_BYTES:
        return ""
    size = len(encode(describe(event.spec, bytes(16), 0)))
    if size < DESCRIPTION_MAX_BYTES:
        return ""
    return (
        f"what each worker must know of the job takes {size:,} bytes; {DESCRIPTION_MAX_BYTES:,} "
        "are allowed: pack the many shared inputs or outputs into an archive"
    )


def why_invalid(spec: JobSpec) -> str:
    """Say what makes a description senseless; an empty string means that it is sound."""
    template = spec.template
    if not template.command or not template.command[0]:
        return "the command is empty"
    if template.is_shell and len(template.command) != 1:
        return "a shell line is one string"
    if any(b"\0" in word for word in template.command):
        return "the command holds a NUL byte"
    if template.is_array and spec.items and len(spec.items) != spec.count:
        return f"the array has {spec.count} tasks but {len(spec.items)} values"
    if not template.is_array and spec.count != 1:
        return "only an array has more than one task"
    if spec.priority != spec.priority:
        return "the priority is not a number"
    return _why_files_invalid(spec)


def _why_files_invalid(spec: JobSpec) -> str:
    file_count = len(spec.files)
    for column in spec.columns:
        if len(column) != spec.count:
            return f"a column of files has {len(column)} entries for {spec.count} tasks"
        if column and max(column) >= file_count:
            return "a column names a file that is not listed"
    for entry in spec.template.inputs:
        if entry.file >= file_count or -1 - entry.file >= len(spec.columns):
            return f"the input {names.show(entry.remote)} names a file that is not listed"
    remotes = [entry.remote for entry in spec.template.inputs]
    remotes += [entry.remote for entry in spec.template.outputs]
    for remote in remotes:
        if not spec.template.is_array and (why := names.why_unsafe(remote)):
            return f"{names.show(remote)}: {why}"
    if len(spec.template.outputs) > OUTPUTS_MAX:
        return f"a task has at most {OUTPUTS_MAX:,} outputs"
    return ""


# --- watching -------------------------------------------------------------------------------------


def _watch(state: State, client: int, job: Job) -> None:
    job.watchers[client] = None
    state.client_jobs.setdefault(client, {})[job.number] = None


def _on_watch(state: State, client: int, message: Watch) -> None:
    for number in message.jobs:
        job = state.jobs.get(number)
        if job is None:
            state.emit(Reply(client, _no_job(number, message.request)))
            return
        _watch(state, client, job)
        state.emit(Reply(client, progress_of(job), after=state.record))
    state.emit(Reply(client, Done(message.request, len(message.jobs)), after=state.record))


def _no_job(number: int, request: int) -> Refusal:
    return Refusal("no_such_task", f"there is no job {number}; wq-status --all lists jobs", request)


def on_client_gone(state: State, event: ClientGone) -> None:
    """Forget what a client watched."""
    for number in state.client_jobs.pop(event.client, {}):
        state.jobs[number].watchers.pop(event.client, None)


def on_client_heard(state: State, event: ClientHeard) -> None:
    """React to a request that the core answers; others are the shell's."""
    message = event.message
    if isinstance(message, Watch):
        _on_watch(state, event.client, message)
    elif isinstance(message, CancelTasks):
        _on_cancel(state, event.client, message)
    elif isinstance(message, Control):
        _on_control(state, event.client, message)


# --- canceling ------------------------------------------------------------------------------------


def _on_cancel(state: State, client: int, message: CancelTasks) -> None:
    for wanted in message.ranges:
        if wanted.job not in state.jobs:
            state.emit(Reply(client, _no_job(wanted.job, message.request)))
            return
    state.cancelings.append(Canceling(client, message))
    go_on_canceling(state)


def go_on_canceling(state: State) -> None:
    """Take the next step of the oldest request; the last one is answered."""
    if not state.cancelings or state.store_error:
        return
    request = state.cancelings[0]
    left = _CANCELED_AT_ONCE_MAX
    while request.ranges and left > 0:
        wanted = request.ranges.pop()
        job = state.jobs[wanted.job]
        last = min(wanted.last, job.spec.count - 1)
        if wanted.first > last:
            continue
        if wanted.first == 0 and last == job.spec.count - 1:
            request.count += cancel_job(state, job)
            continue
        step_last = min(last, wanted.first + left - 1)
        left -= step_last - wanted.first + 1
        request.count += _cancel_range(state, job, wanted.first, step_last)
        if step_last < last:
            request.ranges.append(JobRange(wanted.job, step_last + 1, last))
    if not request.ranges:
        state.cancelings.popleft()
        state.emit(Reply(request.client, Done(request.request, request.count), after=state.record))


def cancel_job(state: State, job: Job) -> int:
    """Cancel all tasks of a job that have not ended; give their number.

    Those that have won already and are being published end as they would have.
    """
    if job.is_ended or job.is_canceled:
        return 0
    before = job.counts[TaskState.CANCELED]
    job.is_canceled = True
    state.end_job(job, is_canceled=True)
    for index in job.end_all_waiting():
        if not _is_publishing(job, index):
            _stop_task(state, job, index)
    state.note_if_ended(job)
    state.mark_dirty(job)
    return job.counts[TaskState.CANCELED] - before


def _cancel_range(state: State, job: Job, first: int, last: int) -> int:
    canceled = 0
    for index in range(first, last + 1):
        if job.is_task_ended(index) or _is_publishing(job, index):
            continue
        job.events += 1
        task = TaskRecord(
            job=job.number,
            index=index,
            event=job.events,
            outcome=outcomes.CANCELED,
            text="canceled",
            tries=job.tries.get(index, 0),
            ended_wall_s=state.now.wall_s,
        )
        state.emit(TaskEnded(state.next_record(), b"", job.number, index, task))
        _stop_task(state, job, index)
        canceled += 1
    return canceled


def _stop_task(state: State, job: Job, index: int) -> None:
    state.close_task(job, index, outcomes.CANCELED)


def _is_publishing(job: Job, index: int) -> bool:
    attempts: list[Attempt] = job.active.get(index, [])
    return any(attempt.phase is Phase.PUBLISHING for attempt in attempts)


# --- ending ---------------------------------------------------------------------------------------


def _on_control(state: State, client: int, message: Control) -> None:
    if message.action == "shutdown":
        state.emit(Reply(client, Done(message.request), after=state.record))
        on_stop_requested(state, StopRequested(is_final=True))
        return
    text = f"unknown order {message.action}; this manager knows: shutdown"
    state.emit(Reply(client, Refusal("unknown_action", text, message.request)))


def on_stop_requested(state: State, event: StopRequested) -> None:
    """Begin to end: nothing is dispatched or accepted any more; a final stop sends workers home."""
    if state.is_stopping:
        return
    state.is_stopping = True
    reason = "shutdown" if event.is_final else "restart"
    state.emit(Announce(event.is_final, reason))
    if event.is_final:
        for session in state.sessions:
            state.emit(Send(session, Leave(reason)))
    state.emit(Stop(event.is_final))
