"""All that the manager's core knows, and the few verbs by which its rooms change it.

The functions in submissions.py, registration.py, results.py and dispatch.py are the reactions to
events; this is what they share. Effects gather in `effects` in the order in which they must happen.
"""

from collections import deque

from wqueue.manager.core.events import (
    AttemptFailed,
    AttemptStarted,
    DiscardOutputs,
    Effect,
    JobEnded,
    Note,
    Now,
    Reply,
    Send,
    TaskEnded,
)
from wqueue.manager.core.job import Attempt, Job
from wqueue.manager.core.limits import LOST_MAX, Settings
from wqueue.manager.core.scheduler import Scheduler
from wqueue.manager.core.task import Phase, TaskState
from wqueue.manager.core.worker import Worker
from wqueue.protocol import outcomes
from wqueue.protocol.attempts import pack_attempt
from wqueue.protocol.messages import (
    AttemptResult,
    Cancel,
    CancelTasks,
    Progress,
    ResultAck,
    TaskRecord,
)


class Canceling:
    """A request to cancel, carried out in steps so that the loop is never held up."""

    def __init__(self, client: int, message: CancelTasks) -> None:
        self.client = client
        self.request = message.request
        self.ranges = list(reversed(message.ranges))
        self.count = 0


class State:
    """The manager's memory. Everything in it can be made anew from the store."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.now = Now(0.0, 0.0)
        self.effects: list[Effect] = []
        self.epoch = 0
        self.next_job = 1
        self.next_worker = 1
        self.record = 0
        self.jobs: dict[int, Job] = {}
        self.jobs_by_uid: dict[bytes, Job] = {}
        self.unended: dict[int, Job] = {}
        self.totals = [0] * len(TaskState)
        self.submissions: dict[tuple[bytes, bytes], tuple[int, bytes]] = {}
        self.workers: dict[bytes, Worker] = {}
        self.sessions: dict[int, Worker] = {}
        self.client_jobs: dict[int, dict[int, None]] = {}
        self.scheduler = Scheduler()
        self.awaited: dict[bytes, None] = {}
        self.settle_at_s: float | None = None
        self.look_at_workers_at_s = float("inf")
        self.store_error = ""
        self.is_stopping = False
        self.cancelings: deque[Canceling] = deque()
        self.retries: dict[bytes, Attempt] = {}
        self.publishing: dict[bytes, TaskRecord] = {}
        self._attempts_made = 0
        self._acks: dict[tuple[int, str], list[bytes]] = {}
        self._dirty_jobs: dict[int, Job] = {}

    # --- effects ------------------------------------------------------------------------------

    def emit(self, effect: Effect) -> None:
        """Want `effect`."""
        self.effects.append(effect)

    def note(self, level: str, text: str) -> None:
        """Want a line in the log."""
        self.effects.append(Note(level, text))

    def next_record(self) -> int:
        """Give the number for the next record."""
        self.record += 1
        return self.record

    def look_again_by(self, at_s: float) -> None:
        """Look at the workers' silences and graces at this time at the latest."""
        self.look_at_workers_at_s = min(self.look_at_workers_at_s, at_s)

    def acknowledge(self, session: int, attempt: bytes, verdict: str) -> None:
        """Want a result acknowledged; those of one event go out together, after its records."""
        self._acks.setdefault((session, verdict), []).append(attempt)

    def mark_dirty(self, job: Job) -> None:
        """Note that those who watch `job` are to be told."""
        if job.watchers:
            self._dirty_jobs[job.number] = job

    def flush(self) -> None:
        """Turn what gathered during one event into effects."""
        for (session, verdict), attempts in self._acks.items():
            if session in self.sessions:
                self.emit(Send(session, ResultAck(attempts, verdict), after=self.record))
        self._acks.clear()
        for job in self._dirty_jobs.values():
            for client in job.watchers:
                self.emit(Reply(client, progress_of(job), after=self.record))
        self._dirty_jobs.clear()

    # --- attempts -----------------------------------------------------------------------------

    def start_attempt(self, job: Job, index: int, worker: Worker) -> Attempt:
        """Make the next attempt of a ready task at `worker`."""
        self._attempts_made += 1
        key = pack_attempt(job.uid, index, self.epoch, self._attempts_made)
        attempt = Attempt(key, job, index, worker.worker_id, self.now.monotonic_s)
        job.add_attempt(attempt)
        job.tries[index] = job.tries.get(index, 0) + 1
        worker.add(attempt)
        self.emit(
            AttemptStarted(
                self.next_record(), key, job.number, index, worker.worker_id, worker.number,
                self.now.wall_s,
            )
        )  # fmt: skip
        return attempt

    def adopt_attempt(self, key: bytes, job: Job, index: int, worker: Worker | None) -> Attempt:
        """Take up an attempt that a worker reports and that is not known here."""
        worker_id = worker.worker_id if worker is not None else b""
        attempt = Attempt(key, job, index, worker_id, self.now.monotonic_s)
        job.add_attempt(attempt)
        job.tries[index] = job.tries.get(index, 0) + 1
        if worker is not None:
            worker.attempts[key] = attempt
        return attempt

    def hand_over(self, attempt: Attempt, worker: Worker) -> None:
        """Note that another worker process has an attempt: it delivers what an older one did."""
        before = self.worker_of(attempt)
        if before is not None:
            before.remove(attempt)
        attempt.worker_id = worker.worker_id
        worker.attempts[attempt.key] = attempt

    def worker_of(self, attempt: Attempt) -> Worker | None:
        """Give the worker that has an attempt; None if none is known to have it."""
        return self.workers.get(attempt.worker_id)

    def drop_attempt(self, attempt: Attempt) -> None:
        """Forget an attempt; its task is ready again unless something else speaks for it."""
        worker = self.worker_of(attempt)
        if worker is not None:
            worker.remove(attempt)
            self.scheduler.worker_has_room(worker)
        self.retries.pop(attempt.key, None)
        job = attempt.job
        job.remove_attempt(attempt)
        if job.state(attempt.index) is TaskState.READY:
            self.scheduler.job_is_ready(job)

    def fail_attempt(self, attempt: Attempt, counts_as: str, result: AttemptResult) -> None:
        """End an attempt that did not end its task, unless the retries are used up."""
        job, index = attempt.job, attempt.index
        if self._is_used_up(job, index, counts_as) and len(job.active[index]) == 1:
            self.end_task(attempt, self.make_record(attempt, result, self.next_event(job)))
            return
        if counts_as == "lost":
            job.lost[index] = job.lost.get(index, 0) + 1
        elif counts_as == "failure":
            job.failures[index] = job.failures.get(index, 0) + 1
        record = self.next_record()
        self.emit(AttemptFailed(record, attempt.key, job.number, index, counts_as, result))
        self.drop_attempt(attempt)

    def is_lost_too_often(self, job: Job, index: int) -> bool:
        """Tell whether no further attempt makes up for what is not the task's own fault."""
        return job.lost.get(index, 0) >= max(LOST_MAX, job.spec.max_retries)

    def _is_used_up(self, job: Job, index: int, counts_as: str) -> bool:
        if counts_as == "lost":
            return self.is_lost_too_often(job, index)
        if counts_as == "failure":
            return job.failures.get(index, 0) >= max(0, job.spec.max_retries)
        return False

    def retry_later(self, attempt: Attempt, pause_s: float) -> None:
        """Look at the outputs of an attempt again after a pause."""
        attempt.retry_at_s = self.now.monotonic_s + pause_s
        self.retries[attempt.key] = attempt

    def take_due_retries(self) -> list[Attempt]:
        """Give the attempts whose pause is over, and forget that they paused."""
        now_s = self.now.monotonic_s
        due = [a for a in self.retries.values() if a.retry_at_s <= now_s]
        for attempt in due:
            del self.retries[attempt.key]
        return due

    # --- ends ------------------------------------------------------------------------------------

    def next_event(self, job: Job) -> int:
        """Give the number of the event that the end of a task is, in the order of the records."""
        job.events += 1
        return job.events

    def make_record(self, attempt: Attempt, result: AttemptResult, event: int = 0) -> TaskRecord:
        """Make the final record of a task from the result of the attempt that ends it.

        While its outputs are being published it has no event yet: other tasks may end before.
        """
        job, worker = attempt.job, self.worker_of(attempt)
        return TaskRecord(
            job=job.number,
            index=attempt.index,
            event=event,
            outcome=result.outcome,
            exit_code=result.exit_code,
            signal=result.signal,
            text=result.text,
            worker=worker.number if worker is not None else 0,
            host=worker.host if worker is not None else "",
            tries=job.tries.get(attempt.index, 1),
            usage=result.usage,
            outputs=result.outputs,
            ended_wall_s=self.now.wall_s,
            attempt=attempt.key,
        )

    def end_task(self, attempt: Attempt, task: TaskRecord) -> None:
        """End a task by one of its attempts; the other attempts are canceled."""
        job, index = attempt.job, attempt.index
        worker = self.worker_of(attempt)
        if worker is not None and task.outcome != outcomes.WORKER_LOST:
            succeeded = task.outcome == outcomes.SUCCEEDED
            worker.done += 1
            worker.failed += not succeeded
        self.emit(TaskEnded(self.next_record(), attempt.key, job.number, index, task))
        self.close_task(job, index, task.outcome, winner=attempt)

    def close_task(self, job: Job, index: int, outcome: str, winner: Attempt | None = None) -> None:
        """Put a task into its final state and stop whatever attempts it still has."""
        attempts = job.active.pop(index, [])
        if outcome == outcomes.CANCELED:
            state = TaskState.CANCELED
        else:
            state = TaskState.DONE if outcome == outcomes.SUCCEEDED else TaskState.FAILED
        job.set_state(index, state)
        for attempt in attempts:
            self._stop_attempt(attempt, is_winner=attempt is winner)
        job.lost.pop(index, None)
        job.failures.pop(index, None)
        job.tries.pop(index, None)
        self.mark_dirty(job)
        self.note_if_ended(job)
        if job.is_ended and not job.ended_wall_s:
            self.end_job(job, is_canceled=False)

    def _stop_attempt(self, attempt: Attempt, *, is_winner: bool) -> None:
        worker = self.worker_of(attempt)
        self.retries.pop(attempt.key, None)
        if attempt.phase is Phase.RETRIEVING:
            self.emit(DiscardOutputs(attempt.job.number, attempt.index, attempt.key))
        if worker is None:
            return
        worker.remove(attempt)
        self.scheduler.worker_has_room(worker)
        if is_winner or not worker.session:
            return
        if attempt.phase >= Phase.FINISHED:
            self.acknowledge(worker.session, attempt.key, "superseded")
        else:
            self.emit(Send(worker.session, Cancel([attempt.key])))

    def note_if_ended(self, job: Job) -> None:
        """Take a job with nothing left to do out of those that views walk."""
        if job.is_ended:
            self.unended.pop(job.number, None)

    def end_job(self, job: Job, *, is_canceled: bool) -> None:
        """Note in the store that nothing of a job is left to do."""
        job.ended_wall_s = self.now.wall_s
        self.emit(JobEnded(self.next_record(), job.number, self.now.wall_s, is_canceled))
        self.mark_dirty(job)


def progress_of(job: Job) -> Progress:
    """Say how far a job is."""
    return Progress(job.number, job.events, job.shown_counts(), job.is_ended)
