import logging
import os
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from wqueue.manager.core.events import (
    AttemptFailed,
    AttemptStarted,
    JobAdded,
    JobEnded,
    Record,
    Restored,
    StoreBlocked,
    StoreOpened,
    TaskEnded,
    TaskPublishing,
    WorkerAdmitted,
    WorkerLeft,
)
from wqueue.manager.store import Store, StoreReader, find_damage
from wqueue.manager.store_reader import RESULTS_BYTES_MAX
from wqueue.protocol.attempts import pack_attempt
from wqueue.protocol.errors import StoreError
from wqueue.protocol.messages import (
    STDOUT,
    AttemptResult,
    JobRange,
    OutputResult,
    TaskRecord,
)

UID = b"u" * 16
WORKER = b"w" * 16
PATIENCE_S = 20.0


class Journal:
    """A store and the numbering of its records."""

    def __init__(self, path: Path, commit: "FailingCommit | None" = None) -> None:
        self.path = path
        self.woken = threading.Event()
        self.store = Store(path, self.woken.set, commit=commit)
        self.number = 0

    def next(self) -> int:
        self.number += 1
        return self.number

    def write(self, *records: Record) -> None:
        self.store.write(records)

    def commit(self, *records: Record) -> None:
        self.write(*records)
        self.wait_for(lambda: self.store.committed == records[-1].record)

    def wait_for(self, condition: Callable[[], object]) -> None:
        while not condition():
            assert self.woken.wait(PATIENCE_S), "the store did not wake the loop"
            self.woken.clear()

    def job(self, job: int = 1, uid: bytes = UID, spec: bytes = b"spec") -> JobAdded:
        return JobAdded(self.next(), job, uid, b"owner", uid, spec, 5.0, True)

    def started(self, index: int, *, number: int = 1, job: int = 1) -> AttemptStarted:
        return AttemptStarted(self.next(), attempt(index, number), job, index, WORKER, 3, 6.0)

    def failed(self, index: int, counts_as: str, *, number: int = 1) -> AttemptFailed:
        key = attempt(index, number)
        return AttemptFailed(
            self.next(), key, 1, index, counts_as, AttemptResult(key, "exit_nonzero", 2)
        )

    def publishing(self, index: int, event: int, *, number: int = 1) -> TaskPublishing:
        task = record(index, event, number=number)
        return TaskPublishing(self.next(), attempt(index, number), 1, index, task)

    def ended(
        self, index: int, event: int, outcome: str = "succeeded", *, number: int = 1
    ) -> TaskEnded:
        task = record(index, event, outcome, number=number)
        return TaskEnded(self.next(), attempt(index, number), 1, index, task)


def attempt(index: int, number: int = 1) -> bytes:
    return pack_attempt(UID, index, 1, number)


def record(
    index: int, event: int, outcome: str = "succeeded", *, number: int = 1, stdout: bytes = b"out"
) -> TaskRecord:
    printed = OutputResult(STDOUT, len(stdout), inline=stdout)
    return TaskRecord(
        1, index, event, outcome, outputs=[printed], attempt=attempt(index, number), worker=3
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal(path)
    journal.store.open()
    yield journal
    journal.store.close()


def reopen(path: Path) -> Restored:
    store = Store(path, lambda: None)
    restored = store.open()
    store.close()
    return restored


class FailingCommit:
    """Commits, but fails as often as told with what a full disk gives."""

    def __init__(self, failures: int, *, after: bool = False) -> None:
        self.failures = failures
        self.after = after
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, connection: sqlite3.Connection) -> None:
        if self.failures:
            self.failures -= 1
            if self.after:
                connection.execute("COMMIT")
            raise sqlite3.OperationalError("database or disk is full")
        assert self.may_go_on.wait(PATIENCE_S)
        connection.execute("COMMIT")


# --- opening --------------------------------------------------------------------------------------


def test_a_fresh_journal_starts_at_epoch_one_with_nothing(path: Path) -> None:
    store = Store(path, lambda: None)
    restored = store.open()
    store.close()
    assert (restored.epoch, restored.next_job, restored.next_worker) == (1, 1, 1)
    assert not restored.jobs
    assert not restored.attempts
    assert not restored.publishing
    assert not restored.workers


def test_each_start_raises_the_epoch_and_has_committed_it(path: Path) -> None:
    for expected in (1, 2, 3):
        store = Store(path, lambda: None)
        assert store.open().epoch == expected
        with sqlite3.connect(path) as other:
            stored = other.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()[0]
        other.close()
        store.close()
        assert stored == expected


def test_the_journal_is_for_its_owner_only_and_reaches_the_disk(journal: Journal) -> None:
    assert journal.path.stat().st_mode & 0o777 == 0o600
    connection = journal.store._connection
    assert connection is not None
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_a_journal_of_a_newer_version_is_refused(path: Path) -> None:
    Store(path, lambda: None).open()
    other = sqlite3.connect(path)
    other.execute("INSERT INTO migration VALUES (99, 'future', 0)")
    other.commit()
    other.close()
    with pytest.raises(StoreError, match="format 99"):
        Store(path, lambda: None).open()


def test_a_file_that_is_no_journal_is_refused(path: Path) -> None:
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(StoreError, match=r"journal\.sqlite"):
        Store(path, lambda: None).open()


def test_a_missing_folder_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        Store(tmp_path / "nowhere" / "journal", lambda: None).open()


def test_damage_is_found_after_an_unclean_end(path: Path) -> None:
    journal = Journal(path)
    journal.store.open()
    journal.commit(journal.job(), *(journal.ended(i, i + 1) for i in range(2000)))
    journal.store.close()
    other = sqlite3.connect(path)
    other.execute("UPDATE meta SET value = 0 WHERE key = 'is_clean'")
    other.commit()
    other.close()
    content = path.read_bytes()
    path.write_bytes(content[:-40960] + b"\xff" * 40960)
    with pytest.raises(StoreError, match=r"damaged|malformed"):
        Store(path, lambda: None).open()
    assert find_damage(path)


def test_a_clean_end_is_noted_and_an_unclean_one_too(path: Path) -> None:
    def is_clean() -> int:
        other = sqlite3.connect(path)
        value = other.execute("SELECT value FROM meta WHERE key = 'is_clean'").fetchone()[0]
        other.close()
        return int(value)

    store = Store(path, lambda: None)
    store.open()
    assert not is_clean()
    store.close()
    assert is_clean()
    assert not find_damage(path)


# --- what is read back ----------------------------------------------------------------------------


def test_a_job_comes_back_as_it_was_accepted(journal: Journal) -> None:
    spec = os.urandom(3_000_000)
    added = journal.job(job=7, spec=spec)
    journal.commit(added)
    journal.store.close()
    restored = reopen(journal.path)
    (job,) = restored.jobs
    assert job.added == JobAdded(0, 7, UID, b"owner", UID, spec, 5.0, True)
    assert restored.next_job == 8


def test_ended_tasks_come_back_in_the_order_of_their_events(journal: Journal) -> None:
    j = journal
    j.commit(
        j.job(),
        j.ended(5, 1),
        j.ended(2, 2, "signal"),
        j.ended(9, 3, "canceled"),
        j.ended(0, 4, "exit_nonzero"),
    )
    j.store.close()
    restored = reopen(j.path)
    (job,) = restored.jobs
    assert list(job.ended) == [5, 2, 9, 0]
    assert job.failed == 2
    assert sorted(job.failed_indexes) == [0, 2]
    assert list(job.canceled) == [9]
    assert not job.is_canceled


def test_a_gap_in_the_events_is_no_task(journal: Journal) -> None:
    journal.commit(journal.job(), journal.ended(4, 1), journal.ended(6, 3))
    journal.store.close()
    restored = reopen(journal.path)
    assert list(restored.jobs[0].ended) == [4, 6]
    assert restored.jobs[0].last_event == 3


def test_open_attempts_come_back_and_ended_ones_do_not(journal: Journal) -> None:
    j = journal
    j.commit(j.job(), j.started(0), j.started(1), j.started(1, number=2), j.started(2))
    j.commit(j.ended(0, 1))
    j.commit(j.failed(2, "lost"), j.started(2, number=3))
    j.store.close()
    restored = reopen(j.path)
    assert restored.attempts == [
        AttemptStarted(0, attempt(index, number), 1, index, WORKER, 3, 6.0)
        for index, number in [(1, 1), (1, 2), (2, 3)]
    ]


def test_tries_are_counted_for_unfinished_tasks_only(journal: Journal) -> None:
    j = journal
    j.commit(j.job(), j.started(0), j.failed(0, "lost"), j.failed(0, "lost", number=2))
    j.commit(j.failed(0, "failure", number=3), j.failed(0, "", number=4))
    j.commit(j.failed(1, "failure"), j.ended(1, 1, number=2))
    j.store.close()
    restored = reopen(j.path)
    (job,) = restored.jobs
    assert job.lost == {0: 2}
    assert job.failures == {0: 1}
    assert not restored.attempts


def test_a_publishing_task_comes_back_until_it_ends(journal: Journal) -> None:
    j = journal
    j.commit(j.job(), j.started(0), j.publishing(0, 1), j.started(1), j.publishing(1, 2))
    j.commit(j.ended(1, 2))
    # The lost worker of another attempt does not take the winner back.
    j.commit(j.failed(0, "lost", number=2))
    j.store.close()
    restored = reopen(j.path)
    assert restored.publishing == [TaskPublishing(0, attempt(0), 1, 0, record(0, 1))]


def test_a_failed_attempt_is_published_no_more(journal: Journal) -> None:
    j = journal
    j.commit(j.job(), j.publishing(0, 1), j.publishing(1, 2))
    j.commit(j.failed(0, "lost"))
    j.commit(j.publishing(2, 3), j.failed(2, "lost"))
    j.store.close()
    restored = reopen(j.path)
    assert [row.index for row in restored.publishing] == [1]


def test_a_canceled_job_is_one_row_and_waits_for_no_attempt(journal: Journal) -> None:
    j = journal
    j.commit(j.job(), j.started(0), j.ended(3, 1))
    j.commit(j.started(1), JobEnded(j.next(), 1, 9.0, is_canceled=True))
    j.commit(JobEnded(j.next(), 1, 10.0))
    j.store.close()
    other = sqlite3.connect(j.path)
    assert other.execute("SELECT COUNT(*) FROM ended").fetchone() == (1,)
    assert other.execute("SELECT COUNT(*) FROM attempt").fetchone() == (0,)
    other.close()
    restored = reopen(j.path)
    (job,) = restored.jobs
    assert (job.is_canceled, job.ended_wall_s, list(job.ended)) == (True, 10.0, [3])
    assert not restored.attempts


def test_workers_come_back_until_they_leave_and_numbers_are_never_used_again(
    journal: Journal,
) -> None:
    j = journal
    here, gone = b"a" * 16, b"b" * 16
    j.commit(
        WorkerAdmitted(j.next(), here, 4, "node1", 1.0), WorkerAdmitted(j.next(), gone, 5, "n", 2.0)
    )
    j.commit(WorkerLeft(j.next(), gone))
    j.commit(WorkerAdmitted(j.next(), b"c" * 16, 6, "n", 2.0), WorkerLeft(j.next(), b"c" * 16))
    j.store.close()
    restored = reopen(j.path)
    assert restored.workers == [WorkerAdmitted(0, here, 4, "node1", 1.0)]
    assert restored.next_worker == 7


def test_an_attempt_that_starts_and_ends_in_one_group_leaves_no_row(journal: Journal) -> None:
    j = journal
    group = [j.job()]
    tasks = [r for i in range(500) for r in (j.started(i), j.ended(i, i + 1))]
    j.commit(*group, *tasks)
    other = sqlite3.connect(j.path)
    assert other.execute("SELECT COUNT(*) FROM attempt").fetchone() == (0,)
    assert other.execute("SELECT COUNT(*) FROM ended").fetchone() == (500,)
    other.close()


# --- ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_one_group", [True, False])
def test_the_first_end_of_a_task_stands(
    journal: Journal, caplog: pytest.LogCaptureFixture, in_one_group: bool
) -> None:
    j = journal
    j.commit(j.job())
    first, second, neighbour = j.ended(0, 1), j.ended(0, 2, "signal", number=2), j.ended(1, 3)
    with caplog.at_level(logging.ERROR):
        if in_one_group:
            j.commit(first, second, neighbour)
        else:
            j.commit(first)
            j.commit(second, neighbour)
    assert "ended a second time" in caplog.text
    reader = StoreReader(j.path)
    ends = [(r.index, r.event, r.outcome) for r in reader.results(1, 0, 10)]
    reader.close()
    assert ends == [(0, 1, "succeeded"), (1, 3, "succeeded")]


def test_one_event_for_two_tasks_is_a_bug_that_the_loop_hears(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(path)
    journal.store.open()
    journal.commit(journal.job(), journal.ended(0, 1))
    journal.write(journal.ended(1, 1))
    assert journal.woken.wait(PATIENCE_S)
    with pytest.raises(AssertionError, match="event 1 of job 1"):
        journal.store.news()
    journal.store.close()


def test_two_jobs_of_one_submission_are_a_bug(path: Path) -> None:
    journal = Journal(path)
    journal.store.open()
    journal.commit(journal.job(1))
    journal.write(journal.job(2))
    assert journal.woken.wait(PATIENCE_S)
    with pytest.raises(AssertionError, match="job 2"):
        journal.store.news()
    journal.store.close()


# --- crashes and failing disks --------------------------------------------------------------------


def copy_files(path: Path, target: Path) -> Path:
    """Copy the files as they are, as a crash would leave them."""
    target.mkdir()
    for name in (path.name, f"{path.name}-wal"):
        shutil.copy(path.with_name(name), target / name)
    return target / path.name


def test_what_was_committed_survives_a_crash_and_nothing_else_appears(
    journal: Journal, tmp_path: Path
) -> None:
    j = journal
    j.commit(j.job())
    copies = []
    for index in range(5):
        j.commit(j.started(index), j.ended(index, index + 1))
        copies.append(copy_files(j.path, tmp_path / f"crash{index}"))
    for index, copy in enumerate(copies):
        restored = reopen(copy)
        assert list(restored.jobs[0].ended) == list(range(index + 1))
        assert restored.epoch == 2


def test_a_torn_write_loses_the_last_group_only(journal: Journal, tmp_path: Path) -> None:
    j = journal
    j.commit(j.job(), j.ended(0, 1))
    j.commit(j.ended(1, 2))
    copy = copy_files(j.path, tmp_path / "crash")
    wal = copy.with_name(f"{copy.name}-wal")
    wal.write_bytes(wal.read_bytes()[:-1000])
    restored = reopen(copy)
    assert list(restored.jobs[0].ended) == [0]


@pytest.mark.parametrize("after", [False, True], ids=["undone", "done all the same"])
def test_a_failing_commit_loses_nothing_and_keeps_the_order(path: Path, after: bool) -> None:
    commit = FailingCommit(2, after=after)
    journal = Journal(path, commit=commit)
    journal.store.open()
    j = journal
    j.write(j.job(), j.started(0), j.failed(0, "lost"))
    j.write(j.ended(0, 1, number=2), WorkerAdmitted(j.next(), WORKER, 1, "node", 1.0))
    news: list[StoreBlocked | StoreOpened] = []

    def is_over() -> bool:
        news.extend(j.store.news())
        return j.store.committed == j.number and StoreOpened() in news

    j.wait_for(is_over)
    assert news == [StoreBlocked("database or disk is full"), StoreOpened()]
    j.commit(j.ended(1, 2))
    j.store.close()
    restored = reopen(path)
    (job,) = restored.jobs
    assert list(job.ended) == [0, 1]
    assert len(restored.workers) == 1


def test_nothing_counts_as_committed_while_the_disk_is_full(path: Path) -> None:
    commit = FailingCommit(1)
    commit.may_go_on.clear()
    journal = Journal(path, commit=commit)
    journal.store.open()
    journal.write(journal.job())
    journal.wait_for(journal.store.news)
    assert journal.store.committed == 0
    assert journal.store.is_overdue(1e12)
    commit.may_go_on.set()
    journal.wait_for(lambda: journal.store.committed == 1)
    assert not journal.store.is_overdue(1e12)
    journal.store.close()


def test_closing_on_a_full_disk_says_what_is_lost(path: Path) -> None:
    journal = Journal(path, commit=FailingCommit(10**6))
    journal.store.open()
    journal.write(journal.job())
    with pytest.raises(StoreError, match="1 records could not be written"):
        journal.store.close(timeout_s=0.05)


def test_closing_commits_what_waits(path: Path) -> None:
    journal = Journal(path)
    journal.store.open()
    journal.write(journal.job())
    for index in range(5000):
        journal.write(journal.ended(index, index + 1))
    journal.store.close()
    restored = reopen(path)
    assert len(restored.jobs[0].ended) == 5000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs needs root")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_disk_blocks_and_all_goes_on_when_there_is_room(small_disk: Path) -> None:
    path = small_disk / "journal.sqlite"
    journal = Journal(path)
    journal.store.open()
    j = journal
    j.commit(j.job())
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    big = b"y" * 30_000
    tasks = [TaskEnded(j.next(), attempt(i), 1, i, record(i, i + 1, stdout=big)) for i in range(8)]
    j.write(*tasks)
    news: list[object] = []

    def has_news(kind: type) -> bool:
        news.extend(j.store.news())
        return any(isinstance(item, kind) for item in news)

    j.wait_for(lambda: has_news(StoreBlocked))
    assert j.store.committed == 1
    filler.unlink()
    j.wait_for(lambda: has_news(StoreOpened))
    j.wait_for(lambda: j.store.committed == j.number)
    j.store.close()
    restored = reopen(path)
    assert list(restored.jobs[0].ended) == list(range(8))


# --- reading --------------------------------------------------------------------------------------


def read(path: Path, calls: Sequence[tuple[int, int]]) -> list[list[int]]:
    reader = StoreReader(path)
    answers = [[r.event for r in reader.results(1, *call)] for call in calls]
    reader.close()
    return answers


def test_results_come_after_the_cursor_in_order_of_their_events(journal: Journal) -> None:
    j = journal
    j.commit(j.job(), *(j.ended(9 - i, i + 1) for i in range(10)))
    assert read(j.path, [(0, 3), (3, 100), (10, 5)]) == [[1, 2, 3], [4, 5, 6, 7, 8, 9, 10], []]


def test_results_are_bounded_in_bytes_but_never_stuck(journal: Journal) -> None:
    j = journal
    j.commit(j.job())
    for i in range(30):
        task = record(i, i + 1, stdout=b"z" * 32_000)
        j.commit(TaskEnded(j.next(), attempt(i), 1, i, task))
    reader = StoreReader(j.path)
    seen: list[int] = []
    calls = 0
    while answer := reader.results(1, seen[-1] if seen else 0, 1000):
        assert sum(len(r.outputs[0].inline or b"") for r in answer) <= RESULTS_BYTES_MAX
        seen += [r.event for r in answer]
        calls += 1
    reader.close()
    assert seen == list(range(1, 31))
    assert calls == 2


def test_records_are_chosen_by_ranges(journal: Journal) -> None:
    j = journal
    j.commit(j.job(), *(j.ended(9 - i, i + 1) for i in range(10)))
    reader = StoreReader(j.path)
    chosen = reader.records([JobRange(1, 7), JobRange(1, 0, 1), JobRange(2)], 4)
    limited = reader.records([JobRange(1)], 3)
    reader.close()
    assert [r.index for r in chosen] == [7, 8, 9, 0]
    assert [r.index for r in limited] == [0, 1, 2]


def test_attempts_of_a_task_are_kept_as_history(journal: Journal) -> None:
    j = journal
    j.commit(j.job(), j.started(0), j.failed(0, "failure"), j.started(0, number=2))
    reader = StoreReader(j.path)
    first, second = reader.attempts(1, 0)
    reader.close()
    assert (first.attempt, first.worker, first.counts_as) == (attempt(0), 3, "failure")
    assert first.result == AttemptResult(attempt(0), "exit_nonzero", 2)
    assert (second.attempt, second.result) == (attempt(0, 2), None)


def test_a_reader_cannot_write_and_sees_each_commit(journal: Journal) -> None:
    j = journal
    j.commit(j.job())
    reader = StoreReader(j.path)
    assert reader.results(1, 0, 10) == []
    j.commit(j.ended(0, 1))
    assert len(reader.results(1, 0, 10)) == 1
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._connection.execute("DELETE FROM ended")
    reader.close()
