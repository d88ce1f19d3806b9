"""A few threads for work that may wait for a disk: the loop hands it over and hears of its end."""

import queue
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

_Job = tuple[Callable[[], Any], Callable[[Any], None]]


class IoThreads:
    """Runs work in threads and its continuation in the loop's thread.

    Work must answer for its own OSErrors; whatever else it raises is a bug and is raised in the
    loop. `run` and `run_in_order` are called in the loop's thread.
    """

    def __init__(self, count: int, post: Callable[[Callable[[], None]], None]) -> None:
        self._post = post
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._done: list[Callable[[], None]] = []
        self._ordered: dict[bytes, deque[_Job]] = {}
        self._threads = [
            threading.Thread(target=self._run, name=f"files-{number}", daemon=True)
            for number in range(count)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def run(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Have `work()` done in a thread, then `then(result)` in the loop's."""
        self._queue.put((work, then))

    def run_in_order(self, key: bytes, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """As `run`, but never before earlier work of the same key has ended."""
        waiting = self._ordered.get(key)
        if waiting is not None:
            waiting.append((work, then))
            return
        self._ordered[key] = deque()
        self.run(work, partial(self._next_in_order, key, then))

    def _next_in_order(self, key: bytes, then: Callable[[T], None], result: T) -> None:
        waiting = self._ordered[key]
        if waiting:
            work, next_then = waiting.popleft()
            self.run(work, partial(self._next_in_order, key, next_then))
        else:
            del self._ordered[key]
        then(result)

    def close(self, timeout_s: float) -> None:
        """End the threads after what was handed over; one that hangs on a disk is left behind."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout_s)

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            work, then = job
            self._deliver(_outcome(work, then))

    def _deliver(self, call: Callable[[], None]) -> None:
        # One post per burst: whoever finds the list empty posts, the loop empties it whole.
        with self._lock:
            is_first = not self._done
            self._done.append(call)
        if is_first:
            self._post(self._drain)

    def _drain(self) -> None:
        with self._lock:
            calls, self._done = self._done, []
        for call in calls:
            call()


def _outcome(work: Callable[[], T], then: Callable[[T], None]) -> Callable[[], None]:
    try:
        result = work()
    except BaseException as bug:
        raised = bug

        def fail() -> None:
            raise AssertionError(f"work on files failed: {raised!r}") from raised

        return fail

    def succeed() -> None:
        then(result)

    return succeed
