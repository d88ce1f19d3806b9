"""Reading file content for others: the manager's own copies and files in place, chunk by chunk.

Called in I/O threads. A few descriptors stay open, so that a file of many chunks is opened once;
a file in place is compared with its identity at every opening and at every chunk.
"""

import errno
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wqueue.manager.same_file import why_not_same_file
from wqueue.protocol.limits import CHUNK_BYTES
from wqueue.protocol.messages import FileIdentity, Get, GetFailed
from wqueue.protocol.names import show

OPEN_MAX = 64
"""Descriptors kept open for reading."""


class Place:
    """One place where a file may lie: our own copy, or the client's with its identity."""

    __slots__ = ("identity", "key", "path")

    def __init__(self, path: Path, identity: FileIdentity | None = None) -> None:
        self.path = path
        self.identity = identity
        self.key = os.fsencode(path)
        if identity is not None:
            # A path that gets a new file is another place for whoever declares the new one.
            self.key += b"\0%d %d %d" % (identity.inode, identity.mtime_ns, identity.size)

    @classmethod
    def of(cls, identity: FileIdentity) -> "Place":
        """Give the place of a file that is read where it lies."""
        return cls(Path(os.fsdecode(identity.path)), identity)


@dataclass
class _Held:
    """An open file; `users` threads read it now."""

    descriptor: int
    users: int = 0


class Descriptors:
    """Open files by a key, the least recently used closed first, never one in use."""

    def __init__(self, most: int = OPEN_MAX) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._held: OrderedDict[bytes, _Held] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def take(self, key: bytes, opened: Callable[[], _Held]) -> _Held:
        """Give the open file of `key`, opening it if needed; `give_back` must follow."""
        with self._lock:
            held = self._held.get(key)
            if held is not None:
                self._held.move_to_end(key)
                held.users += 1
                return held
        fresh = opened()
        with self._lock:
            held = self._held.setdefault(key, fresh)
            held.users += 1
            self._held.move_to_end(key)
            if held is not fresh:
                os.close(fresh.descriptor)
            return held

    def give_back(self, key: bytes, held: _Held, *, is_bad: bool = False) -> None:
        """End the use of a file; a bad one is opened anew next time."""
        with self._lock:
            held.users -= 1
            if is_bad and self._held.get(key) is held:
                del self._held[key]
            if self._held.get(key) is not held and not held.users:
                os.close(held.descriptor)
            self._shrink(self._most)

    def close(self) -> None:
        """Close what is not in use."""
        with self._lock:
            self._shrink(0)

    def _shrink(self, most: int) -> None:
        for key in [key for key, held in self._held.items() if not held.users]:
            if len(self._held) <= most:
                return
            os.close(self._held.pop(key).descriptor)


def read_chunk(descriptors: Descriptors, get: Get, places: Sequence[Place]) -> bytes | GetFailed:
    """Read what a Get asks for from the first place that has it.

    When none has, the first place's reason tells most: where the client said that the file lies.
    """
    failure = None
    for place in places:
        answer = _read_from(descriptors, get, place)
        if isinstance(answer, bytes):
            return answer
        failure = failure or answer
    return failure or GetFailed(get.transfer, "missing", "no such file here")


def _read_from(descriptors: Descriptors, get: Get, place: Place) -> bytes | GetFailed:
    try:
        held = descriptors.take(place.key, lambda: _open(place))
    except FileNotFoundError:
        return _failed(get, "missing", place, "it is not there")
    except OSError as error:
        return _failed(get, "unreadable", place, error.strerror or str(error))
    except ValueError as error:
        return _failed(get, "missing", place, str(error))
    why, is_bad = "", True
    try:
        found = os.fstat(held.descriptor)
        if place.identity is not None:
            why = why_not_same_file(place.identity, found)
        if not why:
            content = os.pread(held.descriptor, min(get.length, CHUNK_BYTES), get.offset)
            # What lost its last name was replaced or removed: the next reader looks again.
            is_bad = not found.st_nlink
            return content
    except OSError as error:
        return _failed(get, "unreadable", place, error.strerror or str(error))
    finally:
        descriptors.give_back(place.key, held, is_bad=is_bad)
    return _failed(get, "changed", place, why)


def _open(place: Place) -> _Held:
    # NONBLOCK: opening a pipe that somebody put there must not hang a thread for ever.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    if place.identity is None:
        flags |= os.O_NOFOLLOW
    descriptor = os.open(place.path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return _Held(descriptor)


def _failed(get: Get, code: str, place: Place, why: str) -> GetFailed:
    return GetFailed(get.transfer, code, f"{show(os.fsencode(place.path))}: {why}"[:4096])
