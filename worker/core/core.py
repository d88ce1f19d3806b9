"""The whole of a worker's decisions: events in by the one door, effects out.

Pure: no socket, clock, file or dice. Sockets, processes and disks belong to the shell, which tells
what happened and does what is wanted, effect by effect in order. The same core runs in the worker,
in unit tests and in the simulator.

Session knows when there is a manager, Holdings what is to be run, Cache which files are here; this
file connects them and knows when the worker leaves.
"""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from wqueue.protocol import messages as m
from wqueue.protocol.errors import ManagerUnreachable, error_from_wire
from wqueue.worker.core import events as e
from wqueue.worker.core.attempt import AttemptStatistics
from wqueue.worker.core.cache import Cache, CacheStatistics
from wqueue.worker.core.holdings import Holdings
from wqueue.worker.core.session import LOST_SPREAD_S, Session
from wqueue.worker.core.settings import Settings

LEAVE_MAX_S = 5.0
"""Time for results to be acknowledged and killed tasks to end, beyond the grace of the kill."""

REPORT_EVERY_S = 0.005
"""Results of a busy worker go at most this often: a lone one at once, a thousand a second by fives.
Every frame costs both sides some 0.3 ms; the tasks held ready cover the wait."""

HOPELESS_CODES = ("not_authorized", "version", "bad_message")
"""Refusals that do not change by themselves: a worker that never had a session ends on them."""


class Statistics(Struct, frozen=True):
    """The worker at a glance."""

    phase: str
    session: int
    number: int
    epoch_seen: int
    is_leaving: bool
    attempts: AttemptStatistics
    cache: CacheStatistics


class _Leaving(Struct):
    """Why and how the worker leaves. `limit_s` is None as long as tasks may finish."""

    reason: str
    exit_code: int
    text: str
    limit_s: float | None


class Core:
    """The state of one worker process."""

    def __init__(self, settings: Settings, now_s: float) -> None:
        self._settings = settings
        self._cache = Cache(settings.cache_bytes_max)
        self._holdings = Holdings(settings, self._cache)
        self._session = Session(settings, now_s)
        self._number = 0
        self._leaving: _Leaving | None = None
        self._is_over = False
        self._has_complained = False
        self._idle_s: float | None = now_s
        self._ends_s = None if settings.wall_time_s is None else now_s + settings.wall_time_s
        self._report_due_s = now_s
        self._load = 0.0
        self._disk_free_mb = 0
        self._handlers: dict[type, Callable[[Any, float, list[e.Effect]], None]] = {
            e.Restored: self._restored,
            e.Connected: self._connected,
            e.ConnectFailed: self._connect_failed,
            e.ResultsOpened: self._results_opened,
            e.LinkLost: self._link_lost,
            e.Heard: self._heard,
            e.FilesCached: self._files_cached,
            e.FileFailed: self._file_failed,
            e.FileSpoiled: self._file_spoiled,
            e.NotStarted: self._not_started,
            e.Reported: self._reported,
            e.Collected: self._collected,
            e.Measured: self._measured,
            e.Ticked: self._ticked,
            e.Resumed: self._resumed,
            e.StopRequested: self._stop_requested,
        }
        self._listeners: dict[type, Callable[[Any, float, list[e.Effect]], None]] = {
            m.Registered: self._hear_registered,
            m.Describe: self._hear_describe,
            m.Forget: self._hear_forget,
            m.Dispatch: self._hear_dispatch,
            m.Cancel: self._hear_cancel,
            m.TakeBack: self._hear_take_back,
            m.Leave: self._hear_leave,
            m.Reattach: self._hear_reattach,
            m.Refusal: self._hear_refusal,
            m.ResultAck: self._hear_result_ack,
            m.ManagerHeartbeat: self._hear_nothing,
            m.Stopping: self._hear_stopping,
        }

    # --- the door -------------------------------------------------------------------------------

    def handle(self, event: e.Event, now_s: float) -> list[e.Effect]:
        """Take one event in at monotonic time `now_s` and give what is wanted now."""
        if self._is_over:
            return []
        out: list[e.Effect] = []
        self._handlers[type(event)](event, now_s, out)
        if not self._is_over:
            self._settle(now_s, out)
        return out

    def deadline(self) -> float | None:
        """Tell the monotonic time at which a Ticked is wanted, or None."""
        if self._is_over:
            return None
        times = [self._session.deadline()] if self._is_session_wanted() else []
        started_s = self._holdings.deadline()
        if started_s is not None:
            times.append(started_s)
        if self._holdings.finished:
            times.append(self._report_due_s)
        if self._leaving is not None and self._leaving.limit_s is not None:
            times.append(self._leaving.limit_s)
            return min(times)
        if self._ends_s is not None:
            times.append(self._ends_s)
        idle_out_s = self._idle_out_s()
        if idle_out_s is not None:
            times.append(idle_out_s)
        return min(times, default=None)

    def check(self) -> None:
        """Assert every invariant."""
        if self._is_over:
            return
        self._holdings.check(is_settled=self._session.is_live and self._leaving is None)
        assert not self._session.has_results or self._session.is_live
        assert self._idle_s is None or self._holdings.is_empty

    def statistics(self) -> Statistics:
        """Count."""
        session = self._session
        return Statistics(
            session.phase,
            session.number,
            self._number,
            session.epoch_seen,
            self._leaving is not None,
            self._holdings.statistics(),
            self._cache.statistics(),
        )

    # --- after each event -----------------------------------------------------------------------

    def _settle(self, now_s: float, out: list[e.Effect]) -> None:
        holdings = self._holdings
        if self._leaving is None:
            holdings.start_ready(now_s, out)
            if self._session.is_live:
                self._cache.fetch(out)
        holdings.tell_started(now_s)
        self._flush(now_s, out)
        if not holdings.is_empty:
            self._idle_s = None
        elif self._idle_s is None:
            self._idle_s = now_s
        if self._leaving is not None:
            self._end_if_done(self._leaving, now_s, out)

    def _flush(self, now_s: float, out: list[e.Effect]) -> None:
        holdings = self._holdings
        if holdings.started:
            self._tell(m.Started(holdings.started), out)
            holdings.started = []
        if holdings.finished and (holdings.is_at_rest or now_s >= self._report_due_s):
            self._report(now_s, out)
        if holdings.repeated:
            repeated, holdings.repeated = holdings.repeated, []
            results = [holdings.result(attempt, now_s) for attempt in repeated]
            self._send_results([r for r in results if r is not None], out)
        if holdings.removed:
            out.append(e.Remove(holdings.removed))
            holdings.removed = []
        if holdings.returned:
            for reason, attempts in holdings.returned.items():
                self._tell(m.Returned(attempts, reason), out)
            holdings.returned = {}

    def _report(self, now_s: float, out: list[e.Effect]) -> None:
        """Keep and send what has finished. In a stream of short tasks several go together."""
        self._report_due_s = now_s + REPORT_EVERY_S
        finished = self._keep_finished(out)
        self._send_results([f.result for f in finished], out)

    def _keep_finished(self, out: list[e.Effect]) -> list[e.Finished]:
        finished, self._holdings.finished = self._holdings.finished, []
        if finished:
            out.append(e.Append(finished))
        return finished

    def _tell(self, message: m.TaskToManager, out: list[e.Effect]) -> None:
        # Without a session it need not be told: the next inventory speaks for itself.
        if self._session.is_up:
            out.append(e.SendTask(self._session.number, message))

    def _send_results(self, results: list[Any], out: list[e.Effect]) -> None:
        if self._session.has_results and results:
            out.append(e.SendResults(self._session.number, results))

    # --- the session ----------------------------------------------------------------------------

    def _restored(self, event: e.Restored, now_s: float, out: list[e.Effect]) -> None:
        self._holdings.restore(event.results, now_s)
        self._cache.restore(event.cached)
        self._cache.evict(out)
        self._session.connect(0.0, out)

    def _connected(self, event: e.Connected, now_s: float, out: list[e.Effect]) -> None:
        session = self._session
        if event.session != session.number:
            return
        session.connected(event.epoch, event.address, now_s)
        if session.is_rolled_back:
            text = f"epoch {event.epoch} is older than {session.epoch_seen}: its store was rolled"
            out.append(e.Note("warning", f"{text} back; nothing is discarded on its word"))
        # Descriptions are told anew in each session.
        self._holdings.forget_jobs()
        settings = self._settings
        left_s = None if self._ends_s is None else max(0.0, self._ends_s - now_s)
        register = m.Register(
            settings.resume_secret,
            session.number,
            settings.resources,
            settings.host,
            settings.pid,
            settings.software,
            settings.features,
            self._holdings.inventory(now_s),
            session.epoch_seen,
            settings.workdir,
            self._cache.size,
            left_s,
            self._holdings.quarantined(),
            settings.python,
        )
        out.append(e.SendTask(session.number, register))

    def _connect_failed(self, event: e.ConnectFailed, now_s: float, out: list[e.Effect]) -> None:
        session = self._session
        if event.session != session.number or session.is_up:
            return
        if not session.was_live and event.code in HOPELESS_CODES:
            self._exit(event.exit_code, event.text, out)
            return
        if not self._has_complained:
            self._has_complained = True
            text = f"{event.text}; trying again for up to {session.patience_s:g} s"
            out.append(e.Note("warning", text))
        if self._is_session_wanted():
            session.failed(out)

    def _results_opened(self, event: e.ResultsOpened, now_s: float, out: list[e.Effect]) -> None:
        session = self._session
        if event.session != session.number or not session.is_live:
            return
        session.has_results = True
        self._keep_finished(out)
        self._send_results(self._holdings.undelivered(now_s), out)

    def _link_lost(self, event: e.LinkLost, now_s: float, out: list[e.Effect]) -> None:
        if self._is_current(event.session):
            self._lose(event.reason, LOST_SPREAD_S, now_s, out)

    def _lose(self, reason: str, spread_s: float, now_s: float, out: list[e.Effect]) -> None:
        session = self._session
        was_live = session.is_live
        session.close(now_s, out)
        self._cache.forget_fetches()
        if not was_live:
            if self._is_session_wanted():
                session.failed(out)
            return
        if self._settings.is_single_shot and self._leaving is None:
            self._leave("single_shot", 0, f"disconnected from the manager: {reason}", now_s, out)
        if not self._is_session_wanted():
            return
        queued, running, unacknowledged = self._holdings.counts()
        out.append(
            e.Note(
                "warning",
                f"lost the manager at {session.address} ({reason}); {queued + running} tasks go "
                f"on, {unacknowledged} results wait; connecting again",
            )
        )
        self._has_complained = True
        session.connect(spread_s, out)

    def _heard(self, event: e.Heard, now_s: float, out: list[e.Effect]) -> None:
        if not self._is_current(event.session):
            return
        if not self._session.is_news(event.door, event.sequence, now_s):
            return
        for message in event.messages:
            self._listeners[type(message)](message, now_s, out)
            if not self._is_current(event.session):
                return

    def _is_current(self, session: int) -> bool:
        is_over = self._is_over
        return session == self._session.number and self._session.is_up and not is_over

    def _hear_registered(self, message: m.Registered, now_s: float, out: list[e.Effect]) -> None:
        session = self._session
        if session.is_live:
            return
        is_again = session.was_live
        session.registered(
            message.heartbeat_s, message.silence_max_s, message.manager_grace_s, now_s
        )
        self._number = message.number
        self._has_complained = False
        again = " again" if is_again else ""
        text = f"connected to manager {session.address}{again} as worker {message.number}"
        out.append(e.Note("info", text))
        out.append(e.OpenResults(session.number))
        if message.unwanted and not session.is_rolled_back:
            for attempt in message.unwanted:
                self._holdings.drop(attempt, "", out)
            self._discard_results(message.unwanted, now_s, out)

    def _hear_reattach(self, message: m.Reattach, now_s: float, out: list[e.Effect]) -> None:
        self._lose("it asks to attach again", 0.0, now_s, out)

    def _hear_refusal(self, message: m.Refusal, now_s: float, out: list[e.Effect]) -> None:
        if not message.is_fatal:
            out.append(e.Note("warning", f"the manager refused: {message.text}"))
            return
        if not self._session.was_live and message.code in HOPELESS_CODES:
            self._exit(error_from_wire(message.code, message.text).exit_code, message.text, out)
            return
        self._lose(message.text, LOST_SPREAD_S, now_s, out)

    def _hear_nothing(self, message: m.ManagerHeartbeat, now_s: float, out: list[e.Effect]) -> None:
        """A sign of life, and that was noted."""

    def _is_session_wanted(self) -> bool:
        # One that leaves by killing needs no new session; one that still finishes does.
        return self._leaving is None or self._leaving.limit_s is None or self._session.is_up

    # --- work -----------------------------------------------------------------------------------

    def _hear_describe(self, message: m.Describe, now_s: float, out: list[e.Effect]) -> None:
        self._holdings.describe(message)

    def _hear_forget(self, message: m.Forget, now_s: float, out: list[e.Effect]) -> None:
        self._holdings.forget_jobs(message.job_uids)

    def _hear_dispatch(self, message: m.Dispatch, now_s: float, out: list[e.Effect]) -> None:
        if self._leaving is not None:
            self._tell(m.Returned([a.attempt for a in message.assignments], "leaving"), out)
            return
        for assignment in message.assignments:
            self._holdings.dispatch(assignment, now_s)

    def _hear_cancel(self, message: m.Cancel, now_s: float, out: list[e.Effect]) -> None:
        if self._session.is_rolled_back:
            return
        for attempt in message.attempts:
            self._holdings.drop(attempt, "", out)

    def _hear_take_back(self, message: m.TakeBack, now_s: float, out: list[e.Effect]) -> None:
        for attempt in message.attempts:
            self._holdings.take_back(attempt, out)

    def _hear_result_ack(self, message: m.ResultAck, now_s: float, out: list[e.Effect]) -> None:
        is_doubtful = self._session.is_rolled_back and message.verdict != "recorded"
        if message.verdict == "unknown" or is_doubtful:
            self._holdings.quarantine(message.attempts)
        else:
            self._discard_results(message.attempts, now_s, out)

    def _discard_results(self, attempts: list[bytes], now_s: float, out: list[e.Effect]) -> None:
        # What is to be forgotten may not even be kept yet, if another attempt has won meanwhile.
        unkept = {f.result.attempt for f in self._holdings.finished}
        if not unkept.isdisjoint(attempts):
            self._report(now_s, out)
        gone = self._holdings.acknowledge(attempts)
        if gone:
            out.append(e.Acknowledge(gone))

    def _files_cached(self, event: e.FilesCached, now_s: float, out: list[e.Effect]) -> None:
        for key, size in event.files:
            self._holdings.file_cached(key, size, now_s)
        self._cache.evict(out)

    def _file_failed(self, event: e.FileFailed, now_s: float, out: list[e.Effect]) -> None:
        self._holdings.file_failed(event, now_s, out)

    def _file_spoiled(self, event: e.FileSpoiled, now_s: float, out: list[e.Effect]) -> None:
        self._holdings.file_spoiled(event.key, out)

    def _not_started(self, event: e.NotStarted, now_s: float, out: list[e.Effect]) -> None:
        self._holdings.not_started(event.attempt, out)
        if self._leaving is not None:
            self._holdings.drop(event.attempt, "leaving", out)

    def _reported(self, event: e.Reported, now_s: float, out: list[e.Effect]) -> None:
        for report in event.reports:
            if isinstance(report, e.Ended):
                self._holdings.ended(report, now_s, out)

    def _collected(self, event: e.Collected, now_s: float, out: list[e.Effect]) -> None:
        self._holdings.collected(event, now_s)

    def _measured(self, event: e.Measured, now_s: float, out: list[e.Effect]) -> None:
        self._load = event.load
        self._disk_free_mb = event.disk_free_mb

    # --- time -----------------------------------------------------------------------------------

    def _ticked(self, event: e.Ticked, now_s: float, out: list[e.Effect]) -> None:
        session = self._session
        if session.is_beat_due(now_s):
            queued, running, unacknowledged = self._holdings.counts()
            beat = m.WorkerHeartbeat(
                queued, running, unacknowledged, self._load, self._disk_free_mb
            )
            out.append(e.SendTask(session.number, beat))
        if session.is_silent(now_s):
            self._lose(f"silent for {session.silence_max_s:g} s", 0.0, now_s, out)
        if self._leaving is not None and self._leaving.limit_s is not None:
            return
        if session.is_hopeless(now_s):
            code = ManagerUnreachable.exit_code
            text = f"no manager answered for {session.patience_s:g} s"
            self._leave("no_manager", code, text, now_s, out)
        elif self._ends_s is not None and now_s >= self._ends_s:
            self._leave("wall_time", 0, "the wall time is over", now_s, out)
        elif (idle_out_s := self._idle_out_s()) is not None and now_s >= idle_out_s:
            text = f"no work for {self._settings.idle_timeout_s:g} s"
            self._leave("idle", 0, text, now_s, out)

    def _idle_out_s(self) -> float | None:
        timeout_s = self._settings.idle_timeout_s
        if self._idle_s is None or not timeout_s or not self._session.is_live:
            return None
        return self._idle_s + timeout_s

    def _resumed(self, event: e.Resumed, now_s: float, out: list[e.Effect]) -> None:
        self._session.resumed(now_s)

    # --- leaving --------------------------------------------------------------------------------

    def _stop_requested(self, event: e.StopRequested, now_s: float, out: list[e.Effect]) -> None:
        if self._leaving is not None and self._leaving.limit_s is not None:
            self._end(self._leaving, out)
            return
        self._leave("leaving", 0, event.reason, now_s, out)

    def _hear_leave(self, message: m.Leave, now_s: float, out: list[e.Effect]) -> None:
        if self._leaving is not None:
            return
        text = f"the manager sent this worker home: {message.reason}"
        if message.finish_running:
            self._holdings.drop_all("leaving", out, with_running=False)
            self._leaving = _Leaving("released", 0, text, None)
        else:
            self._leave("released", 0, text, now_s, out)

    def _hear_stopping(self, message: m.Stopping, now_s: float, out: list[e.Effect]) -> None:
        if message.is_final and self._leaving is None:
            self._leave("stopping", 0, "the manager has stopped", now_s, out)

    def _leave(
        self, reason: str, exit_code: int, text: str, now_s: float, out: list[e.Effect]
    ) -> None:
        """Give back what has not finished and leave as soon as nothing runs any more."""
        self._holdings.drop_all("leaving", out, with_running=True)
        limit_s = now_s + self._settings.kill_grace_s + LEAVE_MAX_S
        self._leaving = _Leaving(reason, exit_code, text, limit_s)

    def _end_if_done(self, leaving: _Leaving, now_s: float, out: list[e.Effect]) -> None:
        holdings = self._holdings
        is_delivered = holdings.is_empty or not self._session.is_up
        if leaving.limit_s is None:
            if holdings.is_at_rest:
                leaving.limit_s = now_s + LEAVE_MAX_S
            else:
                return
        if (holdings.is_at_rest and is_delivered) or now_s >= leaving.limit_s:
            self._end(leaving, out)

    def _end(self, leaving: _Leaving, out: list[e.Effect]) -> None:
        self._holdings.abandon_all("leaving", out)
        self._keep_finished(out)
        for reason, attempts in self._holdings.returned.items():
            self._tell(m.Returned(attempts, reason), out)
        self._tell(m.Bye(leaving.reason), out)
        self._exit(leaving.exit_code, leaving.text, out)

    def _exit(self, code: int, text: str, out: list[e.Effect]) -> None:
        self._is_over = True
        out.append(e.Exit(code, text))
