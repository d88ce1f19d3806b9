"""The attempts a worker holds: from dispatch to the acknowledgement of their results.

Attempts start in the order of their dispatch as room allows: the first one whose inputs are there
and that does not fit holds up those behind it, so that small ones never starve a large one; those
whose inputs are on their way hold up nobody.

What is to be told is gathered in lists that the core empties once per event.
"""

from collections import Counter, deque
from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from wqueue.protocol.attempts import unpack_attempt
from wqueue.protocol.messages import (
    NO_EXIT_CODE,
    Assignment,
    AttemptResult,
    Describe,
    HeldAttempt,
    OutputResult,
    Usage,
)
from wqueue.protocol.names import show
from wqueue.protocol.outcomes import INPUT_MISSING, OUTPUT_FAILED, SANDBOX_FAILED
from wqueue.protocol.resources import Room
from wqueue.worker.core.attempt import (
    COLLECTING,
    QUEUED,
    RUNNING,
    STOPPING,
    Attempt,
    AttemptStatistics,
    Undelivered,
)
from wqueue.worker.core.cache import Cache
from wqueue.worker.core.events import (
    Collect,
    Collected,
    Effect,
    Ended,
    FileFailed,
    Finished,
    Kill,
    Start,
)
from wqueue.worker.core.job import Job
from wqueue.worker.core.settings import Settings
from wqueue.worker.core.verdict import deliverable, inline_outputs, judge, to_collect

STARTED_AFTER_S = 0.1
"""An attempt that runs longer is told as started; shorter ones save the message."""


class Holdings:
    """All attempts of a worker, its room and the descriptions of its jobs."""

    def __init__(self, settings: Settings, cache: Cache) -> None:
        self._kill_grace_s = settings.kill_grace_s
        self._cache = cache
        self._room = Room(settings.resources)
        self._gpus = deque(settings.gpu_ids)
        self._jobs: dict[bytes, Job] = {}
        self._attempts: dict[bytes, Attempt] = {}
        self._undelivered: dict[bytes, Undelivered] = {}
        # Those whose inputs are there, by order of dispatch; what was forgotten is skipped.
        self._ready: list[tuple[int, bytes]] = []
        self._young: deque[tuple[float, bytes]] = deque()
        self._order = 0
        self._states = Counter[str]()
        self._quarantined = 0
        self.finished: list[Finished] = []
        self.returned: dict[str, list[bytes]] = {}
        self.started: list[bytes] = []
        self.removed: list[bytes] = []
        self.repeated: list[bytes] = []

    # --- what the manager says ------------------------------------------------------------------

    def restore(self, results: list[AttemptResult], now_s: float) -> None:
        """Take over results that an earlier process could not deliver."""
        for result in results:
            ended_s = now_s - result.ended_ago_s
            self._undelivered[result.attempt] = Undelivered(deliverable(result), ended_s)

    def forget_jobs(self, job_uids: Iterable[bytes] | None = None) -> None:
        """Drop descriptions, by default all: a new session describes anew what it dispatches.

        Attempts keep the description they were dispatched with.
        """
        if job_uids is None:
            self._jobs.clear()
            return
        for uid in job_uids:
            self._jobs.pop(uid, None)

    def describe(self, describe: Describe) -> None:
        """Learn a job's description."""
        self._jobs[describe.job_uid] = Job(describe)

    def dispatch(self, assignment: Assignment, now_s: float) -> None:
        """Take an attempt on. One that is held already changes nothing; its result is repeated."""
        attempt_id = assignment.attempt
        if attempt_id in self._attempts:
            return
        if attempt_id in self._undelivered:
            self.repeated.append(attempt_id)
            return
        uid, index, _, _ = unpack_attempt(attempt_id)
        job = self._jobs.get(uid)
        if job is None:
            self._give_back(attempt_id, "unknown_job")
            return
        if not job.resources.fits_in(self._room.total):
            self._give_back(attempt_id, "does_not_fit")
            return
        filled = job.fill(assignment, index)
        self._order += 1
        attempt = Attempt(attempt_id, job, index, filled, self._order, now_s)
        self._attempts[attempt_id] = attempt
        self._states[QUEUED] += 1
        if filled.outcome:
            self._finish(attempt, filled.outcome, filled.text, [], now_s)
            return
        self._wait_for_inputs(attempt)

    def _wait_for_inputs(self, attempt: Attempt) -> None:
        pins = attempt.filled.pins
        if pins:
            lacking = {key: size for key, size in pins.items() if key not in attempt.pins}
            attempt.missing = self._cache.pin(attempt.id, lacking)
            attempt.pins = pins
        if not attempt.missing:
            heappush(self._ready, (attempt.order, attempt.id))

    def drop(self, attempt_id: bytes, reason: str, out: list[Effect]) -> None:
        """Stop an attempt in whatever state: given back with `reason`, or canceled without one."""
        attempt = self._attempts.get(attempt_id)
        if attempt is None:
            return
        if attempt.state == RUNNING:
            self._move(attempt, "stop")
            attempt.return_as = reason
            out.append(Kill(attempt_id, self._kill_grace_s))
        elif attempt.state == STOPPING:
            # A cancel outlives the wish to give it back: nobody waits for it any more.
            attempt.return_as = attempt.return_as and reason
        else:
            if attempt.state == QUEUED:
                self._unpin(attempt, out)
            elif attempt.ended is not None and attempt.ended.has_sandbox:
                self.removed.append(attempt_id)
            self._forget(attempt, reason)

    def drop_all(self, reason: str, out: list[Effect], *, with_running: bool) -> None:
        """Give back what is queued, and with `with_running` also what runs."""
        for attempt in list(self._attempts.values()):
            if attempt.state == QUEUED or (with_running and attempt.state == RUNNING):
                self.drop(attempt.id, reason, out)

    def abandon_all(self, reason: str, out: list[Effect]) -> None:
        """Kill at once and give back all that has not finished, without waiting for any end."""
        for attempt in list(self._attempts.values()):
            if attempt.state in (RUNNING, STOPPING):
                out.append(Kill(attempt.id, 0.0))
            if attempt.state != STOPPING or attempt.return_as:
                self._give_back(attempt.id, reason)
        self._attempts.clear()
        self._states.clear()

    def take_back(self, attempt_id: bytes, out: list[Effect]) -> None:
        """Give an attempt back if it has not begun."""
        attempt = self._attempts.get(attempt_id)
        if attempt is not None and attempt.state == QUEUED:
            self.drop(attempt_id, "taken_back", out)

    def acknowledge(self, attempt_ids: Iterable[bytes]) -> list[bytes]:
        """Forget results and give those that were there."""
        gone = []
        for attempt_id in attempt_ids:
            held = self._undelivered.pop(attempt_id, None)
            if held is not None:
                self._quarantined -= held.is_quarantined
                gone.append(attempt_id)
        return gone

    def quarantine(self, attempt_ids: Iterable[bytes]) -> None:
        """Keep results that the manager does not know, without repeating them."""
        for attempt_id in attempt_ids:
            held = self._undelivered.get(attempt_id)
            if held is not None and not held.is_quarantined:
                held.is_quarantined = True
                self._quarantined += 1

    # --- what happens here ----------------------------------------------------------------------

    def file_cached(self, key: bytes, size: int, now_s: float) -> None:
        """Note that an input has arrived."""
        for attempt_id in self._cache.arrived(key, size):
            attempt = self._attempts[attempt_id]
            attempt.missing -= 1
            if not attempt.missing:
                attempt.ready_s = now_s
                heappush(self._ready, (attempt.order, attempt_id))

    def file_failed(self, event: FileFailed, now_s: float, out: list[Effect]) -> None:
        """End the attempts whose input cannot be had."""
        outcome = SANDBOX_FAILED if event.is_own_fault else INPUT_MISSING
        for attempt_id in self._cache.failed(event.key):
            attempt = self._attempts[attempt_id]
            self._unpin(attempt, out)
            name = next(name for key, name, _ in attempt.filled.links if key == event.key)
            self._finish(attempt, outcome, f"Input {show(name)!r}: {event.text}", [], now_s)

    def file_spoiled(self, key: bytes, out: list[Effect]) -> None:
        """Let a changed file be fetched again for those that have not begun; the others keep it."""
        if not self._cache.is_here(key):
            return
        waiting = []
        for attempt in self._attempts.values():
            if key not in attempt.pins:
                continue
            if attempt.state == QUEUED:
                attempt.missing += 1
                waiting.append(attempt.id)
            else:
                attempt.pins = {k: size for k, size in attempt.pins.items() if k != key}
        self._cache.spoil(key, waiting, out)
        gone = set(waiting)
        self._ready = [entry for entry in self._ready if entry[1] not in gone]
        heapify(self._ready)

    def not_started(self, attempt_id: bytes, out: list[Effect]) -> None:
        """Let an attempt wait once more: an input of it was spoiled."""
        attempt = self._attempts.get(attempt_id)
        if attempt is None:
            return
        self._vacate(attempt)
        if attempt.state == STOPPING:
            self._unpin(attempt, out)
            self._forget(attempt, attempt.return_as)
            return
        self._move(attempt, "wait")
        self._young = deque(entry for entry in self._young if entry[1] != attempt_id)
        self._wait_for_inputs(attempt)

    def start_ready(self, now_s: float, out: list[Effect]) -> None:
        """Start what has its inputs and fits, in the order of dispatch."""
        ready = self._ready
        while ready:
            attempt = self._attempts.get(ready[0][1])
            if attempt is None or attempt.state != QUEUED:
                heappop(ready)
                continue
            job = attempt.job
            if not self._room.fits(job.resources):
                return
            heappop(ready)
            self._room.take(job.resources)
            if job.resources.gpus:
                attempt.gpu_ids = tuple(self._gpus.popleft() for _ in range(job.resources.gpus))
            attempt.started_s = now_s
            self._move(attempt, "start")
            self._young.append((now_s + STARTED_AFTER_S, attempt.id))
            filled = attempt.filled
            out.append(
                Start(
                    attempt.id,
                    filled.command,
                    job.template.is_shell,
                    job.environment(filled, attempt.index, attempt.gpu_ids),
                    filled.links,
                    filled.outputs,
                )
            )

    def ended(self, ended: Ended, now_s: float, out: list[Effect]) -> None:
        """Judge an attempt whose process has ended, or forget one that was stopped."""
        attempt = self._attempts.get(ended.attempt)
        if attempt is None or attempt.state not in (RUNNING, STOPPING):
            return
        attempt.ended = ended
        self._vacate(attempt)
        self._unpin(attempt, out)
        filled = attempt.filled
        if attempt.state == STOPPING:
            if ended.has_sandbox:
                self.removed.append(attempt.id)
            self._forget(attempt, attempt.return_as)
            return
        wanted = to_collect(ended, filled.outputs)
        if wanted:
            self._move(attempt, "collect")
            out.append(Collect(attempt.id, wanted))
            return
        outcome, text = judge(ended, filled.outputs)
        self._finish(attempt, outcome, text, inline_outputs(ended), now_s)

    def collected(self, event: Collected, now_s: float) -> None:
        """Finish an attempt whose larger outputs are known now."""
        attempt = self._attempts.get(event.attempt)
        if attempt is None or attempt.state != COLLECTING:
            return
        ended = attempt.ended
        assert ended is not None, attempt.id
        outcome, text = judge(ended, attempt.filled.outputs)
        if event.text:
            outcome, text = OUTPUT_FAILED, event.text
        self._finish(attempt, outcome, text, inline_outputs(ended) + event.outputs, now_s)

    def tell_started(self, now_s: float) -> None:
        """Gather the attempts that have run for STARTED_AFTER_S."""
        young = self._young
        while young and young[0][0] <= now_s:
            attempt = self._attempts.get(young.popleft()[1])
            if attempt is not None and attempt.state == RUNNING:
                self.started.append(attempt.id)

    # --- moves ----------------------------------------------------------------------------------

    def _move(self, attempt: Attempt, name: str) -> None:
        self._states[attempt.state] -= 1
        attempt.move(name)
        self._states[attempt.state] += 1

    def _vacate(self, attempt: Attempt) -> None:
        self._room.give_back(attempt.job.resources)
        self._gpus.extend(attempt.gpu_ids)

    def _unpin(self, attempt: Attempt, out: list[Effect]) -> None:
        if attempt.pins:
            self._cache.unpin(attempt.id, attempt.pins, out)
            attempt.pins = {}

    def _forget(self, attempt: Attempt, reason: str) -> None:
        self._states[attempt.state] -= 1
        del self._attempts[attempt.id]
        if reason:
            self._give_back(attempt.id, reason)

    def _give_back(self, attempt_id: bytes, reason: str) -> None:
        self.returned.setdefault(reason, []).append(attempt_id)

    def _finish(
        self, attempt: Attempt, outcome: str, text: str, outputs: list[OutputResult], now_s: float
    ) -> None:
        ended = attempt.ended
        result = deliverable(
            AttemptResult(
                attempt.id,
                outcome,
                ended.exit_code if ended else NO_EXIT_CODE,
                ended.signal if ended else 0,
                text[:4096],
                _usage(attempt, ended),
                outputs,
            )
        )
        files = []
        for output in result.outputs:
            if output.inline is None:
                is_declared = output.position < len(attempt.filled.outputs)
                name = attempt.filled.outputs[output.position] if is_declared else b""
                files.append((output.position, name))
        self._forget(attempt, "")
        self._undelivered[attempt.id] = Undelivered(result, now_s)
        self.finished.append(Finished(result, ended is not None and ended.has_sandbox, files))

    # --- what is there --------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to run and nothing to deliver."""
        return not self._attempts and len(self._undelivered) == self._quarantined

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is queued, runs or is collected."""
        return not self._attempts

    def deadline(self) -> float | None:
        """Tell when tell_started has something to do."""
        young = self._young
        while young:
            attempt = self._attempts.get(young[0][1])
            if attempt is not None and attempt.state == RUNNING:
                return young[0][0]
            young.popleft()
        return None

    def inventory(self, now_s: float) -> list[HeldAttempt]:
        """List what a new session must know; those to be told as started are told by this."""
        self._young.clear()
        self.started.clear()
        held = []
        for attempt in self._attempts.values():
            if attempt.state == QUEUED:
                held.append(HeldAttempt(attempt.id, "queued"))
            elif attempt.state != STOPPING or attempt.return_as:
                held.append(HeldAttempt(attempt.id, "running", max(0.0, now_s - attempt.started_s)))
        held += [
            HeldAttempt(attempt_id, "finished")
            for attempt_id, undelivered in self._undelivered.items()
            if not undelivered.is_quarantined
        ]
        return held

    def quarantined(self) -> list[bytes]:
        """List the results that no manager knew."""
        return [a for a, held in self._undelivered.items() if held.is_quarantined]

    def undelivered(self, now_s: float) -> list[AttemptResult]:
        """Give all results that are to be repeated on a new session."""
        return [
            _aged(held, now_s) for held in self._undelivered.values() if not held.is_quarantined
        ]

    def result(self, attempt_id: bytes, now_s: float) -> AttemptResult | None:
        """Give one result that waits to be acknowledged."""
        held = self._undelivered.get(attempt_id)
        return None if held is None else _aged(held, now_s)

    def statistics(self) -> AttemptStatistics:
        """Count."""
        states = self._states
        return AttemptStatistics(
            states[QUEUED],
            sum(1 for a in self._attempts.values() if a.missing),
            states[RUNNING],
            states[STOPPING],
            states[COLLECTING],
            len(self._undelivered) - self._quarantined,
            self._quarantined,
        )

    def counts(self) -> tuple[int, int, int]:
        """Give queued, running and unacknowledged, as a heartbeat tells them."""
        states = self._states
        running = states[RUNNING] + states[STOPPING] + states[COLLECTING]
        return states[QUEUED], running, len(self._undelivered) - self._quarantined

    def check(self, is_settled: bool) -> None:
        """Assert every invariant; `is_settled` says that inputs can be fetched now."""
        room = Room(self._room.total)
        gpus = list(self._gpus)
        pins = Counter[bytes]()
        ready = {attempt_id for _, attempt_id in self._ready}
        for attempt_id, attempt in self._attempts.items():
            assert attempt.id == attempt_id
            assert attempt_id not in self._undelivered, attempt_id
            if attempt.state in (RUNNING, STOPPING):
                room.take(attempt.job.resources)
                assert len(attempt.gpu_ids) == attempt.job.resources.gpus
                gpus += attempt.gpu_ids
            pins.update(attempt.pins.keys())
            if attempt.state == QUEUED:
                assert (attempt.missing == 0) == (attempt_id in ready), attempt_id
        assert room.left() == self._room.left(), (room.left(), self._room.left())
        assert len(set(gpus)) == len(gpus) == self._room.total.gpus, gpus
        states = Counter(attempt.state for attempt in self._attempts.values())
        assert +self._states == states, (self._states, states)
        assert self._quarantined == len(self.quarantined())
        untold = [self.returned, self.removed, self.repeated]
        assert not any(untold), untold
        assert all(f.result.attempt in self._undelivered for f in self.finished)
        assert not (self.finished and self.is_at_rest)
        self._cache.check(pins, is_settled)


def _aged(held: Undelivered, now_s: float) -> AttemptResult:
    r = held.result
    ago_s = max(0.0, now_s - held.ended_s)
    return AttemptResult(
        r.attempt, r.outcome, r.exit_code, r.signal, r.text, r.usage, r.outputs, ago_s
    )


def _usage(attempt: Attempt, ended: Ended | None) -> Usage:
    stage_in_s = max(0.0, attempt.ready_s - attempt.queued_s)
    if ended is None:
        return Usage(stage_in_s=stage_in_s)
    return Usage(
        ended.wall_s,
        ended.user_s,
        ended.system_s,
        ended.memory_peak_mb,
        stage_in_s,
        max(0.0, attempt.started_s - attempt.ready_s),
    )
