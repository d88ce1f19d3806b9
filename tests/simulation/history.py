"""One seed, one history: faults first, then healing, after which everything must end."""

from hashlib import sha256
from random import Random

from msgspec import Struct

from simulation.checks import Checks
from simulation.client_process import ClientProcess
from simulation.faults import Faults, Options, draw_options
from simulation.manager_process import ManagerProcess
from simulation.model_store import Tables
from simulation.schedule import Schedule
from simulation.worker_process import WorkerProcess, WorkFolder
from wqueue.protocol.messages import JobRange, JobSpec, OutputSpec, TaskTemplate

HEALED_WITHIN_S = 2000.0
"""Virtual time after the last fault in which all must end: graces, waits and retries included."""

MANAGER_RESTART_S = 8.0
"""Longest time until a crashed manager is started again."""


class Outcome(Struct, frozen=True):
    """What a history came to."""

    seed: int
    options: Options
    events: int
    virtual_s: float
    faults: dict[str, int]
    attempts: int
    tasks: int
    trace_digest: str


class History:
    """The whole of a simulated installation."""

    def __init__(self, seed: int, options: Options | None = None, trace: bool = False) -> None:
        self.seed = seed
        self._dice = Random(seed)
        self.options = options or draw_options(self._dice)
        self._schedule = Schedule(self._dice)
        self._faults = Faults(self.options, self._dice)
        self._checks = Checks()
        self._tables = Tables()
        self._digest = sha256()
        self.lines: list[str] | None = [] if trace else None
        self._manager: ManagerProcess | None = None
        self._start_manager()
        for number in range(self.options.workers):
            folder = WorkFolder(number, self._dice.choice((1, 2, 4)))
            self._schedule.soon(lambda folder=folder: self._start_worker(folder), 10.0)  # type: ignore[misc]
        self._client = ClientProcess(
            [self._draw_job() for _ in range(self.options.jobs)],
            self._schedule,
            self._faults,
            self._checks,
            self._find_manager,
        )
        self._plan_cancel()

    def run(self) -> Outcome:
        """Let it happen; AssertionError when something is broken."""
        self._schedule.after(self.options.faults_end_s, self._heal)
        limit_s = self._schedule.now_s + self.options.faults_end_s + HEALED_WITHIN_S
        is_done = self._schedule.run_until(lambda: self._client.is_done, limit_s)
        assert is_done, f"not done {HEALED_WITHIN_S} s after the last fault: {self._left()}"
        self._checks.at_the_end(self._tables)
        return Outcome(
            self.seed,
            self.options,
            self._schedule.events,
            self._schedule.now_s,
            self._faults.seen,
            len(self._checks.starts),
            sum(wanted.spec.count for wanted in self._client.wanted),
            self._digest.hexdigest(),
        )

    def _left(self) -> str:
        left = [
            f"job {w.job}: {len(w.got)} of {w.spec.count}, {w.canceled} canceled, {w.is_ended=}"
            for w in self._client.wanted
        ]
        manager = self._manager
        if manager is not None:
            left += [str(job.shown_counts()) for job in manager.core.state.jobs.values()]
        return "; ".join(left)

    def _trace(self, line: str) -> None:
        text = f"{self._schedule.now_s:.6f} {line}"
        self._digest.update(text.encode())
        if self.lines is not None:
            self.lines.append(text)

    def _heal(self) -> None:
        self._faults.is_over = True

    def _find_manager(self) -> ManagerProcess | None:
        return self._manager

    def _start_manager(self) -> None:
        def crashed() -> None:
            self._manager = None
            self._schedule.soon(self._start_manager, MANAGER_RESTART_S)

        manager = ManagerProcess(
            self._schedule,
            self._faults,
            self._tables,
            self._checks,
            crashed,
            self._trace,
            self.options.staging_s,
        )
        if manager.is_alive:
            self._manager = manager

    def _start_worker(self, folder: WorkFolder) -> None:
        WorkerProcess(
            folder,
            self.options,
            self._schedule,
            self._faults,
            self._checks,
            self._find_manager,
            self._trace,
        )

    def _draw_job(self) -> JobSpec:
        outputs = [
            OutputSpec(b"out.%d" % n, b"/data/{}.%d" % n)
            for n in range(self._dice.choice((0, 0, 2)))
        ]
        return JobSpec(
            TaskTemplate([b"work", b"{}"], is_array=True, outputs=outputs),
            count=self._dice.randint(1, self.options.tasks),
            priority=float(self._dice.choice((0, 0, 5))),
            max_retries=self._dice.choice((-1, 0, 2)),
        )

    def _plan_cancel(self) -> None:
        wanted = self._client.wanted[0]
        if self._dice.random() < 0.3:
            first = self._dice.randrange(wanted.spec.count)
            tasks = JobRange(0, first, wanted.spec.count // 2)
            at_s = self._dice.random() * self.options.faults_end_s
            self._client.cancel_later(wanted, tasks, at_s)
