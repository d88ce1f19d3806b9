"""Inputs into the cache: real files and threads, a manager made of a dictionary."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from support.processes import wait_until

from wqueue.protocol.limits import CHUNK_BYTES, WINDOW_BYTES
from wqueue.protocol.messages import Data, Get, GetFailed
from wqueue.worker.cache_files import CacheFiles
from wqueue.worker.core.events import FileFailed, FilesCached
from wqueue.worker.downloads import Downloads
from wqueue.worker.file_threads import FileThreads


class Desk:
    """Downloads, what they asked for, and what they reported."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.threads = FileThreads(2)
        self.asked: list[Get] = []
        self.reports: list[FilesCached | FileFailed] = []
        self.contents: dict[bytes, bytes] = {}
        self.downloads = Downloads(
            CacheFiles(folder), self.threads, self.asked.extend, self.reports.append
        )

    def add(self, content: bytes, *, is_executable: bool = False) -> bytes:
        digest = blake3(content).digest()
        self.contents[b"d" + digest] = content
        return digest + b"x" if is_executable else digest

    def answer(self) -> None:
        """Answer everything that was asked for, last request first."""
        asked = self.asked[:]
        self.asked.clear()
        for get in reversed(asked):
            content = self.contents[get.source][get.offset : get.offset + get.length]
            self.downloads.take(Data(get.transfer, get.offset), content)

    def serve_until(self, count: int) -> None:
        def is_done() -> bool:
            self.threads.deliver()
            self.answer()
            return len(self.reports) >= count

        wait_until(is_done, what=f"{count} reports")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "cache")
    yield desk
    desk.threads.close()


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 3 * WINDOW_BYTES + 17])
def test_a_file_arrives_whole(desk: Desk, size: int) -> None:
    content = os.urandom(size)
    key = desk.add(content)
    desk.downloads.open()
    desk.downloads.fetch(key, size)
    desk.serve_until(1)
    assert desk.reports == [FilesCached([(key, size)])]
    assert Path(os.fsdecode(desk.downloads.path(key))).read_bytes() == content


def test_no_more_than_a_window_is_asked_for(desk: Desk) -> None:
    key = desk.add(bytes(10 * WINDOW_BYTES))
    desk.downloads.open()
    desk.downloads.fetch(key, 10 * WINDOW_BYTES)
    assert sum(get.length for get in desk.asked) == WINDOW_BYTES


def test_nothing_is_asked_for_before_the_link_is_up(desk: Desk) -> None:
    key = desk.add(b"content")
    desk.downloads.fetch(key, 7)
    assert desk.asked == []
    desk.downloads.open()
    desk.serve_until(1)
    assert desk.reports == [FilesCached([(key, 7)])]


def test_several_files_arrive_at_once(desk: Desk) -> None:
    desk.downloads.open()
    keys = [desk.add(b"%d" % number) for number in range(50)]
    for key in keys:
        desk.downloads.fetch(key, len(desk.contents[b"d" + key]))
    desk.serve_until(50)
    assert sorted(r.files[0][0] for r in desk.reports if isinstance(r, FilesCached)) == sorted(keys)


def test_a_program_can_be_executed(desk: Desk) -> None:
    key = desk.add(b"#!/bin/sh\n", is_executable=True)
    desk.downloads.open()
    desk.downloads.fetch(key, 10)
    desk.serve_until(1)
    assert os.access(desk.downloads.path(key), os.X_OK)


def test_what_is_here_in_the_other_form_is_not_fetched_again(desk: Desk) -> None:
    key = desk.add(b"#!/bin/sh\n")
    desk.downloads.open()
    desk.downloads.fetch(key, 10)
    desk.serve_until(1)
    desk.contents.clear()
    desk.downloads.fetch(key + b"x", 10)
    desk.serve_until(2)
    assert desk.reports[1] == FilesCached([(key + b"x", 10)])


def test_a_file_of_an_earlier_process_is_verified_and_not_fetched(
    desk: Desk, tmp_path: Path
) -> None:
    good, bad = desk.add(b"good"), desk.add(b"fine")
    desk.downloads.open()
    desk.downloads.fetch(good, 4)
    desk.downloads.fetch(bad, 4)
    desk.serve_until(2)
    path = Path(os.fsdecode(desk.downloads.path(bad)))
    path.chmod(0o600)
    path.write_bytes(b"evil")
    again = Desk(tmp_path / "cache")
    assert sorted(again.downloads.index()) == sorted([(good, 4), (bad, 4)])
    again.downloads.open()
    again.contents = {b"d" + bad: b"fine"}
    again.downloads.fetch(good, 4)
    again.downloads.fetch(bad, 4)
    again.serve_until(2)
    assert all(isinstance(report, FilesCached) for report in again.reports)
    assert path.read_bytes() == b"fine"
    again.threads.close()


@pytest.mark.parametrize("is_left_over", [False, True])
def test_a_file_is_spoiled_by_any_change_and_not_by_a_link(
    desk: Desk, tmp_path: Path, is_left_over: bool
) -> None:
    key = desk.add(b"content")
    path = Path(os.fsdecode(desk.downloads.path(key)))
    desk.downloads.open()
    desk.downloads.fetch(key, 7)
    desk.serve_until(1)
    if is_left_over:
        path.chmod(0o666)
        desk.threads.close()
        desk = Desk(tmp_path / "cache")
        desk.downloads.index()
        assert desk.downloads.spoiled([key]) == [key], "it is not verified yet"
        desk.downloads.fetch(key, 7)
        desk.serve_until(1)
    os.link(path, tmp_path / "linked")
    path.read_bytes()
    assert desk.downloads.spoiled([key]) == []
    (tmp_path / "linked").chmod(0o644)
    assert desk.downloads.spoiled([key]) == [key]
    path.chmod(0o444)
    assert desk.downloads.spoiled([key]) == []
    with (tmp_path / "linked").open("r+b") as file:
        file.write(b"CONTENT")
    assert desk.downloads.spoiled([key]) == [key]
    path.unlink()
    assert desk.downloads.spoiled([key]) == [key]


def test_a_spoiled_file_that_was_evicted_is_fetched_again(desk: Desk) -> None:
    key = desk.add(b"content")
    path = Path(os.fsdecode(desk.downloads.path(key)))
    desk.downloads.open()
    desk.downloads.fetch(key, 7)
    desk.serve_until(1)
    path.chmod(0o644)
    path.write_bytes(b"evil")
    desk.downloads.evict([key])
    assert desk.downloads.spoiled([key]) == [key]
    desk.downloads.fetch(key, 7)
    desk.serve_until(2)
    assert desk.downloads.spoiled([key]) == []
    assert path.read_bytes() == b"content"


def test_damaged_content_is_not_taken(desk: Desk) -> None:
    key = desk.add(b"content")
    desk.contents[b"d" + key] = b"CONTENT"
    desk.downloads.open()
    desk.downloads.fetch(key, 7)
    desk.serve_until(1)
    assert desk.reports == [FileFailed(key, "it arrived damaged")]
    assert not Path(os.fsdecode(desk.downloads.path(key))).exists()


def test_a_file_that_became_shorter_is_a_failure(desk: Desk) -> None:
    key = desk.add(b"content")
    desk.downloads.open()
    desk.downloads.fetch(key, 70)
    desk.serve_until(1)
    text = "the file is shorter than it was when it was submitted"
    assert desk.reports == [FileFailed(key, text)]


def test_what_the_manager_does_not_have_is_a_failure(desk: Desk) -> None:
    key = desk.add(b"content")
    desk.downloads.open()
    desk.downloads.fetch(key, 7)
    desk.downloads.failed(GetFailed(desk.asked[0].transfer, "changed", "it was changed"))
    desk.downloads.failed(GetFailed(99, "missing"))
    assert desk.reports == [FileFailed(key, "it was changed")]


def test_a_lost_link_ends_transfers_and_a_new_fetch_begins_anew(desk: Desk) -> None:
    key = desk.add(bytes(2 * CHUNK_BYTES))
    desk.downloads.open()
    desk.downloads.fetch(key, 2 * CHUNK_BYTES)
    late = desk.asked[0]
    desk.downloads.forget()
    desk.asked.clear()
    desk.downloads.fetch(key, 2 * CHUNK_BYTES)
    desk.downloads.take(Data(late.transfer, 0), bytes(CHUNK_BYTES))
    desk.downloads.open()
    desk.serve_until(1)
    assert desk.reports == [FilesCached([(key, 2 * CHUNK_BYTES)])]


def test_a_dropped_transfer_leaves_nothing_in_the_folder(desk: Desk, tmp_path: Path) -> None:
    key = desk.add(bytes(3 * CHUNK_BYTES))
    desk.downloads.open()
    desk.downloads.fetch(key, 3 * CHUNK_BYTES)
    get = desk.asked[0]
    desk.downloads.take(Data(get.transfer, get.offset), bytes(get.length))
    desk.downloads.drop(key)

    def is_clean() -> bool:
        desk.threads.deliver()
        return not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]

    wait_until(is_clean, what="an empty cache folder")
    assert desk.reports == []


def test_evicted_files_are_removed(desk: Desk) -> None:
    key = desk.add(b"content")
    desk.downloads.open()
    desk.downloads.fetch(key, 7)
    desk.serve_until(1)
    path = Path(os.fsdecode(desk.downloads.path(key)))
    assert path.exists()
    desk.downloads.evict([key])
    wait_until(lambda: not path.exists(), what="the end of the evicted file")


def test_a_file_that_is_wanted_again_while_it_is_removed_is_fetched_again(desk: Desk) -> None:
    key = desk.add(b"content")
    desk.downloads.open()
    desk.downloads.fetch(key, 7)
    desk.serve_until(1)
    desk.downloads.evict([key])
    desk.downloads.fetch(key, 7)
    assert desk.asked == []
    desk.serve_until(2)
    assert Path(os.fsdecode(desk.downloads.path(key))).read_bytes() == b"content"
