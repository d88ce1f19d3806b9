"""The cache folder: input files under the name of their content.

A file with digest HEX lies as HEX (mode 0444) or, where a task needs to execute it, as HEX.x
(0555): hard links share their mode with the file, so the two cannot be one. Files become visible
by rename, whole and verified. All functions may be called from file threads, the same digest from
several at once.

The links that tasks get are the file itself, and its owner may change it whatever its mode says. So
a verified file has a stamp, and one whose stamp is another now is not to be used again. Rejected:
hashing before every use, and a copy for every task.
"""

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from blake3 import blake3
from msgspec import Struct

EXECUTABLE = ".x"

UNFINISHED = ".tmp-"
"""Prefix of files on their way in; left-over ones are removed by index()."""

READ_BYTES = 1024 * 1024
"""Piece in which files are read for their digest: large enough that Python costs nothing."""

DIGEST_BYTES = 32

BACKDATED_NS = 1_000_000_000
"""A new file is dated back by this: a file system's clock steps by up to 10 ms, and a change within
the step in which the file was written would leave its date as it is."""


class Stamp(Struct, frozen=True):
    """What tells of a change without reading. Not the change time: every link renews it."""

    inode: int
    size: int
    mtime_ns: int
    mode: int


class CacheEntry(Struct, frozen=True):
    """One file of the cache."""

    digest: bytes
    is_executable: bool
    size: int


class CacheFiles:
    """The files of one cache folder; decides nothing about which to keep."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._prefix = os.fsencode(folder) + b"/"

    def index(self) -> list[CacheEntry]:
        """List what an earlier worker process left, by size only; unfinished files are removed."""
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.startswith(UNFINISHED):
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)
                    continue
                digest = _digest_of_name(entry.name)
                if digest and entry.is_file(follow_symlinks=False):
                    size = entry.stat(follow_symlinks=False).st_size
                    found.append(CacheEntry(digest, entry.name.endswith(EXECUTABLE), size))
        return sorted(found, key=lambda entry: (entry.digest, entry.is_executable))

    def path(self, digest: bytes, is_executable: bool) -> bytes:
        """Give the place of a file, whether it is there or not. Touches no disk."""
        name = self._prefix + digest.hex().encode()
        return name + EXECUTABLE.encode() if is_executable else name

    def stamp(self, digest: bytes, is_executable: bool) -> Stamp | None:
        """Look at a file; None when it is not there."""
        try:
            return _stamp_of(os.stat(self.path(digest, is_executable), follow_symlinks=False))
        except OSError:
            return None

    def receive(self, digest: bytes, size: int, is_executable: bool) -> "Incoming":
        """Begin a new file. Raises OSError when the disk is full."""
        handle, name = tempfile.mkstemp(prefix=UNFINISHED, dir=self._folder)
        path = os.fsencode(name)
        try:
            if size:
                _reserve(handle, size)
        except OSError:
            os.close(handle)
            os.unlink(path)
            raise
        return Incoming(handle, path, self.path(digest, is_executable), digest, size)

    def verify(self, digest: bytes, is_executable: bool, size: int) -> Stamp | None:
        """Read a file that was indexed, before its first use; a wrong one is removed (None)."""
        path = self.path(digest, is_executable)
        try:
            with open(path, "rb", buffering=0) as file:
                os.fchmod(file.fileno(), _mode(is_executable))
                stamp = _stamp_of(os.fstat(file.fileno()))
                if stamp.size == size and digest_of(file.fileno()) == digest:
                    return stamp
        except OSError:
            pass
        self.remove(digest, is_executable)
        return None

    def derive(self, digest: bytes, is_executable: bool) -> Stamp | None:
        """Make the wanted form of a file from the other one; None when that is not there."""
        source = self.path(digest, not is_executable)
        try:
            with open(source, "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                incoming = self.receive(digest, size, is_executable)
                try:
                    incoming.copy_from(file.fileno())
                except OSError:
                    incoming.abort()
                    raise
        except FileNotFoundError:
            return None
        return incoming.finish()

    def remove(self, digest: bytes, is_executable: bool) -> None:
        """Remove a file; sandboxes that have it linked keep it. Absent ones are fine."""
        with contextlib.suppress(OSError):
            os.unlink(self.path(digest, is_executable))


class Incoming:
    """A file on its way into the cache. One thread at a time."""

    def __init__(self, handle: int, path: bytes, place: bytes, digest: bytes, size: int) -> None:
        self._handle = handle
        self._path = path
        self._place = place
        self._digest = digest
        self._size = size

    def write(self, offset: int, data: bytes) -> None:
        """Write a piece; pieces may come in any order. Raises OSError."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._handle, view, offset)
            offset += written
            view = view[written:]

    def copy_from(self, source: int) -> None:
        """Write all of another file. Raises OSError."""
        with open(os.dup(self._handle), "wb") as target, open(os.dup(source), "rb") as file:
            shutil.copyfileobj(file, target, READ_BYTES)

    def finish(self) -> Stamp | None:
        """Verify and publish; None when the content is not what was promised (then it is gone).

        Raises OSError when it could not be read or renamed; then it is gone, too.
        """
        try:
            is_right = (
                os.fstat(self._handle).st_size == self._size
                and digest_of(self._handle) == self._digest
            )
            if is_right:
                is_executable = self._place.endswith(EXECUTABLE.encode())
                os.fchmod(self._handle, _mode(is_executable))
                status = os.fstat(self._handle)
                os.utime(self._handle, ns=(status.st_atime_ns, status.st_mtime_ns - BACKDATED_NS))
                stamp = _stamp_of(os.fstat(self._handle))
                # Closed before it has its name: a program that is open for writing cannot be run.
                self._close()
                os.rename(self._path, self._place)
                return stamp
        except OSError:
            self.abort()
            raise
        self.abort()
        return None

    def abort(self) -> None:
        """Give up; leaves nothing behind."""
        self._close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def _close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def digest_of(handle: int) -> bytes:
    """Give the BLAKE3-256 digest of an open file, read from its beginning. Raises OSError."""
    hasher = blake3()
    offset = 0
    while piece := os.pread(handle, READ_BYTES, offset):
        hasher.update(piece)
        offset += len(piece)
    return hasher.digest()


def _stamp_of(status: os.stat_result) -> Stamp:
    return Stamp(status.st_ino, status.st_size, status.st_mtime_ns, stat.S_IMODE(status.st_mode))


def _mode(is_executable: bool) -> int:
    return 0o555 if is_executable else 0o444


def _reserve(handle: int, size: int) -> None:
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError:
        # Not every file system can; a disk that is full shows here, or else while writing.
        status = os.fstatvfs(handle)
        if status.f_bavail * status.f_frsize < size:
            raise


def _digest_of_name(name: str) -> bytes:
    try:
        digest = bytes.fromhex(name.removesuffix(EXECUTABLE))
    except ValueError:
        return b""
    return digest if len(digest) == DIGEST_BYTES and digest.hex() in name else b""
