"""After a start: everything the store kept becomes memory again, and known workers are waited for.

Tasks that were ready before the stop are held back until every worker that may be running one of
them has come back or is given up: its dispatch may have been on its way when the record was not.
"""

import hashlib
from collections.abc import Sequence

from wqueue.manager.core.events import AttemptStarted, Restored, StoredJob, WorkerAdmitted
from wqueue.manager.core.job import Attempt, Job
from wqueue.manager.core.results import publish
from wqueue.manager.core.state import State
from wqueue.manager.core.task import Cause, Phase
from wqueue.manager.core.worker import Worker
from wqueue.protocol.codec import decode_spec


def on_restored(state: State, event: Restored) -> None:
    """Take up what the store has; the first event of a life."""
    assert not state.jobs, "restored twice"
    state.epoch = event.epoch
    state.next_job = event.next_job
    state.next_worker = event.next_worker
    for admitted in event.workers:
        _expect(state, admitted.worker_id, admitted.number, admitted.host)
    for stored in event.jobs:
        _take_job(state, stored)
    for started in event.attempts:
        _take_attempt(state, started)
    for publishing in event.publishing:
        job = state.jobs[publishing.job]
        attempt = job.find_attempt(publishing.index, publishing.attempt)
        if attempt is None:
            attempt = state.adopt_attempt(publishing.attempt, job, publishing.index, None)
        attempt.phase = Phase.PUBLISHING
        job.refresh(publishing.index)
        publish(state, attempt, publishing.task, after=0)
    _begin_to_settle(state, event.workers)


def _expect(state: State, worker_id: bytes, number: int, host: str) -> None:
    worker = Worker(worker_id, number, host)
    worker.away_until_s = state.now.monotonic_s + max(
        state.settings.reattach_wait_s, state.settings.worker_grace_s
    )
    state.look_again_by(worker.away_until_s)
    state.workers[worker_id] = worker


def _take_job(state: State, stored: StoredJob) -> None:
    added = stored.added
    spec = decode_spec(added.spec_bytes)
    job = Job(
        added.job,
        added.job_uid,
        spec,
        state.totals,
        record=0,
        wall_s=added.submitted_wall_s,
        may_write=added.may_write,
    )
    job.events = stored.last_event
    job.ended_wall_s = stored.ended_wall_s
    job.is_canceled = stored.is_canceled
    job.is_restored = True
    job.lost.update(stored.lost)
    job.failures.update(stored.failures)
    for index, count in [*stored.lost.items(), *stored.failures.items()]:
        job.tries[index] = job.tries.get(index, 0) + count
    job.restore_ended(stored.ended, stored.failed_indexes, stored.canceled)
    if stored.is_canceled:
        job.end_all_waiting()
    state.jobs[job.number] = job
    if not job.is_ended:
        state.unended[job.number] = job
    state.jobs_by_uid[job.uid] = job
    digest = hashlib.sha256(added.spec_bytes).digest()
    state.submissions[added.credential, added.submission] = (job.number, digest)
    if job.ready_count:
        state.scheduler.job_is_ready(job)


def _take_attempt(state: State, started: AttemptStarted) -> None:
    job = state.jobs.get(started.job)
    if job is None or job.is_task_ended(started.index):
        return
    worker = state.workers.get(started.worker_id)
    if worker is None:
        return
    attempt = Attempt(started.attempt, job, started.index, worker.worker_id, state.now.monotonic_s)
    attempt.move(Cause.LINK_LOST)
    worker.attempts[attempt.key] = attempt
    job.add_attempt(attempt)
    job.tries[started.index] = job.tries.get(started.index, 0) + 1


def _begin_to_settle(state: State, admitted: Sequence[WorkerAdmitted]) -> None:
    """Wait for the workers that may be running something.

    That is known of some; others were admitted so lately that its record may have been lost. An
    idle dead one holds nobody up.
    """
    wait_s = state.settings.reattach_wait_s
    for row in admitted:
        is_recent = state.now.wall_s - row.wall_s < wait_s
        if is_recent or state.workers[row.worker_id].attempts:
            state.awaited[row.worker_id] = None
    if not state.awaited:
        state.scheduler.settled()
        return
    state.settle_at_s = state.now.monotonic_s + wait_s
    state.note("info", f"waiting up to {wait_s:g} s for {len(state.awaited)} known workers")
