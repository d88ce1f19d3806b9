"""The spawner process: makes sandboxes, starts tasks, waits for them. Single-threaded.

It is a process of its own because posix_spawn blocks until the exec and holds the interpreter's
lock: a program on a file system that hangs must not stop the worker. It never waits for its parent
either: what does not fit into the socket waits in memory. The end of the socket is the order to
kill everything and leave, so no task outlives the worker, however that one ended.

Started by process.py with three arguments: the socket's descriptor, that of the progress memory,
and the workdir. It imports little, because the kernel counts the memory of the process that spawns
as a task's own until the exec, so every task's measured peak is at least as much as this is.
"""

import contextlib
import ctypes
import errno
import gc
import mmap
import os
import select
import signal
import socket
import struct
import sys
import time
from collections import deque

from wqueue.worker.children import MARKER, SPAWNER_MARKER, WORKDIR_MARKER, Children
from wqueue.worker.command import (
    SHELL,
    CannotStart,
    Search,
    argument_vector,
    explain,
    is_script,
)
from wqueue.worker.orders import (
    SANDBOX_FAILED,
    Alive,
    BatchBuffer,
    BatchSender,
    Ended,
    Kill,
    Report,
    Running,
    Start,
    decode_orders,
)
from wqueue.worker.sandbox import ERR, OUT, lay_out, open_stream

PROGRESS = struct.Struct("<QQ")
"""Progress memory: which Start, counted from 1, was begun last, and 1 while it is being begun."""

READ_BYTES = 64 * 1024
"""Most that is read from the socket at once; a buffer of a megabyte costs 40 us to make."""

BUSY_RETRIES = 6
"""Tries of an exec that fails with ETXTBSY, 1 ms apart at first and twice as long each time."""

FAREWELL_S = 3.0
"""Longest wait for killed tasks before this process leaves."""

RUNNING_DELAY_S = 0.005
"""How long a Running waits for company: most often the Ended of a short task, in one message."""

DEBRIS_MAX = 64
"""Sandboxes that may wait for an idle moment to be removed; beyond it, none waits for one."""

TASK_OOM_SCORE = 300
"""oom_score_adj of this process and its tasks: the kernel shall take a task, not the worker."""


_DEFAULT_PATH = b"/usr/local/bin:/usr/bin:/bin"
_PR_SET_CHILD_SUBREAPER = 36


class Spawner:
    """The process: orders in, reports out."""

    def __init__(self, link: socket.socket, progress: mmap.mmap, workdir: bytes) -> None:
        self._link = link
        self._progress = progress
        self._heard = 0
        self._children = Children(is_mine=True)
        self._search = Search()
        self._inbox = BatchBuffer()
        self._starts: deque[tuple[int, Start]] = deque()
        self._reports: list[Report] = []
        self._is_urgent = False
        self._flush_at = 0.0
        self._environment = dict(os.environb)
        self._environment[WORKDIR_MARKER] = workdir
        for name in (b"OLDPWD", SPAWNER_MARKER):
            self._environment.pop(name, None)
        self._null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._alarm, self._alarm_end = socket.socketpair()
        self._poll = select.epoll()
        self._outbound = BatchSender(link, self._poll)
        self._is_over = False

    def run(self) -> None:
        """Serve until the socket ends."""
        self._link.setblocking(False)
        self._alarm.setblocking(False)
        self._alarm_end.setblocking(False)
        signal.signal(signal.SIGCHLD, _ignore)
        signal.set_wakeup_fd(self._alarm_end.fileno(), warn_on_full_buffer=False)
        self._poll.register(self._link, select.EPOLLIN)
        self._poll.register(self._alarm, select.EPOLLIN)
        while not self._is_over:
            self._turn()
        self._leave()

    def _turn(self) -> None:
        for descriptor, event in self._poll.poll(self._patience()):
            if descriptor == self._alarm.fileno():
                self._reap()
            elif event & ~select.EPOLLOUT:
                self._read()
        if self._children.deadline() is not None:
            self._children.pass_time(time.monotonic())
            self._settle()
        if self._is_urgent or self._outbound.is_blocked or (self._reports and self._is_flush_due()):
            self._flush()
        if self._starts:
            self._begin(*self._starts.popleft())
        if not self._starts or self._children.debris_count() > DEBRIS_MAX:
            self._children.tidy()

    def _is_flush_due(self) -> bool:
        return time.monotonic() >= self._flush_at

    def _patience(self) -> float:
        if self._starts or self._children.debris_count():
            return 0.0
        deadline = self._children.deadline()
        if self._reports:
            deadline = self._flush_at if deadline is None else min(deadline, self._flush_at)
        return -1 if deadline is None else max(0.0, deadline - time.monotonic())

    def _settle(self) -> None:
        ended = self._children.settle()
        if ended:
            self._reports += ended
            self._is_urgent = True

    def _read(self) -> None:
        try:
            data = self._link.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._is_over = True
            return
        for body in self._inbox.feed(data):
            for order in decode_orders(body):
                if isinstance(order, Start):
                    self._heard += 1
                    self._starts.append((self._heard, order))
                elif isinstance(order, Kill):
                    self._kill(order)
                else:
                    self._report_now(Alive(order.number))

    def _report_now(self, report: Report) -> None:
        self._reports.append(report)
        self._is_urgent = True

    def _kill(self, order: Kill) -> None:
        for entry in self._starts:
            if entry[1].attempt == order.attempt:
                self._starts.remove(entry)
                text = "killed before it began"
                self._report_now(Ended(order.attempt, SANDBOX_FAILED, text=text))
                return
        self._children.kill(order.attempt, order.grace_s)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._alarm.recv(512)
        try:
            while True:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    break
                self._children.exited(pid, status, usage)
        except ChildProcessError:
            pass
        self._settle()
        if not self._children:
            self._children.sweep()

    def _flush(self) -> None:
        if self._reports:
            self._outbound.add(self._reports)
            self._reports.clear()
        self._is_urgent = False
        if not self._outbound.flush():
            self._is_over = True

    def _begin(self, number: int, start: Start) -> None:
        self._progress[:] = PROGRESS.pack(number, 1)
        try:
            lay_out(start, self._children.spare())
            began = time.monotonic()
            pid = self._spawn(start)
        except CannotStart as failure:
            self._children.discard(start.sandbox)
            self._report_now(Ended(start.attempt, failure.how, text=str(failure)))
        else:
            self._children.add(start, pid, began)
            if not self._reports:
                self._flush_at = began + RUNNING_DELAY_S
            self._reports.append(Running(start.attempt, pid))
        self._progress[:] = PROGRESS.pack(number, 0)

    def _spawn(self, start: Start) -> int:
        environment = self._environment | dict(start.env)
        environment[MARKER] = start.attempt.hex().encode()
        environment[b"WQ_SANDBOX"] = environment[b"PWD"] = start.sandbox
        words = argument_vector(start.command, start.is_shell)
        try:
            os.chdir(start.sandbox)
            out = open_stream(start.sandbox + OUT)
            try:
                err = open_stream(start.sandbox + ERR)
                try:
                    return self._execute(words, environment, out, err)
                finally:
                    os.close(err)
            finally:
                os.close(out)
        except (OSError, ValueError) as error:
            raise CannotStart(SANDBOX_FAILED, f"the task could not be started: {error}") from error

    def _execute(
        self, words: list[bytes], environment: dict[bytes, bytes], out: int, err: int
    ) -> int:
        name = words[0] if words else b""
        program = self._search.find(name, environment.get(b"PATH", _DEFAULT_PATH))
        actions = [
            (os.POSIX_SPAWN_DUP2, self._null, 0),
            (os.POSIX_SPAWN_DUP2, out, 1),
            (os.POSIX_SPAWN_DUP2, err, 2),
        ]
        nap_s = 0.001
        for attempt in range(BUSY_RETRIES + 1):
            try:
                return _posix_spawn(program, words, environment, actions)
            except OSError as error:
                self._search.forget()
                if error.errno == errno.ENOEXEC and is_script(program):
                    words = [b"sh", program, *words[1:]]
                    program = SHELL
                elif error.errno == errno.ETXTBSY and attempt < BUSY_RETRIES:
                    time.sleep(nap_s)
                    nap_s *= 2
                else:
                    raise explain(error, program) from error
        raise AssertionError("the loop above returns or raises")

    def _leave(self) -> None:
        deadline = time.monotonic() + FAREWELL_S
        self._children.kill_all()
        while time.monotonic() < deadline:
            self._reap()
            is_left = self._children.sweep()
            if not is_left and not self._children:
                break
            select.select([self._alarm], [], [], 0.01)


def _posix_spawn(
    program: bytes,
    words: list[bytes],
    environment: dict[bytes, bytes],
    actions: list[tuple[int, int, int]],
) -> int:
    # SIGPIPE: this interpreter ignores it, and `yes | head -1` must not notice.
    return os.posix_spawn(
        program,
        words,
        environment,
        file_actions=actions,
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
    )


def become_subreaper() -> None:
    """Become the parent of every orphan among this process's descendants. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_CHILD_SUBREAPER): {os.strerror(number)}")


def _ignore(_number: int, _frame: object) -> None:
    """Let the wakeup descriptor do the work; without a handler it would not be written to."""


def _close_on_exec() -> None:
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor >= 3:
            with contextlib.suppress(OSError):
                os.set_inheritable(descriptor, False)


def _offer_to_oom_killer() -> None:
    path = "/proc/self/oom_score_adj"
    with contextlib.suppress(OSError, ValueError):
        with open(path) as file:
            score = int(file.read())
        if score < TASK_OOM_SCORE:
            with open(path, "w") as file:
                file.write(str(TASK_OOM_SCORE))


def main(arguments: list[str]) -> None:
    """Run the spawner; see the top of this file."""
    become_subreaper()
    _close_on_exec()
    _offer_to_oom_killer()
    link = socket.socket(fileno=int(arguments[0]))
    progress = mmap.mmap(int(arguments[1]), PROGRESS.size)
    gc.freeze()
    gc.disable()
    Spawner(link, progress, os.fsencode(arguments[2])).run()


if __name__ == "__main__":
    main(sys.argv[1:])
