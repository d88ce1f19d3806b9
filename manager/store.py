"""The journal: SQLite on a thread of its own, so that no commit ever holds up the loop.

The loop hands records over by `write()` and reads `committed`; what waits for a record is released
when its number is reached. The writer commits at once when idle and takes whatever gathered
meanwhile as the next group, so latency is one commit at low load and one more at high load. A
commit that fails keeps its group: the connection is opened anew and the same records are tried
again, in the same order, until they go through.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from wqueue.manager.core.events import Record, Restored, StoreBlocked, StoreOpened
from wqueue.manager.store_reader import AttemptRow, StoreReader

__all__ = ["AttemptRow", "Store", "StoreReader"]


class Store:
    """The manager's journal. One thread calls all methods; `wake` is called from the writer's."""

    def __init__(self, path: Path, wake: Callable[[], None]) -> None:
        """Name the database file; nothing is opened yet.

        `wake` is called after every commit and whenever `news()` has something; it must be safe to
        call from another thread and must not block.
        """
        raise NotImplementedError

    committed: int
    """Number of the last committed record of this process (records count from 1)."""

    def open(self) -> Restored:
        """Open or create the journal, raise and commit the epoch, and read everything back.

        Raises StoreError when the file cannot be opened, is damaged, or is of a newer version.
        Starts the writer thread. Callers must hold the state directory's lock.
        """
        raise NotImplementedError

    def write(self, records: Sequence[Record]) -> None:
        """Hand records over, in order; returns at once. Their numbers rise by one."""
        raise NotImplementedError

    def news(self) -> list[StoreBlocked | StoreOpened]:
        """Take what has happened to the store since the last call: call it after each wake.

        Raises AssertionError when records contradict what is stored (a bug of ours).
        """
        raise NotImplementedError

    def is_overdue(self, monotonic_s: float) -> bool:
        """Tell whether records wait longer than a commit should take.

        The loop must then pause 50 us each turn, or it starves the writer of the interpreter's
        lock (wire 7.1).
        """
        raise NotImplementedError

    def close(self, timeout_s: float = 10.0) -> None:
        """Commit what waits, mark the journal as cleanly closed and end the writer.

        Raises StoreError when the records cannot be committed within the time. Close all
        StoreReaders first.
        """
        raise NotImplementedError
