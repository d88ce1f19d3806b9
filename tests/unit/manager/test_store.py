import logging
import os
import sqlite3
from pathlib import Path

import pytest
from support.journal import PATIENCE_S, UID, WORKER, Journal, attempt, record, reopen

from wqueue.manager.core.events import (
    AttemptStarted,
    JobAdded,
    JobEnded,
    TaskPublishing,
    WorkerAdmitted,
    WorkerLeft,
)
from wqueue.manager.store import Store, StoreReader, find_damage
from wqueue.protocol.errors import StoreError

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
    reopen(path)
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
