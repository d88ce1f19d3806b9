"""Handing out: what the scheduler pairs becomes attempts, and idle workers get others' queues."""

from collections.abc import Iterator
from itertools import islice

from wqueue.manager.core.events import Send
from wqueue.manager.core.job import Job
from wqueue.manager.core.limits import KNOWN_JOBS_MAX, TAKE_BACK_MIN_S
from wqueue.manager.core.state import State
from wqueue.manager.core.task import Phase
from wqueue.manager.core.worker import Worker
from wqueue.protocol.messages import Assignment, Describe, Dispatch, Forget, TakeBack


def dispatch(state: State) -> None:
    """Give out all that fits now. Nothing is given out while the store cannot commit."""
    if state.store_error or state.is_stopping:
        return
    dispatches: dict[int, _Outgoing] = {}
    for worker, job in state.scheduler.pairs():
        index = job.take_ready()
        assert index is not None, f"job {job.number} was offered without a ready task"
        attempt = state.start_attempt(job, index, worker)
        outgoing = dispatches.get(worker.session)
        if outgoing is None:
            outgoing = dispatches[worker.session] = _Outgoing()
        outgoing.add(worker, job, index, attempt.key)
    for session, outgoing in dispatches.items():
        _forget_ended(state, state.sessions[session])
        for description in outgoing.descriptions:
            state.emit(Send(session, description, after=outgoing.after))
        state.emit(Send(session, Dispatch(outgoing.assignments), after=outgoing.after))


def _forget_ended(state: State, worker: Worker) -> None:
    """Let a worker forget the descriptions of ended jobs when it has gathered many."""
    if len(worker.known_jobs) < worker.known_jobs_max:
        return
    ended = [job.uid for job in worker.known_jobs.values() if job.is_ended]
    for uid in ended:
        del worker.known_jobs[uid]
    worker.known_jobs_max = 2 * len(worker.known_jobs) + KNOWN_JOBS_MAX
    if ended:
        state.emit(Send(worker.session, Forget(ended)))


class _Outgoing:
    """What one worker is sent in one go."""

    def __init__(self) -> None:
        self.descriptions: list[Describe] = []
        self.assignments: list[Assignment] = []
        self.after = 0

    def add(self, worker: Worker, job: Job, index: int, attempt: bytes) -> None:
        """Add an attempt, and the job's description if the worker does not have it."""
        if job.uid not in worker.known_jobs:
            worker.known_jobs[job.uid] = job
            self.descriptions.append(job.describe())
        columns = job.column_files(index) if job.spec.columns else []
        self.assignments.append(Assignment(attempt, job.value(index), columns))
        self.after = max(self.after, job.record)


def take_back_for_idle(state: State) -> None:
    """Ask for queued attempts back when workers are idle and nothing else waits for them.

    At most one is on its way back per idle worker, so that a queue is not emptied for nothing.
    """
    scheduler = state.scheduler
    victims = [worker for worker in scheduler.queueing.values() if worker.queued]
    if not victims or state.store_error or state.is_stopping:
        return
    if next(scheduler.idle_workers(), None) is None:
        return
    coming = sum(a.is_taken_back for victim in victims for a in victim.queued.values())
    idle_workers = islice(scheduler.idle_workers(), coming, None)
    for victim in victims:
        if victim.queue_ends_in_s() >= TAKE_BACK_MIN_S:
            _ask_back(state, victim, idle_workers)


def _ask_back(state: State, victim: Worker, idle_workers: Iterator[Worker]) -> None:
    for attempt in reversed(victim.queued.values()):
        if attempt.is_taken_back or attempt.phase is not Phase.ASSIGNED:
            continue
        wanted = attempt.job.spec.template.resources
        if any(idle.room.fits(wanted) for idle in idle_workers):
            attempt.is_taken_back = True
            state.emit(Send(victim.session, TakeBack([attempt.key])))
        else:
            return
