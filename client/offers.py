"""Files that this client offers to its manager, served piece by piece as the manager asks.

Reading happens in a thread of its own, so that a slow disk holds up nothing else. What is read is
only sent if the file still looks as it did when its digest was taken.
"""

import os
import queue
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from wqueue.hashing import identity
from wqueue.protocol.limits import CHUNK_BYTES
from wqueue.protocol.messages import Data, FileIdentity, Get, GetFailed

Reply = Callable[[Data | GetFailed, bytes | None], None]
Content = bytes | FileIdentity


class Offers:
    """Content by digest, as often offered as there are submissions that need it. Thread-safe."""

    def __init__(self) -> None:
        self._offered: dict[bytes, tuple[Content, int]] = {}
        self._lock = threading.Lock()
        self._orders: queue.SimpleQueue[tuple[Get, FileIdentity, Reply] | None] | None = None

    def add(self, contents: Iterable[tuple[bytes, Content]]) -> None:
        """Offer each content under its digest until it is withdrawn as often as it was added."""
        with self._lock:
            for digest, content in contents:
                known, count = self._offered.get(digest, (content, 0))
                self._offered[digest] = (known, count + 1)

    def withdraw(self, digests: Iterable[bytes]) -> None:
        """Take offers back."""
        with self._lock:
            for digest in digests:
                content, count = self._offered.pop(digest)
                if count > 1:
                    self._offered[digest] = (content, count - 1)

    def answer(self, get: Get, reply: Reply) -> None:
        """Serve a Get, through `reply`: at once from memory, else from the reading thread."""
        with self._lock:
            content, _ = self._offered.get(get.source[1:], (None, 0))
        if content is None or not get.source.startswith(b"d"):
            reply(GetFailed(get.transfer, "missing", "this client offers no such file"), None)
        elif isinstance(content, bytes):
            end = get.offset + min(get.length, CHUNK_BYTES)
            reply(Data(get.transfer, get.offset), content[get.offset : end])
        else:
            self._reader().put((get, content, reply))

    def close(self) -> None:
        """End the reading thread after what it is doing."""
        with self._lock:
            if self._orders is not None:
                self._orders.put(None)
                self._orders = None

    def _reader(self) -> "queue.SimpleQueue[tuple[Get, FileIdentity, Reply] | None]":
        with self._lock:
            if self._orders is None:
                self._orders = queue.SimpleQueue()
                threading.Thread(
                    target=_serve, args=(self._orders,), name="wqueue files", daemon=True
                ).start()
            return self._orders


def _serve(orders: "queue.SimpleQueue[tuple[Get, FileIdentity, Reply] | None]") -> None:
    while (order := orders.get()) is not None:
        get, expected, reply = order
        reply(*_read(get, expected))


def _read(get: Get, expected: FileIdentity) -> tuple[Data | GetFailed, bytes | None]:
    try:
        with Path(os.fsdecode(expected.path)).open("rb", buffering=0) as file:
            content = os.pread(file.fileno(), min(get.length, CHUNK_BYTES), get.offset)
            found = identity(expected.path, os.fstat(file.fileno()))
    except OSError as error:
        return GetFailed(get.transfer, "unreadable", error.strerror or "cannot be read"), None
    if found != expected:
        return GetFailed(get.transfer, "changed", "the file was changed after submission"), None
    return Data(get.transfer, get.offset), content
