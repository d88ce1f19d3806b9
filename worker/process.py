"""The worker's handle on its spawner process."""

import contextlib
import importlib
import mmap
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from wqueue.worker.children import (
    MARKER,
    SPAWNER_MARKER,
    WORKDIR_MARKER,
    Children,
    marker_of,
    session_of,
)
from wqueue.worker.orders import (
    SANDBOX_FAILED,
    Alive,
    BatchBuffer,
    BatchSender,
    Ended,
    Kill,
    Order,
    Probe,
    Report,
    Running,
    Start,
    decode_reports,
)
from wqueue.worker.spawner import PROGRESS, become_subreaper
from wqueue.worker.workdir import remove_sandbox

READ_BYTES = 256 * 1024
"""Most that is read from the spawner at once."""

PROBE_AFTER_S = 1.0
"""Silence after which a spawner that has tasks is asked whether it lives."""

ANSWER_MAX_S = 5.0
"""A spawner that does not answer for this long hangs, most likely in a file system."""

BEGIN_MAX_S = 60.0
"""The same for its first answer: an interpreter on a slow file system takes long to begin."""

LOOK_S = 0.5
"""Interval of receive() while an answer is awaited or an adopted task ends."""

STOP_MAX_S = 4.0
"""Longest wait for a spawner that was told to end; it needs three itself in the worst case."""

EARLY_DEATHS_MAX = 3
"""Spawners in a row that may end before their first answer."""

# The spawner's memory counts as every task's own until the exec (see there), and its start is
# waited for: so it gets the packages as bare names, without what importing wqueue brings along.
_BOOT = """
import sys, types
sys.path.append({library!r})
for name, folders in {packages!r}:
    package = sys.modules[name] = types.ModuleType(name)
    package.__path__ = folders
from wqueue.worker.spawner import main
main(sys.argv[1:])
"""


class _Entry:
    """A Start that has no Ended yet."""

    __slots__ = ("is_killed", "number", "pid", "start")

    def __init__(self, start: Start, number: int) -> None:
        self.start = start
        self.number = number
        self.pid = 0
        self.is_killed = False


class Spawner:
    """Starts tasks, learns how they end, and survives the loss of the process that does it.

    For use by one thread, the loop's. None of the methods blocks for longer than a moment, stop()
    apart. Every Start that was sent is answered by one Ended (see orders.py), also when the spawner
    process is killed or hangs: then it is replaced, running tasks are adopted and watched by this
    handle itself, those not yet begun are given to the new process, and only the one it hung on
    fails.
    """

    def __init__(self, workdir: bytes, answer_max_s: float = ANSWER_MAX_S) -> None:
        self._workdir = workdir
        self._answer_max_s = answer_max_s
        self._entries: dict[bytes, _Entry] = {}
        self._adopted = Children(is_mine=False)
        self._watched: dict[int, int] = {}
        self._poll = select.epoll()
        self._ready: list[Report] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._early_deaths = 0

    def start(self) -> None:
        """Become child subreaper and start the spawner process."""
        become_subreaper()
        # A worker that is itself a task of another one must not mark its children as that one's.
        for name in (MARKER, WORKDIR_MARKER):
            os.environb.pop(name, None)
        self._launch()

    def pid(self) -> int:
        """Give the pid of the spawner process that serves now."""
        assert self._process is not None, "the spawner was not started"
        return self._process.pid

    def fileno(self) -> int:
        """Give one descriptor (an epoll) that is readable when receive() has something to do."""
        return self._poll.fileno()

    def send(self, orders: Iterable[Start | Kill]) -> None:
        """Pass orders on, as one batch. Never blocks: what does not fit now goes later."""
        batch: list[Order] = []
        for order in orders:
            if isinstance(order, Start):
                assert order.attempt not in self._entries, "an attempt is started twice"
                self._sent_count += 1
                self._entries[order.attempt] = _Entry(order, self._sent_count)
                batch.append(order)
            elif order.attempt in self._adopted:
                self._adopted.kill(order.attempt, order.grace_s)
            elif order.attempt in self._entries:
                self._entries[order.attempt].is_killed = True
                batch.append(order)
        self._send(batch)

    def receive(self) -> list[Report]:
        """Give the reports that have come, in order: Running and Ended only.

        Also does what is due: sends what waited, watches adopted tasks. Call it when fileno() is
        readable and at the time that deadline() tells.
        """
        is_over = not self._read()
        self._outbound.flush()
        if is_over or self._is_hung():
            self._replace(is_hung=not is_over)
        if self._adopted or self._adopted.debris_count():
            self._attend()
        reports, self._ready = self._ready, []
        return reports

    def deadline(self) -> float | None:
        """Give the monotonic time at which receive() wants to be called even without news."""
        if self._ready or self._adopted.debris_count():
            return time.monotonic()
        times = []
        if self._adopted:
            times.append(time.monotonic() + LOOK_S)
            times.append(self._adopted.deadline() or times[0])
        if self._entries:
            if self._asked_at:
                times.append(time.monotonic() + LOOK_S)
            else:
                times.append(self._heard_at + PROBE_AFTER_S)
        return min(times, default=None)

    def stop(self) -> None:
        """End the spawner, all tasks and every child that is left; takes a moment, at worst 5 s."""
        if self._process is not None:
            self._link.close()
            try:
                self._process.wait(STOP_MAX_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
            self._progress.close()
        self._adopted.kill_all()
        deadline = time.monotonic() + 1.0
        while (self._kill_leftovers() or self._adopted) and time.monotonic() < deadline:
            self._attend()
            time.sleep(0.005)
        for descriptor in self._watched.values():
            os.close(descriptor)
        self._watched.clear()
        self._entries.clear()
        self._adopted.close()
        self._poll.close()

    # --- the spawner process ------------------------------------------------------------------

    def _launch(self) -> None:
        self._link, end = socket.socketpair()
        self._link.setblocking(False)
        memory = os.memfd_create("wq-progress", os.MFD_CLOEXEC)
        os.ftruncate(memory, PROGRESS.size)
        self._progress = mmap.mmap(memory, PROGRESS.size)
        self._nonce = secrets.token_hex(8)
        arguments = [str(end.fileno()), str(memory), os.fsdecode(self._workdir)]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _boot(), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=os.environb | self._markers(),
            pass_fds=(end.fileno(), memory),
            start_new_session=True,
        )
        end.close()
        os.close(memory)
        self._poll.register(self._link, select.EPOLLIN)
        self._inbox = BatchBuffer()
        self._outbound = BatchSender(self._link, self._poll)
        self._sent_count = 0
        self._heard_at = self._called_at = self._asked_at = time.monotonic()
        self._is_new = True
        self._send([Probe(0)])

    def _markers(self) -> dict[bytes, bytes]:
        return {SPAWNER_MARKER: self._nonce.encode(), WORKDIR_MARKER: self._workdir}

    def _send(self, batch: list[Order]) -> None:
        if batch:
            self._outbound.add(batch)
            self._outbound.flush()

    def _read(self) -> bool:
        while True:
            try:
                data = self._link.recv(READ_BYTES)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            self._heard_at = time.monotonic()
            self._asked_at = 0.0
            self._is_new = False
            self._early_deaths = 0
            for body in self._inbox.feed(data):
                for report in decode_reports(body):
                    self._take(report)
            if len(data) < READ_BYTES:
                return True

    def _take(self, report: Report) -> None:
        if isinstance(report, Alive):
            return
        entry = self._entries.get(report.attempt)
        if entry is None:
            return
        if isinstance(report, Running):
            entry.pid = report.pid
        else:
            del self._entries[report.attempt]
        self._ready.append(report)

    def _is_hung(self) -> bool:
        now = time.monotonic()
        # After a pause of this process itself nothing is known of the other one.
        is_stalled = now - self._called_at > 4 * LOOK_S
        self._called_at = now
        if self._asked_at:
            if is_stalled:
                self._asked_at = now
            return now - self._asked_at > (BEGIN_MAX_S if self._is_new else self._answer_max_s)
        if self._entries and now - self._heard_at > PROBE_AFTER_S:
            self._asked_at = now
            self._send([Probe(0)])
        return False

    # --- a lost spawner -----------------------------------------------------------------------

    def _replace(self, is_hung: bool) -> None:
        assert self._process is not None, "the spawner was not started"
        self._process.kill()
        self._process.wait()
        self._read()
        self._early_deaths += 1
        assert self._early_deaths <= EARLY_DEATHS_MAX, "the spawner process cannot be started"
        last, is_beginning = PROGRESS.unpack(self._progress[:])
        self._poll.unregister(self._link)
        self._link.close()
        self._progress.close()
        self._kill_halfway()
        entries, self._entries = self._entries, {}
        self._launch()
        again: list[Start] = []
        for entry in entries.values():
            if self._adopt(entry):
                continue
            is_begun = entry.number <= last
            is_culprit = bool(is_beginning) and entry.number == last
            if entry.is_killed or (is_begun and not is_culprit):
                self._lose(entry, "the worker lost the process that watched this task")
            elif is_culprit and is_hung:
                self._lose(
                    entry, f"starting the command hung for more than {self._answer_max_s:g} s"
                )
            else:
                if is_culprit:
                    remove_sandbox(entry.start.sandbox)
                again.append(entry.start)
        self.send(again)
        self._adopted.sweep()

    def _kill_halfway(self) -> None:
        # A child between fork and exec has the old spawner's environment.
        for pid in self._adopted.children():
            if marker_of(pid, SPAWNER_MARKER) == self._nonce.encode():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                self._watch(pid)

    def _adopt(self, entry: _Entry) -> bool:
        start = entry.start
        pid = entry.pid
        if not pid:
            owned = self._adopted.orphans_of(start.attempt)
            leaders = [child for child in owned if session_of(child) == child]
            if not leaders:
                return False
            pid = leaders[0]
            self._ready.append(Running(start.attempt, pid))
        elif pid not in self._adopted.children():
            return False
        self._adopted.add(start, pid, time.monotonic())
        self._watch(pid)
        if entry.is_killed:
            self._adopted.kill(start.attempt, 0.0)
        return True

    def _lose(self, entry: _Entry, text: str) -> None:
        start = entry.start
        is_left = Path(os.fsdecode(start.sandbox)).exists()
        self._ready.append(Ended(start.attempt, SANDBOX_FAILED, text=text, sandbox_left=is_left))

    # --- adopted tasks --------------------------------------------------------------------------

    def _watch(self, pid: int) -> None:
        if pid not in self._watched:
            with contextlib.suppress(ProcessLookupError):
                self._watched[pid] = descriptor = os.pidfd_open(pid)
                self._poll.register(descriptor, select.EPOLLIN)

    def _attend(self) -> None:
        self._adopted.pass_time(time.monotonic())
        for pid in {*self._adopted.waitable(), *self._watched}:
            self._wait_for(pid)
        self._ready += self._adopted.settle()
        self._adopted.tidy()

    def _wait_for(self, pid: int) -> None:
        try:
            found, status, usage = os.wait4(pid, os.WNOHANG)
        except ChildProcessError:
            found, status, usage = pid, 0, None
        if not found:
            return
        if usage is not None:
            self._adopted.exited(pid, status, usage)
        descriptor = self._watched.pop(pid, -1)
        if descriptor >= 0:
            self._poll.unregister(descriptor)
            os.close(descriptor)

    def _kill_leftovers(self) -> bool:
        is_left = self._adopted.sweep()
        for pid in self._adopted.waitable():
            self._wait_for(pid)
        return is_left


def _boot() -> str:
    names = ("wqueue", "wqueue.protocol", "wqueue.worker")
    packages = [(name, list(importlib.import_module(name).__path__)) for name in names]
    assert msgspec.__file__ is not None, "msgspec has no folder"
    library = str(Path(msgspec.__file__).parent.parent)
    return _BOOT.format(library=library, packages=packages)
