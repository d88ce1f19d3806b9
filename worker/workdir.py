"""The folder a worker process works in: found, locked, swept of what its last owner left.

cache/       input files by content
sandboxes/   one folder per attempt, with its .out and .err beside it
outbox/      results that are not acknowledged
lock         locked while a worker process has the folder; holds its pid
"""

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import stat
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from msgspec import Struct

from wqueue.protocol.errors import UsageError
from wqueue.worker.children import WORKDIR_MARKER, marker_of
from wqueue.worker.sandbox import ERR, OUT

SLOTS_MAX = 4096
"""Workers of one manager on one machine that may share a temporary folder."""

SWEEP_MAX_S = 5.0
"""How long the processes of an earlier worker may take to die."""

_PROBE = b"#!/bin/sh\n"


class Swept(Struct, frozen=True):
    """What a sweep found: processes that were ended and sandboxes that were removed."""

    process_count: int = 0
    sandbox_count: int = 0


class Workdir:
    """A locked folder with cache/, sandboxes/ and outbox/, all 0700. Made by open_workdir."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.cache = path / "cache"
        self.sandboxes = path / "sandboxes"
        self.outbox = path / "outbox"
        self._lock = lock
        self._sandboxes = os.fsencode(self.sandboxes) + b"/"

    def sandbox(self, attempt: bytes) -> bytes:
        """Give the path of an attempt's sandbox."""
        return self._sandboxes + attempt.hex().encode()

    def sweep(self, keep: Collection[bytes] = ()) -> Swept:
        """End processes and remove sandboxes that an earlier worker process left here.

        `keep` are the sandboxes that results in the outbox still need (Kept.sandbox). Call it once,
        after the outbox was read and before the first task.
        """
        process_count = _end_processes(os.fsencode(self.path))
        kept = {os.path.basename(sandbox) for sandbox in keep}
        stale = set()
        for name in os.listdir(self._sandboxes):
            attempt = name.removesuffix(OUT).removesuffix(ERR)
            if attempt not in kept:
                stale.add(attempt)
        for attempt in stale:
            remove_sandbox(self._sandboxes + attempt)
        return Swept(process_count, len(stale))

    def is_there(self) -> bool:
        """Tell whether sandboxes can still be made: cleaners of /tmp take whole folders away."""
        return self.sandboxes.is_dir()

    def disk_free_mb(self) -> int:
        """Measure what is free for this user on the file system."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize // 2**20

    def close(self) -> None:
        """Give the lock back. The folder stays: its cache serves the next worker."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def open_workdir(
    server_id: bytes, chosen: Path | None = None, environ: Mapping[str, str] | None = None
) -> Workdir:
    """Lock `chosen`, or the first free ${TMPDIR:-/tmp}/wqueue-UID/SERVERID/N, and lay it out.

    Raises UsageError when it cannot be written, may not hold programs (noexec), is not ours, or,
    for a chosen one, when another worker has it.
    """
    if chosen is not None:
        path = Path(os.path.abspath(chosen))
        lock = _lock(path)
        if lock < 0:
            raise UsageError(f"{path} is in use by {_holder(path)}; choose another --workdir")
        return _lay_out(path, lock)
    variables = os.environ if environ is None else environ
    base = Path(variables.get("TMPDIR") or "/tmp").absolute() / f"wqueue-{os.getuid()}"
    _make_private(base)
    for number in range(SLOTS_MAX):
        path = base / server_id.hex() / str(number)
        lock = _lock(path)
        if lock >= 0:
            return _lay_out(path, lock)
    raise UsageError(f"{SLOTS_MAX} workers use {base / server_id.hex()} already; give a --workdir")


def remove_sandbox(sandbox: bytes) -> None:
    """Remove a sandbox and the files beside it, whatever a task did to permissions in it.

    Slow for large trees, so call it from a file thread. Absent ones are fine; what cannot be
    removed is left for the next sweep.
    """
    for path in (sandbox + OUT, sandbox + ERR):
        with contextlib.suppress(OSError):
            os.unlink(path)
    shutil.rmtree(sandbox, onerror=lambda *_: None)
    if os.path.lexists(sandbox):
        _open_up(sandbox)
        shutil.rmtree(sandbox, ignore_errors=True)


def _open_up(folder: bytes) -> None:
    # Folders without permission to write or enter cannot be emptied, but they are ours.
    with contextlib.suppress(OSError):
        os.chmod(folder, 0o700, follow_symlinks=os.chmod not in os.supports_follow_symlinks)
        with os.scandir(folder) as entries:
            below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        for path in below:
            _open_up(path)


def _make_private(path: Path) -> None:
    """Make a folder that is ours alone, or raise UsageError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise _unusable(path, error) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise UsageError(
            f"{path} is not a folder of this account, so somebody else could read or change "
            "tasks in it; give another --workdir or TMPDIR"
        )
    if status.st_mode & 0o077:
        try:
            path.chmod(0o700)
        except OSError as error:
            raise _unusable(path, error) from error


def _lock(path: Path) -> int:
    _make_private(path)
    try:
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        os.close(lock)
        return -1
    except OSError as error:
        os.close(lock)
        raise _unusable(path, error) from error
    return lock


def _holder(path: Path) -> str:
    try:
        return f"the worker with pid {int((path / 'lock').read_text())}"
    except (OSError, ValueError):
        return "another worker"


def _lay_out(path: Path, lock: int) -> Workdir:
    workdir = Workdir(path, lock)
    try:
        for folder in (workdir.cache, workdir.sandboxes, workdir.outbox):
            _make_private(folder)
        _check_executes(workdir.sandboxes / f".probe-{os.getpid()}")
    except UsageError:
        workdir.close()
        raise
    except OSError as error:
        workdir.close()
        raise _unusable(path, error) from error
    return workdir


def _check_executes(probe: Path) -> None:
    probe.write_bytes(_PROBE)
    try:
        probe.chmod(0o700)
        if not os.access(probe, os.X_OK):
            raise UsageError(
                f"{probe.parent} is mounted noexec, so tasks could not run programs there; "
                "give another --workdir or TMPDIR"
            )
    finally:
        probe.unlink()


def _unusable(path: Path, error: OSError) -> UsageError:
    reason = error.strerror or str(error)
    full = " (the disk is full)" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return UsageError(f"{path} cannot be used to work in: {reason}{full}; give another --workdir")


def _end_processes(workdir: bytes) -> int:
    ended: set[int] = set()
    deadline = time.monotonic() + SWEEP_MAX_S
    while True:
        found = _processes_of(workdir)
        if not found or time.monotonic() > deadline:
            return len(ended)
        for pid in found:
            ended.add(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def _processes_of(workdir: bytes) -> list[int]:
    """List the processes of this user that carry the marker of a workdir, zombies left out.

    They are of this boot, as all that /proc lists; this process and its parents are spared.
    """
    spared = {os.getpid(), os.getppid()}
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in spared and _is_ours(name):
            value = marker_of(int(name), WORKDIR_MARKER)
            if value == workdir:
                found.append(int(name))
    return found


def _is_ours(name: str) -> bool:
    try:
        return os.stat(f"/proc/{name}").st_uid == os.getuid()
    except OSError:
        return False
