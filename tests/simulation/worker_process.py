"""One work folder and the worker processes that live in it, one after the other."""

from collections.abc import Callable
from hashlib import sha256
from random import Random

from simulation.checks import Checks
from simulation.faults import Faults, Options
from simulation.manager_process import ManagerProcess
from simulation.network import Link
from simulation.schedule import Schedule, Ticker
from wqueue.protocol.messages import (
    AttemptResult,
    FromWorker,
    ManagerHeartbeat,
    OutputResult,
    Result,
    ResultAck,
)
from wqueue.protocol.resources import Resources, Room
from wqueue.worker.core.core import Core
from wqueue.worker.core.events import (
    Acknowledge,
    Append,
    Began,
    Collect,
    Collected,
    Connect,
    Connected,
    ConnectFailed,
    Disconnect,
    DropFetch,
    Effect,
    Ended,
    Event,
    Evict,
    Exit,
    Fetch,
    FilesCached,
    Heard,
    Kill,
    LinkLost,
    Note,
    OpenResults,
    OutputFound,
    Remove,
    Reported,
    Restored,
    ResultsOpened,
    SendResults,
    SendTask,
    Start,
    StopRequested,
    Ticked,
)
from wqueue.worker.core.settings import Settings

RESTART_S = 3.0
"""Longest time until a crashed worker is started again on its work folder."""

TASK_CORES = 1000


class WorkFolder:
    """What outlives a worker process: its outbox."""

    def __init__(self, number: int, cores: int) -> None:
        self.number = number
        self.cores = cores
        self.outbox: dict[bytes, AttemptResult] = {}
        self.processes = 0


class WorkerProcess:
    """From start to crash: the real core, with processes, disk and sockets in virtual time."""

    def __init__(
        self,
        folder: WorkFolder,
        options: Options,
        schedule: Schedule,
        faults: Faults,
        checks: Checks,
        find_manager: Callable[[], ManagerProcess | None],
        trace: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._options = options
        self._schedule = schedule
        self._faults = faults
        self._checks = checks
        self._find_manager = find_manager
        self._trace = trace
        self._dice = Random(f"{folder.number}/{folder.processes}/{schedule.dice.random()}")
        folder.processes += 1
        self.is_alive = True
        self._link: Link | None = None
        self._manager: ManagerProcess | None = None
        self._connection = 0
        self._cut_off_until_s = 0.0
        self._heard = 0
        self._running: dict[bytes, int] = {}
        self._ended_already: dict[bytes, None] = {}
        self._ticker = Ticker(schedule, lambda: self.handle(Ticked()))
        total = Resources(folder.cores * 1000)
        self._room = Room(total)
        secret = sha256(f"{folder.number}/{folder.processes}".encode()).digest()
        settings = Settings(
            resume_secret=secret,
            resources=total,
            host=f"host{folder.number}",
            idle_timeout_s=0.0,
            connect_timeout_s=1e6,
            kill_grace_s=1.0,
        )
        self.core = Core(settings, schedule.now_s)
        self.handle(Restored(list(folder.outbox.values())))

    # --- the loop -------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        """Feed the core and carry out what it wants; a crash may come between any two effects."""
        if not self.is_alive:
            return
        effects = self.core.handle(event, self._schedule.now_s)
        self.core.check()
        self._trace(f"worker {self._folder.number} {type(event).__name__}")
        for effect in effects:
            if self._faults.strikes("worker_crash"):
                self.crash()
                return
            self._carry_out(effect)
        self._ticker.plan(self.core.deadline())
        if self._faults.strikes("worker_leaves"):
            self._schedule.soon(lambda: self.handle(StopRequested("SIGTERM")))

    def crash(self) -> None:
        """Die by kill -9: its tasks die with it, the outbox stays; a new process follows."""
        self._trace(f"worker {self._folder.number} crashed")
        self._end()
        self._schedule.soon(self._start_again, RESTART_S)

    def _end(self) -> None:
        self.is_alive = False
        self._running.clear()
        if self._link is not None:
            self._link.lose()

    def _start_again(self) -> None:
        WorkerProcess(
            self._folder,
            self._options,
            self._schedule,
            self._faults,
            self._checks,
            self._find_manager,
            self._trace,
        )

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Connect():
                delay_s = effect.delay_s + self._dice.random() * effect.spread_s
                self._schedule.after(delay_s, lambda: self._connect(effect.session))
            case Disconnect():
                self._disconnect()
            case OpenResults():
                self._schedule.soon(lambda: self.handle(ResultsOpened(effect.session)))
            case SendTask():
                self._send("task", effect.message)
            case SendResults():
                self._send("result", Result(effect.results))
            case Fetch():
                self._schedule.soon(
                    lambda: self.handle(FilesCached([(effect.key, effect.size)])), 0.1
                )
            case Start():
                self._start(effect)
            case Kill():
                self._schedule.soon(lambda: self._kill(effect.attempt), effect.grace_s)
            case Collect():
                self._collect(effect)
            case Append():
                for finished in effect.finished:
                    self._folder.outbox[finished.result.attempt] = finished.result
            case Acknowledge():
                for attempt in effect.attempts:
                    self._folder.outbox.pop(attempt, None)
            case Note():
                self._trace(f"worker {self._folder.number} notes: {effect.text}")
            case Exit():
                self._end()
                self._schedule.soon(self._start_again, RESTART_S)
            case DropFetch() | Evict() | Remove():
                pass

    # --- links ------------------------------------------------------------------------------------

    def _connect(self, session: int) -> None:
        if not self.is_alive:
            return
        is_cut_off = self._schedule.now_s < self._cut_off_until_s
        manager = None if is_cut_off else self._find_manager()
        if manager is None:
            failed = ConnectFailed(session, "unreachable", "nobody answers", 3)
            self._schedule.soon(lambda: self.handle(failed), 0.1)
            return
        link = Link(self._schedule, self._faults)
        self._link = link
        self._manager = manager
        self._connection = manager.connect_worker(link, lambda m: self._hear(session, link, m))
        link.when_lost(lambda: self._lost(session, link))
        epoch = manager.epoch
        self._schedule.soon(lambda: self.handle(Connected(session, epoch)))

    def _disconnect(self) -> None:
        if self._link is not None:
            link, self._link = self._link, None
            link.lose()

    def _lost(self, session: int, link: Link) -> None:
        if link is self._link:
            self._link = None
            if self._faults.strikes("cut_off"):
                self._cut_off_until_s = self._schedule.now_s + self._options.cut_off_s
            self.handle(LinkLost(session, "the link broke"))

    def _send(self, door: str, message: FromWorker) -> None:
        link, manager, connection = self._link, self._manager, self._connection
        if link is not None and manager is not None:
            link.carry(door, lambda: manager.hear_worker(connection, message))

    def _hear(self, session: int, link: Link, message: object) -> None:
        if link is not self._link:
            return
        self._heard += 1
        door = "task"
        if isinstance(message, ResultAck):
            door = "result"
        elif isinstance(message, ManagerHeartbeat):
            door = "announce"
        self.handle(Heard(session, door, self._heard, [message]))  # type: ignore[list-item]

    # --- processes --------------------------------------------------------------------------------

    def _start(self, effect: Start) -> None:
        attempt = effect.attempt
        assert attempt not in self._running, "an attempt was started twice by one worker"
        self._checks.started(attempt)
        self._room.take(Resources(TASK_CORES))
        self._running[attempt] = 1
        self.handle(Reported([Began(attempt)]))
        duration_s = self._dice.expovariate(1.0 / self._options.task_s)
        self._schedule.after(duration_s, lambda: self._exit(effect))

    def _exit(self, effect: Start) -> None:
        if not self.is_alive or self._running.pop(effect.attempt, None) is None:
            return
        self._room.give_back(Resources(TASK_CORES))
        exit_code = 1 if self._dice.random() < 0.1 else 0
        outputs = []
        for position, _ in enumerate(effect.outputs):
            content = f"{effect.attempt.hex()}/{position}".encode()
            is_small = self._dice.random() < 0.5
            size = len(content) if is_small else 100_000
            outputs.append(OutputFound(position, "ok", size, inline=content if is_small else None))
        ended = Ended(effect.attempt, "exited", exit_code, outputs=outputs, has_sandbox=True)
        self.handle(Reported([ended]))

    def _kill(self, attempt: bytes) -> None:
        if self.is_alive and self._running.pop(attempt, None) is not None:
            self._room.give_back(Resources(TASK_CORES))
            self.handle(Reported([Ended(attempt, "signaled", signal=15, has_sandbox=True)]))

    def _collect(self, effect: Collect) -> None:
        found = [
            OutputResult(position, 100_000, mode, sha256(effect.attempt).digest())
            for position, _, mode in effect.outputs
        ]
        self._schedule.soon(lambda: self.handle(Collected(effect.attempt, found)), 0.02)
