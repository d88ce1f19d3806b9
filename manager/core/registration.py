"""Workers come, fall silent, come back and go: who they are and what becomes of their attempts."""

from wqueue.manager.core.events import (
    DropWorker,
    Send,
    WorkerAdmitted,
    WorkerLeft,
    WorkerLost,
    WorkerRegistered,
)
from wqueue.manager.core.job import Attempt, Job
from wqueue.manager.core.limits import GONE_WORKERS_KEPT
from wqueue.manager.core.state import State
from wqueue.manager.core.task import Cause, Phase
from wqueue.manager.core.worker import Worker, WorkerState
from wqueue.protocol import outcomes
from wqueue.protocol.attempts import ATTEMPT_ID_BYTES, unpack_attempt
from wqueue.protocol.messages import (
    AttemptResult,
    Bye,
    HeldAttempt,
    Register,
    Registered,
    Returned,
    Started,
    TakeBack,
    WorkerHeartbeat,
)
from wqueue.protocol.resources import Room

_CLOSING_REASONS = ("leaving", "does_not_fit")
"""Why a worker that returns attempts is given nothing more in this session: it would only return
that too, at once and without end."""

_SEEN = {
    "queued": Cause.SEEN_QUEUED,
    "running": Cause.SEEN_RUNNING,
    "finished": Cause.SEEN_RUNNING,
}


def on_worker_registered(state: State, event: WorkerRegistered) -> None:
    """Admit a worker, or take it back, and reconcile what it has with what is known here."""
    worker = state.workers.get(event.worker_id)
    if worker is None:
        worker = _admit(state, event)
    elif worker.session:
        state.emit(DropWorker(worker.session, "it has come back on a newer link"))
        state.sessions.pop(worker.session, None)
        _link_lost(state, worker)
    _attach(state, worker, event)
    adopted, unwanted = _reconcile(state, worker, event.register)
    settings = state.settings
    answer = Registered(
        number=worker.number,
        heartbeat_s=settings.heartbeat_s,
        silence_max_s=settings.silence_max_s,
        adopted=adopted,
        unwanted=unwanted,
        manager_grace_s=settings.manager_grace_s,
    )
    state.emit(Send(event.session, answer, after=state.record))
    state.scheduler.worker_has_room(worker)
    settle(state, worker)


def _admit(state: State, event: WorkerRegistered) -> Worker:
    number, state.next_worker = state.next_worker, state.next_worker + 1
    worker = Worker(event.worker_id, number, event.register.host)
    state.workers[event.worker_id] = worker
    state.emit(
        WorkerAdmitted(
            state.next_record(), event.worker_id, number, event.register.host, state.now.wall_s
        )
    )
    state.note("info", f"worker {number} joined: {event.register.host} at {event.address}")
    return worker


def _attach(state: State, worker: Worker, event: WorkerRegistered) -> None:
    if worker.state is WorkerState.GONE:
        state.note("info", f"worker {worker.number} ({worker.host}) is back after it was given up")
    elif worker.register is not None:
        state.note("info", f"worker {worker.number} ({worker.host}) is back")
    worker.state = WorkerState.LIVE
    worker.session = event.session
    worker.address = event.address
    worker.register = event.register
    worker.host = event.register.host
    worker.heard_s = state.now.monotonic_s
    worker.is_leaving = False
    worker.known_jobs.clear()
    worker.room = Room(event.register.resources)
    worker.queued.clear()
    for attempt in worker.attempts.values():
        attempt.is_allocated = False
    state.sessions[event.session] = worker
    state.look_again_by(state.now.monotonic_s + state.settings.heartbeat_s)


def _reconcile(state: State, worker: Worker, register: Register) -> tuple[list[bytes], list[bytes]]:
    adopted: list[bytes] = []
    unwanted: list[bytes] = []
    held = {entry.attempt: entry for entry in register.inventory}
    for entry in sorted(held.values(), key=lambda e: e.phase != "running"):
        job, index = find_task(state, entry.attempt)
        if job is None:
            if entry.phase != "finished":
                unwanted.append(entry.attempt)
        elif job.is_task_ended(index):
            unwanted.append(entry.attempt)
        else:
            _adopt(state, worker, job, index, entry)
            adopted.append(entry.attempt)
    for attempt in list(worker.attempts.values()):
        if attempt.key not in held and attempt.phase < Phase.FINISHED:
            state.fail_attempt(
                attempt, "", _lost_result(state, attempt, "it never reached the worker")
            )
    return adopted, unwanted


def _adopt(state: State, worker: Worker, job: Job, index: int, entry: HeldAttempt) -> None:
    attempt = job.find_attempt(index, entry.attempt)
    if attempt is None:
        attempt = state.adopt_attempt(entry.attempt, job, index, worker)
    elif attempt.worker_id != worker.worker_id:
        state.hand_over(attempt, worker)
    attempt.move(_SEEN.get(entry.phase, Cause.SEEN_QUEUED))
    if entry.phase != "finished" and attempt.phase < Phase.FINISHED:
        worker.add(attempt)
        attempt.since_s = state.now.monotonic_s - entry.running_s
    job.refresh(index)
    if entry.phase == "running":
        _take_back_copies(state, job, index, attempt)


def _take_back_copies(state: State, job: Job, index: int, running: Attempt) -> None:
    for copy in job.active.get(index, []):
        other = state.worker_of(copy)
        if copy is running or other is None or copy.phase is not Phase.ASSIGNED:
            continue
        if other.session and not copy.is_taken_back:
            copy.is_taken_back = True
            state.emit(Send(other.session, TakeBack([copy.key])))


def find_task(state: State, attempt: bytes) -> tuple[Job | None, int]:
    """Give the job and index that an attempt id speaks of; None if there is no such task here."""
    if len(attempt) != ATTEMPT_ID_BYTES:
        return None, 0
    uid, index, _, _ = unpack_attempt(attempt)
    job = state.jobs_by_uid.get(uid)
    if job is None or index >= job.spec.count:
        return None, 0
    return job, index


# --- messages -------------------------------------------------------------------------------------


def on_heartbeat(state: State, worker: Worker, message: WorkerHeartbeat) -> None:
    """Take note of what a worker says of itself; that it spoke is noted for every message."""


def on_started(state: State, worker: Worker, message: Started) -> None:
    """Note that attempts run."""
    for key in message.attempts:
        attempt = worker.attempts.get(key)
        if attempt is None or attempt.phase >= Phase.FINISHED:
            continue
        attempt.move(Cause.SEEN_RUNNING)
        attempt.is_taken_back = False
        attempt.since_s = state.now.monotonic_s
        worker.allocate(attempt)
        attempt.job.refresh(attempt.index)


def on_returned(state: State, worker: Worker, message: Returned) -> None:
    """Make tasks ready again that a worker gives back."""
    for key in message.attempts:
        attempt = worker.attempts.get(key)
        if attempt is None or attempt.phase >= Phase.FINISHED:
            continue
        if message.reason == "unknown_job":
            worker.known_jobs.pop(attempt.job.uid, None)
        elif message.reason in _CLOSING_REASONS:
            worker.is_leaving = True
            state.scheduler.worker_is_closed(worker)
        state.fail_attempt(attempt, "", _lost_result(state, attempt, f"returned: {message.reason}"))


def on_bye(state: State, worker: Worker, message: Bye) -> None:
    """Let a worker go: it has returned or reported all it had."""
    state.note("info", f"worker {worker.number} ({worker.host}) left: {message.reason}")
    session = worker.session
    state.sessions.pop(session, None)
    worker.session = 0
    gone(state, worker, "left", counts_as="")
    state.emit(DropWorker(session, "it said goodbye"))


def on_worker_lost(state: State, event: WorkerLost) -> None:
    """Begin the grace of a worker whose link is gone."""
    worker = state.sessions.pop(event.session, None)
    if worker is None:
        return
    grace_s = state.settings.worker_grace_s
    state.note(
        "warning",
        f"worker {worker.number} ({worker.host}) is away: its link is lost; "
        f"its {len(worker.attempts)} attempts wait {grace_s:g} s for it",
    )
    _link_lost(state, worker)


def _link_lost(state: State, worker: Worker) -> None:
    worker.session = 0
    worker.state = WorkerState.AWAY
    worker.away_until_s = state.now.monotonic_s + state.settings.worker_grace_s
    state.look_again_by(worker.away_until_s)
    state.scheduler.worker_is_closed(worker)
    for attempt in worker.attempts.values():
        attempt.is_taken_back = False
        attempt.move(Cause.LINK_LOST)
        attempt.job.refresh(attempt.index)


# --- time -----------------------------------------------------------------------------------------


def on_time(state: State) -> None:
    """Give up workers that were away too long, and cut those that fell silent."""
    now_s = state.now.monotonic_s
    if state.settle_at_s is not None and now_s >= state.settle_at_s:
        state.note("info", f"{len(state.awaited)} workers from before the start did not come back")
        end_settling(state)
    if now_s < state.look_at_workers_at_s:
        return
    for worker in list(state.sessions.values()):
        if now_s - worker.heard_s >= state.settings.silence_max_s:
            state.emit(DropWorker(worker.session, "it fell silent"))
            on_worker_lost(state, WorkerLost(worker.session))
    for worker in list(state.workers.values()):
        if worker.state is WorkerState.AWAY and now_s >= worker.away_until_s:
            state.note("warning", f"worker {worker.number} ({worker.host}) is given up")
            gone(state, worker, "its link was lost", counts_as="lost")
    state.look_at_workers_at_s = min(
        (w.away_until_s for w in state.workers.values() if w.state is WorkerState.AWAY),
        default=float("inf"),
    )
    if state.sessions:
        state.look_again_by(now_s + state.settings.heartbeat_s)


def on_resumed(state: State) -> None:
    """Begin every limit anew: it was we who stood still, not the workers."""
    now_s = state.now.monotonic_s
    for worker in state.workers.values():
        worker.heard_s = now_s
        if worker.state is WorkerState.AWAY:
            worker.away_until_s = now_s + state.settings.worker_grace_s


def gone(state: State, worker: Worker, why: str, *, counts_as: str) -> None:
    """End a worker: what it had and did not finish runs elsewhere."""
    worker.state = WorkerState.GONE
    worker.session = 0
    state.scheduler.worker_is_closed(worker)
    for attempt in list(worker.attempts.values()):
        if attempt.phase >= Phase.RETRIEVING:
            continue  # its outputs may be here already; staging tells how it ends
        state.fail_attempt(attempt, counts_as, _lost_result(state, attempt, why))
    state.emit(WorkerLeft(state.next_record(), worker.worker_id))
    settle(state, worker)
    _forget_old(state)


def _forget_old(state: State) -> None:
    old = [w for w in state.workers.values() if w.state is WorkerState.GONE and not w.attempts]
    for worker in old[: max(0, len(old) - GONE_WORKERS_KEPT)]:
        del state.workers[worker.worker_id]


def settle(state: State, worker: Worker) -> None:
    """Stop waiting for a worker that has come back or is given up after a start."""
    if worker.worker_id in state.awaited:
        del state.awaited[worker.worker_id]
        if not state.awaited:
            end_settling(state)


def end_settling(state: State) -> None:
    """Let the tasks go that were ready before the start."""
    state.awaited.clear()
    state.settle_at_s = None
    state.scheduler.settled()


def _lost_result(state: State, attempt: Attempt, why: str) -> AttemptResult:
    worker = state.worker_of(attempt)
    who = f"worker {worker.number} ({worker.host}): " if worker is not None else ""
    return AttemptResult(attempt.key, outcomes.WORKER_LOST, text=f"{who}{why}")
