"""The tasks whose processes are children of this process, and how they end.

A task begins as one process that leads its own session. It may make more: in its group, in other
groups, in sessions of their own. Because this process is a child subreaper, every one whose parent
dies becomes a child of this process, so after the leader's end the rest of a task is found in the
list of children, known by its session or by WQ_ATTEMPT in its environment. A task has ended when
none of it is left: only then is its sandbox looked at and its Ended made.
"""

import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Generator
from resource import struct_rusage

from wqueue.worker.orders import EXITED, SIGNALED, Ended, Start
from wqueue.worker.sandbox import Found, removal

MARKER = b"WQ_ATTEMPT"
"""Environment variable that tells whose process a process is."""

WORKDIR_MARKER = b"WQ_WORKDIR"
"""Environment variable that tells which workdir a process belongs to."""

SPAWNER_MARKER = b"WQ_SPAWNER"
"""Environment variable of a spawner process, and of what it forked that has not become a task."""

SPARES_MAX = 16
"""Empty sandboxes that are kept for later tasks."""

SWEEP_MAX_S = 2.0
"""How long an ended task waits for the last of its killed processes; the kernel may hold one."""


class Task:
    """A task with a process."""

    __slots__ = ("began", "ended", "is_killed", "kill_at", "pid", "start", "status", "usage")

    def __init__(self, start: Start, pid: int, began: float) -> None:
        self.start = start
        self.pid = pid
        self.began = began
        self.ended = 0.0
        self.status = 0
        self.usage: struct_rusage | None = None
        self.kill_at = 0.0
        self.is_killed = False

    def give_up_at(self) -> float:
        """Give the time after which an ended task is reported whatever is left of it."""
        return max(self.ended, self.kill_at) + SWEEP_MAX_S


class Children:
    """All tasks of this process. `is_mine` tells that every child it has belongs to a task."""

    def __init__(self, is_mine: bool) -> None:
        self._is_mine = is_mine
        self._by_attempt: dict[bytes, Task] = {}
        self._by_pid: dict[int, Task] = {}
        self._ending: dict[bytes, Task] = {}
        self._timed: dict[bytes, Task] = {}
        self._owners: dict[int, bytes] = {}
        self._debris: deque[tuple[bytes, Generator[None, None, bool]]] = deque()
        self._spares: list[bytes] = []
        self._list = _open_list()

    def __len__(self) -> int:
        return len(self._by_attempt)

    def __contains__(self, attempt: object) -> bool:
        return attempt in self._by_attempt

    def add(self, start: Start, pid: int, began: float) -> None:
        """Take over a task whose process is a child of this one."""
        task = Task(start, pid, began)
        self._by_attempt[start.attempt] = task
        self._by_pid[pid] = task

    def kill(self, attempt: bytes, grace_s: float) -> None:
        """Begin to end a task; nothing happens when there is none by that id."""
        task = self._by_attempt.get(attempt)
        if task is None:
            return
        task.kill_at = time.monotonic() + grace_s
        self._timed[attempt] = task
        if grace_s > 0:
            _signal_group(task.pid, signal.SIGTERM)
        else:
            self.pass_time(task.kill_at)

    def kill_all(self) -> None:
        """Kill everything at once."""
        for task in list(self._by_attempt.values()):
            self.kill(task.start.attempt, 0.0)

    def pass_time(self, now: float) -> None:
        """Send the SIGKILLs whose time has come."""
        for task in list(self._timed.values()):
            if task.kill_at <= now and not task.is_killed:
                task.is_killed = True
                self._kill_members(task)

    def deadline(self) -> float | None:
        """Give the monotonic time at which pass_time() or settle() has something to do."""
        times = [task.kill_at for task in self._timed.values() if not task.is_killed]
        times += [task.give_up_at() for task in self._ending.values()]
        return min(times, default=None)

    def exited(self, pid: int, status: int, usage: struct_rusage) -> None:
        """Take note of a child that was waited for."""
        self._owners.pop(pid, None)
        task = self._by_pid.get(pid)
        if task is None or task.ended:
            return
        task.status = status
        task.usage = usage
        task.ended = time.monotonic()
        self._ending[task.start.attempt] = task
        if not task.kill_at or task.is_killed:
            task.is_killed = True
            _signal_group(pid, signal.SIGKILL)

    def settle(self) -> list[Ended]:
        """Give the tasks that have ended wholly; go on ending those that have not."""
        if not self._ending:
            return []
        now = time.monotonic()
        alive = self._orphans()
        # A stray might still write to the files of the task it came from.
        may_keep = self._is_mine and all(owner for _, owner in alive)
        over = []
        for attempt, task in list(self._ending.items()):
            left = [pid for pid, owner in alive if owner == attempt]
            if left and now < task.give_up_at():
                if task.is_killed:
                    _kill(left)
                continue
            del self._ending[attempt], self._by_attempt[attempt], self._by_pid[task.pid]
            self._timed.pop(attempt, None)
            over.append(self._report(task, is_clean=not left, may_keep=may_keep))
        return over

    def sweep(self) -> bool:
        """Kill what belongs to no task of ours; tells whether there was something.

        Where `is_mine` does not hold, unmarked children are spared.
        """
        orphans = self._orphans()
        strays = [
            pid
            for pid, owner in orphans
            if owner not in self._by_attempt and (owner or (self._is_mine and not self))
        ]
        _kill(strays)
        return bool(strays)

    def waitable(self) -> list[int]:
        """Give the children that are known to belong to a task, of this process or another."""
        leaders = [pid for pid, task in self._by_pid.items() if not task.ended]
        return leaders + [pid for pid, owner in self._orphans() if owner]

    def orphans_of(self, attempt: bytes) -> list[int]:
        """Give the children that belong to an attempt and are no task's own process."""
        return [pid for pid, owner in self._orphans() if owner == attempt]

    def tidy(self) -> None:
        """Take one step in removing the sandboxes that are done with, or keep one as a spare."""
        if not self._debris:
            return
        sandbox, steps = self._debris.popleft()
        try:
            next(steps)
        except StopIteration as end:
            if end.value:
                self._spares.append(sandbox)
        else:
            self._debris.append((sandbox, steps))

    def spare(self) -> bytes:
        """Take an empty sandbox that may be used again; an empty name when there is none."""
        if not self._spares:
            self.tidy()
        return self._spares.pop() if self._spares else b""

    def debris_count(self) -> int:
        """Give the number of sandboxes that wait for tidy()."""
        return len(self._debris)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._list >= 0:
            os.close(self._list)
            self._list = -1

    def _kill_members(self, task: Task) -> None:
        # What has left the group while its parent lives is no child of ours yet: look first.
        below = [] if task.ended else descendants(task.pid)
        if not task.ended:
            _signal_group(task.pid, signal.SIGKILL)
        _kill(below)
        _kill(self.orphans_of(task.start.attempt))

    def _orphans(self) -> list[tuple[int, bytes]]:
        found = []
        for pid in self.children():
            task = self._by_pid.get(pid)
            if task is not None and not task.ended:
                continue
            owner = self._owners.get(pid)
            if owner is None:
                owner = self._owners[pid] = self._owner(pid)
            found.append((pid, owner))
        return found

    def _owner(self, pid: int) -> bytes:
        task = self._by_pid.get(session_of(pid))
        if task is not None:
            return task.start.attempt
        return marker_of(pid, MARKER)

    def children(self) -> list[int]:
        """List the children of this process, zombies included."""
        if self._list < 0:
            return children_by_scan(os.getpid())
        text = os.pread(self._list, 65536, 0)
        if len(text) == 65536:
            return children_by_scan(os.getpid())
        return [int(word) for word in text.split()]

    def _report(self, task: Task, is_clean: bool, may_keep: bool) -> Ended:
        start, usage = task.start, task.usage
        assert usage is not None, "a task ended without its usage"
        code = os.waitstatus_to_exitcode(task.status)
        found = Found(start)
        is_left = not found.is_complete()
        if not is_left:
            self.discard(start.sandbox, may_keep and is_clean)
        return Ended(
            start.attempt,
            EXITED if code >= 0 else SIGNALED,
            exit_code=max(code, -1),
            signal=max(-code, 0),
            text="" if is_clean else "a process of this task could not be killed",
            wall_s=task.ended - task.began,
            user_s=usage.ru_utime,
            system_s=usage.ru_stime,
            max_rss_kb=usage.ru_maxrss,
            stdout_size=found.stdout_size,
            stdout=found.stdout,
            stderr_size=found.stderr_size,
            stderr=found.stderr,
            outputs=found.outputs,
            sandbox_left=is_left,
        )

    def discard(self, sandbox: bytes, may_keep: bool = False) -> None:
        """Have a sandbox removed by tidy(), or with `may_keep` emptied for another task."""
        is_wanted = may_keep and len(self._spares) + len(self._debris) < SPARES_MAX
        self._debris.append((sandbox, removal(sandbox, is_wanted)))


def _open_list() -> int:
    try:
        return os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _stat_fields(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def session_of(pid: int) -> int:
    """Give the session of a process, zombies included; 0 when there is none."""
    fields = _stat_fields(pid)
    return int(fields[3]) if len(fields) > 3 else 0


def marker_of(pid: int, name: bytes) -> bytes:
    """Give the value of a variable in a process's environment; WQ_ATTEMPT is taken out of hex."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            text = b"\0" + file.read()
    except OSError:
        return b""
    _, found, rest = text.partition(b"\0" + name + b"=")
    value = rest.partition(b"\0")[0] if found else b""
    if name != MARKER:
        return value
    try:
        return bytes.fromhex(value.decode("ascii"))
    except ValueError:
        return b""


def children_by_scan(parent: int) -> list[int]:
    """List the children of a process where the kernel has no list of them."""
    return [pid for pid, above in _parents().items() if above == parent]


def descendants(root: int) -> list[int]:
    """List all processes below `root`, which is left out."""
    below: dict[int, list[int]] = {}
    for pid, parent in _parents().items():
        below.setdefault(parent, []).append(pid)
    found: list[int] = []
    todo = [root]
    while todo:
        more = below.get(todo.pop(), [])
        found += more
        todo += more
    return found


def _parents() -> dict[int, int]:
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _stat_fields(int(name))
            if len(fields) > 1:
                parents[int(name)] = int(fields[1])
    return parents
