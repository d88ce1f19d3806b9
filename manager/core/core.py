"""The manager's core and its one door: events and the time go in, effects come out.

Nothing here, nor in the modules it calls, touches a socket, a file, a clock, a thread or a source
of randomness; equal events at equal times give equal effects. The shell (wqueue.manager.loop)
brings events and carries out effects; the simulator does the same in virtual time.
"""

from collections.abc import Callable
from typing import Any

from wqueue.manager.core import dispatch, registration, restore, results, submissions
from wqueue.manager.core.events import (
    ClientGone,
    ClientHeard,
    Effect,
    Event,
    JobSubmitted,
    Now,
    OutputsPublished,
    OutputsStaged,
    Restored,
    Resumed,
    StopRequested,
    StoreBlocked,
    StoreOpened,
    Ticked,
    WorkerHeard,
    WorkerLost,
    WorkerRegistered,
)
from wqueue.manager.core.job import Job
from wqueue.manager.core.limits import Settings
from wqueue.manager.core.state import State
from wqueue.manager.core.worker import Worker
from wqueue.protocol.messages import (
    Bye,
    Result,
    Returned,
    Started,
    WorkerHeartbeat,
)


class Core:
    """The whole state of a manager. `handle` is the only way to change it."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.state = State(settings or Settings())
        self._reactions: dict[type, Callable[[State, Any], None]] = {
            WorkerHeard: _on_worker_heard,
            JobSubmitted: submissions.on_job_submitted,
            ClientHeard: submissions.on_client_heard,
            ClientGone: submissions.on_client_gone,
            OutputsStaged: results.on_staged,
            OutputsPublished: results.on_published,
            WorkerRegistered: registration.on_worker_registered,
            WorkerLost: registration.on_worker_lost,
            Restored: restore.on_restored,
            StoreBlocked: _on_store_blocked,
            StoreOpened: _on_store_opened,
            Resumed: lambda state, _: registration.on_resumed(state),
            StopRequested: submissions.on_stop_requested,
            Ticked: lambda state, _: None,
        }

    def handle(self, event: Event, now: Now) -> list[Effect]:
        """Take one event at the time `now`; give what is to be done, in order.

        The epoch in use, jobs and workers are to be read from `state` between calls, never changed.
        """
        state = self.state
        state.now = now
        self._reactions[type(event)](state, event)
        self._on_time()
        dispatch.dispatch(state)
        dispatch.take_back_for_idle(state)
        state.flush()
        effects, state.effects = state.effects, []
        return effects

    def deadline(self) -> float | None:
        """Give the monotonic time at which a Ticked is wanted; None if only events matter."""
        state = self.state
        times = [state.look_at_workers_at_s]
        if state.cancelings and not state.store_error:
            times.append(state.now.monotonic_s)
        if state.settle_at_s is not None:
            times.append(state.settle_at_s)
        if state.retries:
            times.extend(attempt.retry_at_s for attempt in state.retries.values())
        earliest = min(times)
        return None if earliest == float("inf") else earliest

    def job(self, number: int) -> Job | None:
        """Give the job of this number."""
        return self.state.jobs.get(number)

    def job_of_uid(self, uid: bytes) -> Job | None:
        """Give the job of this uid."""
        return self.state.jobs_by_uid.get(uid)

    def check(self) -> None:
        """Assert every invariant that can be seen from inside."""
        state = self.state
        for job in state.jobs.values():
            job.check()
            for attempts in job.active.values():
                for attempt in attempts:
                    worker = state.worker_of(attempt)
                    assert worker is None or attempt.key in worker.attempts
            assert (job.number in state.unended) != job.is_ended, f"job {job.number}: ended or not"
        for task_state, total in enumerate(state.totals):
            assert total == sum(job.counts[task_state] for job in state.jobs.values())
        for worker in state.workers.values():
            worker.check()
            for attempt in worker.attempts.values():
                assert attempt in attempt.job.active.get(attempt.index, ()), "attempt lost its task"
        for session, worker in state.sessions.items():
            assert worker.session == session
        state.scheduler.check()

    def _on_time(self) -> None:
        state = self.state
        now_s = state.now.monotonic_s
        due = now_s >= state.look_at_workers_at_s
        if due or (state.settle_at_s is not None and now_s >= state.settle_at_s):
            registration.on_time(state)
        if state.retries:
            results.retry_outputs(state)
        if state.cancelings:
            submissions.go_on_canceling(state)


_WORKER_REACTIONS: dict[type, Callable[[State, Worker, Any], None]] = {
    Result: results.on_result,
    Started: registration.on_started,
    Returned: registration.on_returned,
    WorkerHeartbeat: registration.on_heartbeat,
    Bye: registration.on_bye,
}


def _on_worker_heard(state: State, event: WorkerHeard) -> None:
    worker = state.sessions.get(event.session)
    if worker is None:
        return
    worker.heard_s = state.now.monotonic_s
    reaction = _WORKER_REACTIONS.get(type(event.message))
    if reaction is not None:
        reaction(state, worker, event.message)


def _on_store_blocked(state: State, event: StoreBlocked) -> None:
    state.store_error = event.reason
    state.note("error", f"the journal cannot be written: {event.reason}; nothing new is taken")


def _on_store_opened(state: State, event: StoreOpened) -> None:
    state.store_error = ""
    state.note("info", "the journal can be written again")
