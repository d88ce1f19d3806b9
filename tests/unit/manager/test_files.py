import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.file_loop import Loop, digest, identity_of, ref_in_place

from wqueue.manager.files import FinishedOutput, Peer, Verdict
from wqueue.manager.same_file import read_boot_id
from wqueue.protocol.limits import CHUNK_BYTES
from wqueue.protocol.messages import (
    Data,
    Declare,
    Declared,
    FileIdentity,
    FileRef,
    FileStored,
    Get,
    GetFailed,
)

WORKER = Peer("worker", 1)
CLIENT = Peer("client", 7)
OTHER = Peer("client", 8)
UID = b"u" * 16


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    loop = Loop()
    files = loop.open(tmp_path / "state")
    yield loop
    files.close()


def declare(loop: Loop, message: Declare, *, trusted: bool = False, client: int = 7) -> Declared:
    assert loop.files is not None
    peer = Peer("client", client)
    loop.files.declare(client, message, trusted)
    loop.run_until(lambda: loop.sent_to(peer, Declared))
    answer = loop.sent_to(peer, Declared)[-1]
    assert isinstance(answer, Declared)
    return answer


def judge(
    loop: Loop, files: list[FileRef], directory: FileIdentity | None = None, *, trusted: bool = True
) -> Verdict:
    assert loop.files is not None
    verdicts: list[Verdict] = []
    loop.files.check_submission(files, directory, trusted, verdicts.append)
    loop.run_until(lambda: verdicts)
    return verdicts[0]


def fetch(loop: Loop, peer: Peer, source: bytes, size: int) -> bytes | GetFailed:
    """Ask for a file as a peer does and give what came."""
    assert loop.files is not None
    loop.sent.clear()
    offsets = list(range(0, max(size, 1), CHUNK_BYTES))
    for offset in offsets:
        loop.files.heard(peer, Get(5, source, offset, CHUNK_BYTES))
    loop.run_until(lambda: len(loop.sent) >= len(offsets))
    failed = loop.sent_to(peer, GetFailed)
    if failed:
        assert isinstance(failed[0], GetFailed)
        return failed[0]
    assert [m.offset for _, m, _ in loop.sent if isinstance(m, Data)] == offsets
    return loop.data_to(peer)


def stored(loop: Loop, peer: Peer) -> list[FileStored]:
    return [m for m in loop.sent_to(peer, FileStored) if isinstance(m, FileStored)]


# --- identity -------------------------------------------------------------------------------------


def test_an_owner_s_file_is_read_in_place_if_it_is_the_same(loop: Loop, tmp_path: Path) -> None:
    same = tmp_path / "same"
    same.write_bytes(b"content")
    ref = ref_in_place(same)
    assert declare(loop, Declare(1, [ref]), trusted=True) == Declared(1, [0], [])


@pytest.mark.parametrize("field", ["size", "mtime_ns", "inode", "path"])
def test_a_file_that_looks_otherwise_is_wanted(loop: Loop, tmp_path: Path, field: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    seen = identity_of(path)
    values = {name: getattr(seen, name) for name in ("path", "size", "mtime_ns", "inode")}
    values[field] = b"/nowhere" if field == "path" else values[field] + 1
    ref = FileRef(digest(b"content"), 7, 0o644, FileIdentity(**values))
    assert declare(loop, Declare(1, [ref]), trusted=True) == Declared(1, [], [0])


def test_a_word_of_others_than_the_owner_opens_nothing(loop: Loop, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    message = Declare(1, [ref_in_place(path)], identity_of(tmp_path, read_boot_id()))
    assert declare(loop, message, trusted=False) == Declared(1, [], [0], False)
    assert judge(loop, [ref_in_place(path)], trusted=False).code == "not_shared"


def test_special_files_are_never_read_in_place(loop: Loop, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    ref = FileRef(digest(b""), 0, 0o644, identity_of(pipe))
    assert declare(loop, Declare(1, [ref]), trusted=True).in_place == []


def test_a_folder_is_shared_by_boot_id_and_inode_or_else_by_time_too(
    loop: Loop, tmp_path: Path
) -> None:
    here = identity_of(tmp_path, read_boot_id())
    os.utime(tmp_path, ns=(1, 1))
    stale = FileIdentity(here.path, 0, 999, here.inode, read_boot_id())
    elsewhere = FileIdentity(here.path, 0, 999, here.inode, "another host's boot")
    same_time = FileIdentity(here.path, 0, 1, here.inode, "another host's boot")
    other = FileIdentity(here.path, 0, 1, here.inode + 1, read_boot_id())
    answers = [judge(loop, [], folder).may_write for folder in (stale, elsewhere, same_time, other)]
    assert answers == [True, False, True, False]
    assert not judge(loop, [], stale, trusted=False).may_write


def test_a_submission_needs_all_its_files(loop: Loop, tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"content")
    ref = ref_in_place(path)
    assert judge(loop, [ref]) == Verdict()
    missing = FileRef(digest(b"never sent"), 10)
    assert judge(loop, [ref, missing]).code == "unknown_file"
    path.write_bytes(b"changed")
    os.utime(path, ns=(5, 5))
    verdict = judge(loop, [ref])
    assert verdict.code == "changed"
    assert "modified" in verdict.text


# --- uploads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 5 * CHUNK_BYTES + 17])
def test_wanted_content_is_fetched_and_stored(loop: Loop, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    ref = FileRef(digest(content), size)
    loop.holders[CLIENT] = {b"d" + ref.digest: content}
    assert declare(loop, Declare(1, [ref])).wanted == [0]
    loop.run_until(lambda: stored(loop, CLIENT))
    assert stored(loop, CLIENT) == [FileStored(ref.digest)]
    name = ref.digest.hex()
    path = tmp_path / "state" / "files" / name[:2] / name
    assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o600
    assert judge(loop, [ref], trusted=False) == Verdict()
    assert fetch(loop, WORKER, b"d" + ref.digest, size) == content
    assert declare(loop, Declare(2, [ref])).wanted == []


def test_thousands_of_small_files_are_uploaded(loop: Loop) -> None:
    contents = [b"file %d" % number for number in range(3000)]
    refs = [FileRef(digest(content), len(content)) for content in contents]
    loop.holders[CLIENT] = {b"d" + digest(content): content for content in contents}
    assert len(declare(loop, Declare(1, refs)).wanted) == 3000
    loop.run_until(lambda: len(stored(loop, CLIENT)) == 3000)
    assert not any(message.error for message in stored(loop, CLIENT))
    assert judge(loop, refs) == Verdict()


def test_content_that_is_not_what_was_declared_is_refused(loop: Loop, tmp_path: Path) -> None:
    ref = FileRef(digest(b"right"), 5)
    loop.holders[CLIENT] = {b"d" + ref.digest: b"wrong"}
    declare(loop, Declare(1, [ref]))
    loop.run_until(lambda: stored(loop, CLIENT))
    assert "not what was announced" in stored(loop, CLIENT)[0].error
    loop.run_until(lambda: not list((tmp_path / "state" / "files").glob("*/*")))
    assert judge(loop, [ref]).code == "unknown_file"


@pytest.mark.parametrize("held", [b"shor", None])
def test_a_short_or_missing_file_ends_its_upload_only(loop: Loop, held: bytes | None) -> None:
    bad, good = FileRef(digest(b"short"), 5), FileRef(digest(b"good"), 4)
    loop.holders[CLIENT] = {b"d" + good.digest: b"good"}
    if held is not None:
        loop.holders[CLIENT][b"d" + bad.digest] = held
    declare(loop, Declare(1, [bad, good]))
    loop.run_until(lambda: len(stored(loop, CLIENT)) == 2)
    errors = {message.digest: message.error for message in stored(loop, CLIENT)}
    assert errors[bad.digest]
    assert not errors[good.digest]


def test_two_clients_with_one_file_send_it_once(loop: Loop) -> None:
    ref = FileRef(digest(b"shared"), 6)
    declare(loop, Declare(1, [ref]))
    declare(loop, Declare(2, [ref]), client=8)
    assert len(loop.unanswered) == 1
    loop.holders[CLIENT] = {b"d" + ref.digest: b"shared"}
    loop.run_until(lambda: stored(loop, OTHER))
    assert len(stored(loop, CLIENT)) == len(stored(loop, OTHER)) == 1


def test_when_a_client_leaves_another_one_sends_its_file(loop: Loop) -> None:
    assert loop.files is not None
    ref = FileRef(digest(b"shared"), 6)
    declare(loop, Declare(1, [ref]))
    declare(loop, Declare(2, [ref]), client=8)
    loop.files.lost(CLIENT)
    loop.holders[CLIENT] = {}
    loop.holders[OTHER] = {b"d" + ref.digest: b"shared"}
    loop.run_until(lambda: stored(loop, OTHER))
    assert stored(loop, OTHER) == [FileStored(ref.digest)]


def test_a_silent_client_s_upload_is_given_up(loop: Loop) -> None:
    assert loop.files is not None
    ref = FileRef(digest(b"never"), 5)
    loop.files.tick(0.0)
    declare(loop, Declare(1, [ref]))
    assert loop.unanswered
    loop.files.tick(1e6)
    loop.run_until(lambda: stored(loop, CLIENT))
    assert "too long" in stored(loop, CLIENT)[0].error


def test_a_large_description_is_read_whole(loop: Loop) -> None:
    assert loop.files is not None
    content = os.urandom(700_000)
    ref = FileRef(digest(content), len(content))
    loop.holders[CLIENT] = {b"d" + ref.digest: content}
    declare(loop, Declare(1, [ref]))
    loop.run_until(lambda: stored(loop, CLIENT))
    read: list[bytes | None] = []
    loop.files.read_stored(ref.digest, read.append)
    loop.files.read_stored(digest(b"unknown"), read.append)
    loop.run_until(lambda: len(read) == 2)
    assert set(read) == {content, None}


# --- serving --------------------------------------------------------------------------------------


def test_a_worker_reads_a_file_in_place(loop: Loop, tmp_path: Path) -> None:
    assert loop.files is not None
    path = tmp_path / os.fsdecode(b"not utf-8 \xff\xfe")
    content = os.urandom(9 * CHUNK_BYTES + 5)
    path.write_bytes(content)
    ref = ref_in_place(path)
    loop.files.add_job([ref])
    assert fetch(loop, WORKER, b"d" + ref.digest, ref.size) == content


def test_a_file_changed_after_submission_is_an_error(loop: Loop, tmp_path: Path) -> None:
    assert loop.files is not None
    path = tmp_path / "file"
    path.write_bytes(b"before")
    os.utime(path, ns=(1, 1))
    ref = ref_in_place(path)
    loop.files.add_job([ref])
    assert fetch(loop, WORKER, b"d" + ref.digest, 6) == b"before"
    path.write_bytes(b"behind")
    for _ in range(2):
        failed = fetch(loop, WORKER, b"d" + ref.digest, 6)
        assert isinstance(failed, GetFailed)
        assert failed.code == "changed"
        assert "modified" in failed.text


def test_a_replaced_file_is_read_by_those_who_declared_the_new_one(
    loop: Loop, tmp_path: Path
) -> None:
    assert loop.files is not None
    path = tmp_path / "file"
    path.write_bytes(b"before")
    old = ref_in_place(path)
    loop.files.add_job([old])
    assert fetch(loop, WORKER, b"d" + old.digest, 6) == b"before"
    fresh = tmp_path / "fresh"
    fresh.write_bytes(b"behind")
    fresh.replace(path)
    new = ref_in_place(path)
    loop.files.add_job([new])
    assert fetch(loop, WORKER, b"d" + new.digest, 6) == b"behind"


def test_a_removed_file_is_missing(loop: Loop, tmp_path: Path) -> None:
    assert loop.files is not None
    path = tmp_path / "file"
    path.write_bytes(b"content")
    ref = ref_in_place(path)
    loop.files.add_job([ref])
    path.unlink()
    failed = fetch(loop, WORKER, b"d" + ref.digest, 7)
    assert isinstance(failed, GetFailed)
    assert failed.code == "missing"


def test_forgotten_jobs_take_their_files_along_but_not_those_of_others(
    loop: Loop, tmp_path: Path
) -> None:
    assert loop.files is not None
    path = tmp_path / "file"
    path.write_bytes(b"content")
    ref = ref_in_place(path)
    loop.files.add_job([ref])
    loop.files.add_job([ref_in_place(path)])
    loop.files.forget_job([ref])
    assert fetch(loop, WORKER, b"d" + ref.digest, 7) == b"content"
    loop.files.forget_job([ref])
    assert isinstance(fetch(loop, WORKER, b"d" + ref.digest, 7), GetFailed)


@pytest.mark.parametrize("source", [b"", b"d", b"d" + b"x" * 31, b"o" + b"x" * 38, b"/etc/passwd"])
def test_a_worker_gets_content_by_digest_and_nothing_else(loop: Loop, source: bytes) -> None:
    failed = fetch(loop, WORKER, source, 1)
    assert isinstance(failed, GetFailed)
    assert failed.code == "missing"


def test_workers_and_clients_have_sources_of_their_own(loop: Loop, tmp_path: Path) -> None:
    assert loop.files is not None
    path = tmp_path / "file"
    path.write_bytes(b"content")
    ref = ref_in_place(path)
    loop.files.add_job([ref])
    loop.finished[UID, 3, 0] = FinishedOutput(1, bytes(path))
    result = b"r" + UID + (3).to_bytes(8, "big") + (0).to_bytes(2, "big")
    assert isinstance(fetch(loop, CLIENT, b"d" + ref.digest, 7), GetFailed)
    assert isinstance(fetch(loop, WORKER, result, 7), GetFailed)
    assert fetch(loop, CLIENT, result, 7) == b"content"


def test_clients_fetch_finished_outputs_and_are_told_of_missing_ones(
    loop: Loop, tmp_path: Path
) -> None:
    kept = tmp_path / "state" / "outputs" / "1"
    kept.mkdir()
    (kept / "3.65534").write_bytes(b"long output")
    link = tmp_path / "link"
    link.symlink_to("/etc/passwd")
    loop.finished[UID, 3, 65534] = FinishedOutput(1, b"")
    loop.finished[UID, 4, 0] = FinishedOutput(1, bytes(link))
    source = b"r" + UID + (3).to_bytes(8, "big")
    assert fetch(loop, CLIENT, source + b"\xff\xfe", 11) == b"long output"
    assert isinstance(fetch(loop, CLIENT, source + b"\x00\x00", 11), GetFailed)
    linked = b"r" + UID + (4).to_bytes(8, "big") + b"\x00\x00"
    assert isinstance(fetch(loop, CLIENT, linked, 11), GetFailed)


def test_few_descriptors_stay_open_however_many_files_are_read(loop: Loop, tmp_path: Path) -> None:
    assert loop.files is not None
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    refs = []
    for number in range(300):
        path = tmp_path / f"in{number}"
        path.write_bytes(b"content %d" % number)
        refs.append(ref_in_place(path))
    loop.files.add_job(refs)
    for ref in refs:
        loop.files.heard(WORKER, Get(1, b"d" + ref.digest, 0, ref.size))
    loop.run_until(lambda: len(loop.sent) == 300)
    assert len(os.listdir("/proc/self/fd")) - before <= 70  # noqa: PTH208
    assert loop.data_to(WORKER) == b"".join(b"content %d" % number for number in range(300))


def test_a_worker_that_is_gone_is_sent_nothing(loop: Loop, tmp_path: Path) -> None:
    assert loop.files is not None
    path = tmp_path / "file"
    path.write_bytes(b"content")
    ref = ref_in_place(path)
    loop.files.add_job([ref])
    loop.files.heard(WORKER, Get(1, b"d" + ref.digest, 0, 7))
    loop.files.lost(WORKER)
    assert fetch(loop, Peer("worker", 2), b"d" + ref.digest, 7) == b"content"
    assert not loop.sent_to(WORKER, Data)
