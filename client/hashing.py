"""What local input files are: BLAKE3 digests and identities, computed by a few threads.

A digest is remembered by path, size, mtime and inode, so that a file used by many submissions of
one program is read once.
"""

import os
import stat
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from blake3 import blake3

from wqueue.protocol.errors import UsageError
from wqueue.protocol.messages import FileIdentity, FileRef
from wqueue.protocol.names import show
from wqueue.spec import Source

READ_BYTES = 1024 * 1024
"""Bytes read at a time: the interpreter's lock is released for each piece."""

THREADS_MAX = 4
"""Threads that hash: beyond a few, disks and memory are the limit."""

SMALL_BYTES = 4 * 1024 * 1024
"""Files of less than this in all are hashed without further threads."""

TRUSTED_AGE_NS = 2_000_000_000
"""A file changed more recently than this is hashed anew each time: clocks of file systems are
coarse, so it could change once more without a sign."""

OnHashed = Callable[[int, int], None]


class Hasher:
    """Turns sources into FileRefs, each naming its place here in `in_place`. Thread-safe."""

    def __init__(self) -> None:
        self._digests: dict[FileIdentity, bytes] = {}

    def refs(self, sources: Iterable[Source], on_hashed: OnHashed | None = None) -> list[FileRef]:
        """Give the facts of each source, in order. Raises UsageError for what is not a file.

        `on_hashed(bytes done, bytes in all)` is called from the hashing threads, one at a time.
        """
        entries = list(sources)
        sizes = [_look(s.path).st_size if s.path else len(s.content) for s in entries]
        count = _Count(sum(sizes), on_hashed)
        if count.total < SMALL_BYTES:
            return [self._ref(source, count) for source in entries]
        with ThreadPoolExecutor(min(THREADS_MAX, os.cpu_count() or 1)) as pool:
            futures = [pool.submit(self._ref, source, count) for source in entries]
            try:
                return [future.result() for future in futures]
            finally:
                count.is_stopped = True
                pool.shutdown(wait=False, cancel_futures=True)

    def _ref(self, source: Source, count: "_Count") -> FileRef:
        if not source.path:
            count.add(len(source.content))
            return FileRef(blake3(source.content).digest(), len(source.content))
        facts = _look(source.path)
        seen = identity(source.path, facts)
        digest = self._digests.get(seen)
        if digest is None:
            digest = _hash_file(source.path, seen, count)
            if time.time_ns() - seen.mtime_ns > TRUSTED_AGE_NS:
                self._digests[seen] = digest
        else:
            count.add(seen.size)
        return FileRef(digest, seen.size, stat.S_IMODE(facts.st_mode) & 0o777, seen)


class _Count:
    """Bytes hashed so far, told to the user; also the sign to stop."""

    def __init__(self, total: int, on_hashed: OnHashed | None) -> None:
        self.total = total
        self.is_stopped = False
        self._done = 0
        self._on_hashed = on_hashed
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Count further bytes."""
        if self._on_hashed is not None:
            with self._lock:
                self._done += count
                self._on_hashed(self._done, self.total)


def identity(path: bytes, facts: os.stat_result) -> FileIdentity:
    """Put together how a file or folder looks from here."""
    return FileIdentity(path, facts.st_size, facts.st_mtime_ns, facts.st_ino)


def _look(path: bytes) -> os.stat_result:
    try:
        facts = Path(os.fsdecode(path)).stat()
        mode = facts.st_mode
        if stat.S_ISDIR(mode):
            raise UsageError(
                f"the input {show(path)} is a directory; name the files in it (directories as "
                "inputs come later)"
            )
        if not stat.S_ISREG(mode):
            raise UsageError(f"the input {show(path)} is not a regular file")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    return facts


def _hash_file(path: bytes, seen: FileIdentity, count: _Count) -> bytes:
    hasher = blake3()
    try:
        with Path(os.fsdecode(path)).open("rb", buffering=0) as file:
            while not count.is_stopped and (piece := file.read(READ_BYTES)):
                hasher.update(piece)
                count.add(len(piece))
            now = identity(path, os.fstat(file.fileno()))
    except OSError as error:
        raise _unreadable(path, error) from None
    if now != seen and not count.is_stopped:
        raise UsageError(f"the input {show(path)} is being changed; submit when it is complete")
    return hasher.digest()


def _unreadable(path: bytes, error: Exception) -> UsageError:
    if isinstance(error, FileNotFoundError):
        return UsageError(f"the input {show(path)} does not exist")
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return UsageError(f"cannot read the input {show(path)}: {reason}")
