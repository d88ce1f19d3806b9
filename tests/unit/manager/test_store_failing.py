import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.disks import fill, small_disk
from support.journal import WORKER, FailingCommit, Journal, attempt, record, reopen

from wqueue.manager.core.events import (
    StoreBlocked,
    StoreOpened,
    TaskEnded,
    WorkerAdmitted,
)
from wqueue.protocol.errors import JournalFull, StoreError


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
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small") as folder:
        yield folder


def test_a_really_full_disk_blocks_and_all_goes_on_when_there_is_room(disk: Path) -> None:
    path = disk / "journal.sqlite"
    journal = Journal(path)
    journal.store.open()
    j = journal
    j.commit(j.job())
    filler = fill(disk)
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


def test_a_start_without_room_says_that_it_is_for_want_of_room(disk: Path) -> None:
    path = disk / "journal.sqlite"
    reopen(path)
    fill(disk)
    with pytest.raises(JournalFull):
        Journal(path).store.open()


def test_a_journal_that_was_removed_takes_nothing_more(journal: Journal) -> None:
    j = journal
    j.commit(j.job())
    moved = j.path.rename(j.path.with_name("moved"))
    j.write(j.ended(0, 1))
    news: list[object] = []

    def is_blocked() -> bool:
        news.extend(j.store.news())
        return any(isinstance(item, StoreBlocked) for item in news)

    j.wait_for(is_blocked)
    assert not j.path.exists()
    assert j.store.committed == 1
    moved.rename(j.path)
    j.wait_for(lambda: j.store.committed == j.number)
