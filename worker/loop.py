"""The only place of a worker that blocks: wait, tell the core what happened, do what it wants.

What the core wants is gathered during a turn and done once at its end, in an order that keeps the
contract: results are in the outbox before they are sent.
"""

import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from wqueue.protocol.link import Proven
from wqueue.protocol.messages import Data, Get, GetFailed
from wqueue.worker import orders
from wqueue.worker.cache_files import CacheFiles
from wqueue.worker.core import events
from wqueue.worker.core.core import Core
from wqueue.worker.core.events import Began, Ended, Finished, OutputFound
from wqueue.worker.downloads import Downloads
from wqueue.worker.file_threads import FileThreads
from wqueue.worker.outbox import Kept, Outbox
from wqueue.worker.outputs import Outputs, output_path
from wqueue.worker.poll import Poll
from wqueue.worker.process import Spawner
from wqueue.worker.wire import Wire
from wqueue.worker.workdir import Workdir, remove_sandbox

MEASURE_S = 5.0
"""Interval at which load and free disk are measured for the heartbeats."""

STALL_S = 10.0
"""A loop that comes this much too late had stood still (suspended, stopped): nobody fell silent."""


class Loop:
    """A worker's shell around its core."""

    def __init__(
        self,
        core: Core,
        workdir: Workdir,
        outbox: Outbox,
        spawner: Spawner,
        dial: Callable[[], tuple[Proven, str]],
        say: Callable[[str, str], None],
    ) -> None:
        self._core = core
        self._workdir = workdir
        self._outbox = outbox
        self._spawner = spawner
        self._say = say
        self._poll = Poll()
        self._threads = FileThreads()
        self._wire = Wire(
            dial,
            self._poll,
            self._threads,
            self._heard,
            self._take_file,
            self._lack_file,
            self._serve,
        )
        files = CacheFiles(workdir.cache)
        self._downloads = Downloads(files, self._threads, self._wire.ask, self.handle)
        self._outputs = Outputs(
            workdir.sandbox, outbox, self._threads, self._wire.answer, self.handle
        )
        self._orders: list[orders.Start | orders.Kill] = []
        # The cached files that each started attempt has links to.
        self._linked: dict[bytes, list[bytes]] = {}
        self._kept: list[Kept] = []
        self._events: deque[events.Event] = deque()
        self._is_handling = False
        self._is_outbox_full = False
        self._is_workdir_lost = False
        self._exit: events.Exit | None = None
        self._measure_s = 0.0
        self._carry_out: dict[type, Callable[[Any], None]] = {
            events.Connect: self._connect,
            events.Disconnect: self._disconnect,
            events.OpenResults: lambda e: self._wire.open_results(e.session),
            events.SendTask: lambda e: self._wire.tell(e.session, e.message),
            events.SendResults: lambda e: self._wire.deliver(e.session, e.results),
            events.Fetch: lambda e: self._downloads.fetch(e.key, e.size),
            events.DropFetch: lambda e: self._downloads.drop(e.key),
            events.Evict: lambda e: self._downloads.evict(e.keys),
            events.Start: self._start,
            events.Kill: lambda e: self._orders.append(orders.Kill(e.attempt, e.grace_s)),
            events.Collect: self._outputs.collect,
            events.Append: self._append,
            events.Acknowledge: self._acknowledge,
            events.Remove: self._remove,
            events.Note: lambda e: self._say(e.level, e.text),
            events.Exit: self._end,
        }

    # --- turns ----------------------------------------------------------------------------------

    def run(self, stop_signals: deque[str], wake: int) -> int:
        """Serve until the core wants to end; give the exit code.

        Names of signals are put into `stop_signals`, and `wake` becomes readable then.
        """
        self._poll.watch(self._threads.fileno(), self._threads.deliver)
        self._poll.watch(self._spawner.fileno(), self._read_spawner)
        self._poll.watch(wake, lambda: self._read_signals(stop_signals, wake))
        self._restore()
        while self._exit is None:
            self._flush()
            self._turn()
        self._flush()
        self._wire.leave()
        return self._exit.code

    def _restore(self) -> None:
        now_wall_s = time.time()
        results = []
        for kept in self._outbox.pending():
            ago_s = max(0.0, now_wall_s - kept.ended_wall_s)
            r = kept.result
            fields = (r.attempt, r.outcome, r.exit_code, r.signal, r.text, r.usage, r.outputs)
            results.append(type(r)(*fields, ago_s))
        self.handle(events.Restored(results, self._downloads.index()))

    def _turn(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._measure_s:
            self._measure_s = now_s + MEASURE_S
            self._threads.do(self._measure, self.handle)
        core_s, spawner_s = self._core.deadline(), self._spawner.deadline()
        until_s = self._measure_s
        if core_s is not None and core_s < until_s:
            until_s = core_s
        if spawner_s is not None and spawner_s < until_s:
            until_s = spawner_s
        self._poll.serve(max(0.0, until_s - now_s))
        woke_s = time.monotonic()
        if woke_s > max(until_s, now_s) + STALL_S:
            self.handle(events.Resumed())
        # What became due only now is seen in the next turn, which then does not wait.
        if spawner_s is not None and spawner_s <= woke_s:
            self._read_spawner()
        if core_s is not None and core_s <= woke_s:
            self.handle(events.Ticked())

    def _measure(self) -> events.Measured:
        try:
            return events.Measured(os.getloadavg()[0], self._workdir.disk_free_mb())
        except OSError:
            return events.Measured(0.0, 0)

    def handle(self, event: events.Event) -> None:
        """Tell the core, and do what it wants.

        What an effect reports at once is told after the effects of this event, in order.
        """
        self._events.append(event)
        if self._is_handling:
            return
        self._is_handling = True
        while self._events:
            effects = self._core.handle(self._events.popleft(), time.monotonic())
            for effect in effects:
                self._carry_out[type(effect)](effect)
        self._is_handling = False

    def _flush(self) -> None:
        if self._kept:
            self._store()
        if self._orders:
            self._spawner.send(self._orders)
            self._orders = []
        self._wire.flush()

    # --- what happens ---------------------------------------------------------------------------

    def _heard(self, event: events.Event) -> None:
        if isinstance(event, events.ResultsOpened):
            self._downloads.open()
        self.handle(event)

    def _take_file(self, data: Data, content: bytes) -> None:
        self._downloads.take(data, content)

    def _lack_file(self, message: GetFailed) -> None:
        self._downloads.failed(message)

    def _serve(self, session: int, get: Get) -> None:
        self._outputs.serve(session, get)

    def _read_spawner(self) -> None:
        reports = [_told(report) for report in self._spawner.receive()]
        if any(isinstance(r, Ended) and r.how == orders.SANDBOX_FAILED for r in reports):
            self._look_for_workdir()
        for report in reports:
            if isinstance(report, Ended):
                # Before what it leaves is given to one with the same input.
                self._look_at(self._linked.pop(report.attempt, []))
        if reports:
            self.handle(events.Reported(reports))

    def _look_at(self, keys: list[bytes]) -> bool:
        """Report what was spoiled in the cache; tell whether all is as it was."""
        spoiled = self._downloads.spoiled(keys)
        if spoiled:
            self._look_for_workdir()
        for key in spoiled:
            self.handle(events.FileSpoiled(key))
        return not spoiled

    def _look_for_workdir(self) -> None:
        # Without it every task fails at once, so this worker alone would empty the queue. Told
        # before the reports, so that these tasks, too, are given back and run elsewhere.
        if not self._is_workdir_lost and not self._workdir.is_there():
            self._is_workdir_lost = True
            self.handle(events.StopRequested(f"the folder {self._workdir.path} is gone"))

    def _read_signals(self, stop_signals: deque[str], wake: int) -> None:
        os.read(wake, 4096)
        while stop_signals:
            self.handle(events.StopRequested(f"stopped by {stop_signals.popleft()}"))

    # --- what is wanted -------------------------------------------------------------------------

    def _connect(self, effect: events.Connect) -> None:
        self._downloads.forget()
        self._wire.connect(effect.session, effect.delay_s, effect.spread_s)

    def _disconnect(self, effect: events.Disconnect) -> None:
        self._downloads.forget()
        self._wire.disconnect()

    def _start(self, effect: events.Start) -> None:
        keys = [key for key, _, _ in effect.links]
        if not self._look_at(keys):
            self.handle(events.NotStarted(effect.attempt))
            return
        if keys:
            self._linked[effect.attempt] = keys
        path = self._downloads.path
        self._orders.append(
            orders.Start(
                effect.attempt,
                self._workdir.sandbox(effect.attempt),
                effect.command,
                effect.is_shell,
                effect.environment,
                [(path(key), name, mode) for key, name, mode in effect.links],
                effect.outputs,
            )
        )

    def _append(self, effect: events.Append) -> None:
        ended_wall_s = time.time()
        self._kept += [self._keep(finished, ended_wall_s) for finished in effect.finished]

    def _keep(self, finished: Finished, ended_wall_s: float) -> Kept:
        if not finished.has_sandbox:
            return Kept(finished.result, b"", [], ended_wall_s)
        sandbox = self._workdir.sandbox(finished.result.attempt)
        files = [(at, output_path(sandbox, at, name)) for at, name in finished.files]
        return Kept(finished.result, sandbox, files, ended_wall_s)

    def _store(self) -> None:
        kept, self._kept = self._kept, []
        try:
            self._outbox.append(kept)
            self._is_outbox_full = False
        except OSError as error:
            # They are sent all the same, and lost only if this process is killed before.
            if not self._is_outbox_full:
                self._say("warning", f"results cannot be kept on disk: {error.strerror}")
            self._is_outbox_full = True

    def _acknowledge(self, effect: events.Acknowledge) -> None:
        self._discard([k.sandbox for k in self._outbox.acknowledge(effect.attempts) if k.sandbox])

    def _remove(self, effect: events.Remove) -> None:
        self._discard([self._workdir.sandbox(attempt) for attempt in effect.attempts])

    def _discard(self, sandboxes: list[bytes]) -> None:
        def remove() -> None:
            for sandbox in sandboxes:
                remove_sandbox(sandbox)

        if sandboxes:
            self._threads.do(remove, lambda _: None)

    def _end(self, effect: events.Exit) -> None:
        self._exit = effect
        self._say("info" if effect.code == 0 else "error", effect.text)


def _told(report: orders.Report) -> Began | Ended:
    if isinstance(report, orders.Running):
        return Began(report.attempt)
    assert isinstance(report, orders.Ended), report
    outputs = [
        OutputFound(found.position, found.kind, found.size, found.mode, found.inline)
        for found in report.outputs
    ]
    return Ended(
        report.attempt,
        report.how,
        report.exit_code,
        report.signal,
        report.text,
        report.wall_s,
        report.user_s,
        report.system_s,
        report.max_rss_kb / 1024,
        report.stdout_size,
        report.stdout,
        report.stderr_size,
        report.stderr,
        outputs,
        report.sandbox_left,
    )
