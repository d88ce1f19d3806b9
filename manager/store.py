"""The journal: SQLite on a thread of its own, so that no commit ever holds up the loop.

The loop hands records over by `write()` and reads `committed`; what waits for a record is released
when its number is reached. The writer commits at once when idle and takes whatever gathered
meanwhile as the next group, so latency is one commit at low load and one more at high load. A
commit that fails keeps its group: the connection is opened anew and the same records are tried
again, in the same order, until they go through.
"""

import errno
import logging
import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from wqueue.manager import store_schema
from wqueue.manager.core.events import Record, Restored, StoreBlocked, StoreOpened
from wqueue.manager.store_group import Group, OpenRows
from wqueue.manager.store_load import load, read_meta
from wqueue.manager.store_reader import AttemptRow, StoreReader
from wqueue.protocol.errors import JournalFull, StoreError

__all__ = ["AttemptRow", "Store", "StoreReader", "find_damage"]

GROUP_RECORDS_MAX = 2048
"""Records after which a group takes no more: keeps one commit below some 40 ms."""

OVERDUE_S = 0.002
"""A commit that takes longer is starved or its disk is slow: the loop must pause (wire 7.1)."""

ROOM_MIN_BYTES = 128 * 1024
"""A journal that cannot be opened on a disk with less room is taken to want room."""

RETRY_FIRST_S = 0.1
"""Pause after the first failed commit; doubled up to RETRY_MAX_S."""

RETRY_MAX_S = 5.0
"""Longest pause between tries, which is how long a freed disk may go unnoticed."""

_log = logging.getLogger(__name__)

_BUGS = (
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    sqlite3.DataError,
    sqlite3.NotSupportedError,
)
"""What SQLite raises when the records are wrong, not the disk: trying again cannot help."""


class Store:
    """The manager's journal. One thread calls all methods; `wake` is called from the writer's."""

    def __init__(
        self,
        path: Path,
        wake: Callable[[], None],
        *,
        software: str = "",
        commit: Callable[[sqlite3.Connection], None] | None = None,
    ) -> None:
        """Name the database file; nothing is opened yet.

        `wake` is called after every commit and whenever `news()` has something; it must be safe to
        call from another thread and must not block. `commit` replaces the commit itself in tests
        of failing disks.
        """
        self.committed = 0
        """Number of the last committed record of this process (records count from 1)."""
        self._path = path
        self._wake = wake
        self._software = software
        self._commit = commit or _commit
        self._rows = OpenRows()
        self._epoch = 0
        self._place = (0, 0)
        self._connection: sqlite3.Connection | None = None
        self._queue: queue.SimpleQueue[Sequence[Record] | None] = queue.SimpleQueue()
        self._news: deque[StoreBlocked | StoreOpened] = deque()
        self._bug: BaseException | None = None
        self._reason = ""
        self._written = 0
        self._progress_s = 0.0
        self._is_ending = False
        self._give_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)

    def open(self) -> Restored:
        """Open or create the journal, raise and commit the epoch, and read everything back.

        Raises StoreError when the file cannot be opened, is damaged, or is of a newer version.
        Starts the writer thread. Callers must hold the state directory's lock.
        """
        try:
            connection = store_schema.connect_writer(self._path)
        except (sqlite3.Error, OSError) as error:
            kind = _kind_of(error, self._path)
            raise kind(f"cannot open the journal {self._path}: {error}") from error
        try:
            restored = self._begin(connection)
        except (sqlite3.Error, OSError) as error:
            connection.close()
            kind = _kind_of(error, self._path)
            raise kind(f"cannot read the journal {self._path}: {error}") from error
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._place = _place_of(self._path)
        self._thread.start()
        return restored

    def write(self, records: Sequence[Record]) -> None:
        """Hand records over, in order; returns at once. Their numbers rise by one."""
        if not records:
            return
        if self.committed == self._written:
            self._progress_s = time.monotonic()
        self._written = records[-1].record
        self._queue.put(records)

    def news(self) -> list[StoreBlocked | StoreOpened]:
        """Take what has happened to the store since the last call: call it after each wake.

        Raises AssertionError when records contradict what is stored (a bug of ours).
        """
        if self._bug is not None:
            raise AssertionError(f"the store cannot carry out its records: {self._bug}")
        taken = []
        while self._news:
            taken.append(self._news.popleft())
        return taken

    def is_overdue(self, monotonic_s: float) -> bool:
        """Tell whether records wait longer than a commit should take.

        The loop must then pause 50 us each turn, or it starves the writer of the interpreter's
        lock (wire 7.1).
        """
        return self.committed != self._written and monotonic_s - self._progress_s > OVERDUE_S

    def close(self, timeout_s: float = 10.0) -> None:
        """Commit what waits, mark the journal as cleanly closed and end the writer.

        Raises StoreError when the records cannot be committed within the time. Close all
        StoreReaders first.
        """
        if not self._thread.is_alive():
            return
        self._queue.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._give_up.set()
            self._thread.join(timeout_s)
        if self._bug is None and self.committed != self._written:
            raise StoreError(
                f"{self._written - self.committed} records could not be written to {self._path}:"
                f" {self._reason or 'the disk is too slow'}; workers will report again"
            )

    # --- the caller's thread, before the writer's begins ----------------------------------------

    def _begin(self, connection: sqlite3.Connection) -> Restored:
        store_schema.migrate(connection, self._software, time.time())
        if not read_meta(connection, "is_clean"):
            damage = store_schema.find_damage(connection)
            if damage:
                raise StoreError(
                    f"the journal {self._path} is damaged: {damage};"
                    " put a backup in its place or move it away to begin anew"
                )
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'epoch'")
        connection.execute("UPDATE meta SET value = 0 WHERE key = 'is_clean'")
        connection.execute("COMMIT")
        self._epoch = read_meta(connection, "epoch")
        return load(connection, self._epoch, self._rows)

    # --- the writer's thread --------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while records := self._gather():
                if not self._carry_through(records):
                    break
            self._end()
        except BaseException as bug:
            # Whatever it is, the loop must hear of it, or the manager would wait for ever.
            _log.exception("the store's thread ends")
            self._bug = bug
            self._wake()

    def _gather(self) -> list[Record]:
        """Wait for records and take all there are, up to a group; none means the end."""
        gathered: list[Record] = []
        if self._is_ending:
            return gathered
        records = self._queue.get()
        while records is not None:
            gathered.extend(records)
            if len(gathered) >= GROUP_RECORDS_MAX:
                return gathered
            try:
                records = self._queue.get_nowait()
            except queue.Empty:
                return gathered
        self._is_ending = True
        return gathered

    def _carry_through(self, records: list[Record]) -> bool:
        """Commit a group, however long it takes; False when told to give up."""
        pause_s = RETRY_FIRST_S
        while True:
            try:
                last = self._carry_out(records)
                break
            except _BUGS:
                raise
            except (sqlite3.Error, OSError) as error:
                self._tell_blocked(error)
            self._drop_connection()
            if self._give_up.wait(pause_s):
                return False
            pause_s = min(2 * pause_s, RETRY_MAX_S)
        if self._reason:
            self._reason = ""
            self._news.append(StoreOpened())
        self._progress_s = time.monotonic()
        self.committed = last
        self._wake()
        return True

    def _carry_out(self, records: list[Record]) -> int:
        connection = self._connection or self._reopen()
        group = Group(records, self._rows)
        connection.execute("BEGIN IMMEDIATE")
        group.write(connection)
        self._commit(connection)
        if _place_of(self._path) != self._place:
            # Commits into a file that has lost its name would be gone with this process.
            raise OSError(errno.ENOENT, f"the journal {self._path} was removed or replaced")
        group.settle()
        return group.last

    def _tell_blocked(self, error: Exception) -> None:
        if not self._reason:
            self._reason = str(error)
            _log.error("a commit failed and will be tried again: %s", error)
            self._news.append(StoreBlocked(self._reason))
            self._wake()

    def _drop_connection(self) -> None:
        """Leave a handle whose commit failed: what it would do next is not to be relied on."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error as error:
                _log.warning("closing the journal: %s", error)

    def _reopen(self) -> sqlite3.Connection:
        if _place_of(self._path) != self._place:
            raise OSError(errno.ENOENT, f"the journal {self._path} was removed or replaced")
        connection = store_schema.connect_writer(self._path)
        try:
            epoch = read_meta(connection, "epoch")
        except BaseException:
            connection.close()
            raise
        assert epoch == self._epoch, f"the journal is another's: epoch {epoch}, not {self._epoch}"
        self._connection = connection
        return connection

    def _end(self) -> None:
        if self.committed == self._written and self._connection is not None:
            try:
                self._connection.execute("UPDATE meta SET value = 1 WHERE key = 'is_clean'")
            except sqlite3.Error as error:
                _log.warning("the journal could not be marked as closed: %s", error)
        self._drop_connection()


def find_damage(path: Path) -> str:
    """Check the journal of a manager that is not running; an empty string means it is sound."""
    try:
        connection = store_schema.connect_reader(path)
        try:
            return store_schema.find_damage(connection)
        finally:
            connection.close()
    except sqlite3.Error as error:
        return str(error)


def _place_of(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino


def _kind_of(error: Exception, path: Path) -> type[StoreError]:
    """Tell a full disk from what needs a person. SQLite has many names for the former."""
    if getattr(error, "errno", 0) in (errno.ENOSPC, errno.EDQUOT) or "is full" in str(error):
        return JournalFull
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return StoreError
    return JournalFull if disk.f_bavail * disk.f_frsize < ROOM_MIN_BYTES else StoreError


def _commit(connection: sqlite3.Connection) -> None:
    connection.execute("COMMIT")
