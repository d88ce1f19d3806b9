"""One sandbox on disk: inputs linked in, outputs looked at, all gone afterwards.

An output counts only if it is a regular file inside the sandbox, after all symbolic links. What a
path leads to is asked of an open descriptor (/proc/self/fd), so nothing can change in between.
"""

import errno
import os
import shutil
import stat
from collections.abc import Callable

from wqueue.protocol.limits import INLINE_BYTES
from wqueue.protocol.names import show, why_unsafe
from wqueue.worker.command import CannotStart
from wqueue.worker.orders import (
    INLINE_TOTAL_BYTES,
    INPUT_MISSING,
    MISSING,
    OK,
    SANDBOX_FAILED,
    UNSAFE,
    OutputFound,
    Start,
)

COPY_MAX_BYTES = 4 * 1024 * 1024
"""Where hard links do not work, files up to this are copied and larger ones linked symbolically.

The spawner must not be busy for seconds with one task's input.
"""

REMOVE_MAX = 64
"""Files and folders up to this number are removed by the spawner; more is work for a thread."""

_STREAM_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW

OUT = b".out"
ERR = b".err"


def lay_out(start: Start, spare: bytes = b"") -> None:
    """Make the sandbox with its inputs, and the folders that its outputs go to.

    `spare` is an empty sandbox to use for it (Remains.keep), if there is one. Raises CannotStart.
    """
    sandbox = start.sandbox
    try:
        if not spare or not _rename(spare, sandbox):
            os.mkdir(sandbox, 0o700)
        made: set[bytes] = set()
        for source, remote, mode in start.links:
            _check(remote)
            _make_parents(sandbox, remote, made)
            _link(source, sandbox + b"/" + remote, mode)
        for remote in start.outputs:
            _check(remote)
            _make_parents(sandbox, remote, made)
    except OSError as error:
        where = error.filename2 or error.filename or sandbox
        name = show(os.path.relpath(os.fsencode(where), sandbox))
        text = f"the sandbox could not be made: {name}: {error.strerror}"
        raise CannotStart(SANDBOX_FAILED, text) from error


def _rename(spare: bytes, sandbox: bytes) -> bool:
    # Three renames take 20 us on ext4, making and removing the same 100 us.
    try:
        os.rename(spare, sandbox)
        os.rename(spare + OUT, sandbox + OUT)
        os.rename(spare + ERR, sandbox + ERR)
    except FileNotFoundError:
        return os.path.lexists(sandbox)
    return True


def open_stream(path: bytes) -> int:
    """Open a file for what a task prints and give the descriptor; it is empty then."""
    try:
        return os.open(path, _STREAM_FLAGS, 0o600)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.ELOOP):
            raise
    os.unlink(path)
    return os.open(path, _STREAM_FLAGS, 0o600)


def _check(remote: bytes) -> None:
    reason = why_unsafe(remote)
    if reason:
        raise CannotStart(SANDBOX_FAILED, f"{show(remote)}: {reason}")


def _make_parents(sandbox: bytes, remote: bytes, made: set[bytes]) -> None:
    at = remote.find(b"/")
    while at >= 0:
        parent = remote[:at]
        if parent not in made:
            made.add(parent)
            _make_folder(sandbox + b"/" + parent)
        at = remote.find(b"/", at + 1)


def _make_folder(path: bytes) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None


def _link(source: bytes, target: bytes, mode: int) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError as error:
        raise CannotStart(INPUT_MISSING, f"the cache has lost {show(source)}") from error
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOTSUP):
            raise
        _copy(source, target, mode)


def _copy(source: bytes, target: bytes, mode: int) -> None:
    if os.stat(source).st_size > COPY_MAX_BYTES:
        os.symlink(source, target)
        return
    shutil.copyfile(source, target)
    os.chmod(target, 0o555 if mode & 0o111 else 0o444)


class Found:
    """What is to be reported of a sandbox whose task is over."""

    __slots__ = ("_room", "outputs", "stderr", "stderr_size", "stdout", "stdout_size")

    def __init__(self, start: Start) -> None:
        self._room = INLINE_TOTAL_BYTES
        self.stdout_size, self.stdout = self._read_stream(start.sandbox + OUT)
        self.stderr_size, self.stderr = self._read_stream(start.sandbox + ERR)
        self.outputs = [
            self._look(start.sandbox, remote, position)
            for position, remote in enumerate(start.outputs)
        ]

    def is_complete(self) -> bool:
        """Tell whether all content is carried inline, so that nothing on disk is needed."""
        return (
            self.stdout is not None
            and self.stderr is not None
            and all(output.kind != OK or output.inline is not None for output in self.outputs)
        )

    def _take(self, size: int) -> bool:
        if size > INLINE_BYTES or size > self._room:
            return False
        self._room -= size
        return True

    def _read_stream(self, path: bytes) -> tuple[int, bytes | None]:
        try:
            size = os.stat(path).st_size
            if size == 0:
                return 0, b""
            if not self._take(size):
                return size, None
            with open(path, "rb", buffering=0) as file:
                content = file.read(size)
        except FileNotFoundError:
            return 0, b""
        except OSError:
            return 0, None
        return len(content), content

    def _look(self, sandbox: bytes, remote: bytes, position: int) -> OutputFound:
        try:
            handle = open_output(sandbox, remote)
        except FileNotFoundError:
            return OutputFound(position, MISSING)
        except OSError:
            return OutputFound(position, UNSAFE)
        try:
            status = os.fstat(handle)
            size, mode = status.st_size, stat.S_IMODE(status.st_mode)
            if not self._take(size):
                return OutputFound(position, OK, size, mode)
            content = b"" if size == 0 else os.read(handle, size)
            if len(content) != size:
                return OutputFound(position, OK, size, mode)
            return OutputFound(position, OK, size, mode, content)
        finally:
            os.close(handle)


def open_output(sandbox: bytes, remote: bytes) -> int:
    """Open an output for reading and give the descriptor.

    Raises FileNotFoundError when nothing is there, PermissionError when it is not a regular file
    inside the sandbox, OSError when it cannot be read.
    """
    path = sandbox + b"/" + remote
    probe = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        status = os.fstat(probe)
        inside = os.readlink(b"/proc/self/fd/%d" % probe)
        if not stat.S_ISREG(status.st_mode) or not inside.startswith(_real(sandbox) + b"/"):
            text = "not a regular file inside the sandbox"
            raise PermissionError(errno.EPERM, text, path)
        return os.open(b"/proc/self/fd/%d" % probe, os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(probe)


def _real(sandbox: bytes) -> bytes:
    handle = os.open(sandbox, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return os.readlink(b"/proc/self/fd/%d" % handle)
    finally:
        os.close(handle)


class Remains:
    """The files of a sandbox that is no longer needed, if they are few enough to remove at once."""

    __slots__ = ("files", "folders", "is_small", "sandbox")

    def __init__(self, sandbox: bytes) -> None:
        self.sandbox = sandbox
        self.files: list[bytes] = []
        self.folders = [sandbox]
        self.is_small = True
        at = 0
        try:
            # Most often there is nothing, and then this is half the price of the scan.
            if not os.listdir(sandbox):
                return
            while at < len(self.folders) and self.is_small:
                self._scan(self.folders[at])
                at += 1
        except FileNotFoundError:
            self.folders.clear()
        except OSError:
            self.is_small = False

    def _scan(self, folder: bytes) -> None:
        with os.scandir(folder) as entries:
            for entry in entries:
                is_folder = entry.is_dir(follow_symlinks=False)
                (self.folders if is_folder else self.files).append(entry.path)
                if len(self.files) + len(self.folders) > REMOVE_MAX:
                    self.is_small = False
                    return

    def remove(self) -> None:
        """Remove all; what resists is left for the sweep at the worker's next start."""
        self.files += (self.sandbox + OUT, self.sandbox + ERR)
        self._empty()
        for folder in reversed(self.folders):
            _try(os.rmdir, folder)

    def keep(self) -> bool:
        """Empty the sandbox for another task to use; False when it is not fit for that."""
        if len(self.folders) != 1 or not self._empty():
            return False
        return os.stat(self.sandbox).st_mode == stat.S_IFDIR | 0o700

    def _empty(self) -> bool:
        is_empty = True
        for file in self.files:
            is_empty = _try(os.unlink, file) and is_empty
        return is_empty


def _try(remove: Callable[[bytes], None], path: bytes) -> bool:
    try:
        remove(path)
    except OSError:
        return False
    return True
