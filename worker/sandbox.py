"""One sandbox on disk: inputs linked in, outputs looked at, all gone afterwards.

An output counts only if it is a regular file inside the sandbox, after all symbolic links. What a
path leads to is asked of an open descriptor (/proc/self/fd), so nothing can change in between.
"""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Generator

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

REMOVE_STEP = 64
"""Files and folders that are removed at once; between two steps the spawner serves its tasks."""

_STREAM_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW

OUT = b".out"
ERR = b".err"


def lay_out(start: Start, spare: bytes = b"") -> None:
    """Make the sandbox with its inputs, and the folders that its outputs go to.

    `spare` is an empty sandbox to use for it (see removal), if there is one. Raises CannotStart.
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


def removal(sandbox: bytes, may_keep: bool) -> Generator[None, None, bool]:
    """Remove a sandbox and the files beside it, a step at a time.

    With `may_keep` an ordinary one is only emptied, for another task to use: then True is returned
    at the end. What resists is left for the sweep at the worker's next start.
    """
    folders = [sandbox]
    count = 0
    for folder in folders:
        for path in _list(folder):
            if _is_folder(path):
                folders.append(path)
            else:
                _try(os.unlink, path)
            count += 1
            if count % REMOVE_STEP == 0:
                yield
    for folder in reversed(folders[1:]):
        _try(os.rmdir, folder)
        count += 1
        if count % REMOVE_STEP == 0:
            yield
    if may_keep and _is_ordinary(sandbox):
        return True
    _try(os.unlink, sandbox + OUT)
    _try(os.unlink, sandbox + ERR)
    _try(os.rmdir, sandbox)
    return False


def _list(folder: bytes) -> list[bytes]:
    try:
        names = os.listdir(folder)
        if names and not os.access(folder, os.W_OK | os.X_OK):
            os.chmod(folder, 0o700)
    except PermissionError:
        if not _try(lambda path: os.chmod(path, 0o700), folder):
            return []
        names = os.listdir(folder)
    except OSError:
        return []
    return [folder + b"/" + name for name in names]


def _is_folder(path: bytes) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _is_ordinary(sandbox: bytes) -> bool:
    try:
        status = os.stat(sandbox)
        return status.st_mode == stat.S_IFDIR | 0o700 and not os.listdir(sandbox)
    except OSError:
        return False


def _try(remove: Callable[[bytes], None], path: bytes) -> bool:
    try:
        remove(path)
    except OSError:
        return False
    return True
