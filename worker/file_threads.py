"""Threads for what may take long, so that the loop never waits for a disk or a distant host.

Work goes in by do(), and what is to happen with its outcome comes back to the loop's thread. The
threads are daemons: one that hangs in a dead file system does not keep the process alive.
"""

import contextlib
import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

THREAD_COUNT = 4
"""Enough that hashing a large file does not hold up many small ones."""


class FileThreads:
    """A few threads and the way back from them."""

    def __init__(self, count: int = THREAD_COUNT) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._done: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._is_closed = False
        for number in range(count):
            threading.Thread(target=self._run, name=f"files-{number}", daemon=True).start()

    def fileno(self) -> int:
        """Give the descriptor that is readable when deliver() has something to do."""
        return self._wake

    def do(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Have `work` done by a thread and `then` called with what it gave, by deliver().

        An exception of `work` is raised by deliver(): errors that may happen are to be returned.
        """

        def whole() -> None:
            try:
                result = work()
            except Exception as error:
                self.fail(error)
            else:
                self.post(lambda: then(result))

        self._work.put(whole)

    def post(self, then: Callable[[], None]) -> None:
        """Have `then` called in the loop's thread. May be called from any thread."""
        self._done.append(then)
        with self._lock, contextlib.suppress(BlockingIOError):
            if not self._is_closed:
                os.eventfd_write(self._wake, 1)

    def fail(self, error: Exception) -> None:
        """Have `error` raised in the loop's thread: it is a bug."""

        def throw() -> None:
            raise error

        self.post(throw)

    def deliver(self) -> None:
        """Do in the loop's thread what is to be done there."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while self._done:
            self._done.popleft()()

    def close(self) -> None:
        """Take nothing back any more."""
        with self._lock:
            self._is_closed = True
            os.close(self._wake)

    def _run(self) -> None:
        while True:
            self._work.get()()
