import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from support.disks import small_disk
from support.file_loop import Loop, digest, restored

from wqueue.manager.core.events import (
    DiscardOutputs,
    JobAdded,
    OutputsPublished,
    OutputsStaged,
    PublishOutputs,
    Restored,
    StagedOutput,
    StageOutputs,
    StoredJob,
    TaskPublishing,
)
from wqueue.manager.files import IO_THREADS, Peer
from wqueue.protocol.attempts import pack_attempt
from wqueue.protocol.limits import CHUNK_BYTES
from wqueue.protocol.messages import STDOUT, TaskRecord

SESSION = 4
WORKER = Peer("worker", SESSION)
UID = b"u" * 16


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    loop = Loop()
    files = loop.open(tmp_path / "state")
    yield loop
    files.close()


def attempt(index: int = 0, number: int = 1) -> bytes:
    return pack_attempt(UID, index, 1, number)


def small(destination: Path | bytes, content: bytes = b"small", position: int = 0) -> StagedOutput:
    place = destination if isinstance(destination, bytes) else bytes(destination)
    return StagedOutput(position, len(content), 0o755, digest(content), place, content)


def large(destination: Path | bytes, content: bytes, position: int = 0) -> StagedOutput:
    place = destination if isinstance(destination, bytes) else bytes(destination)
    return StagedOutput(position, len(content), 0o644, digest(content), place)


def source(position: int = 0, key: bytes | None = None) -> bytes:
    return b"o" + (key or attempt()) + position.to_bytes(2, "big")


def stage(loop: Loop, *outputs: StagedOutput, key: bytes | None = None) -> OutputsStaged:
    begin(loop, *outputs, key=key)
    return next_event(loop, OutputsStaged)


def begin(loop: Loop, *outputs: StagedOutput, key: bytes | None = None) -> None:
    assert loop.files is not None
    loop.files.carry_out(StageOutputs(SESSION, 1, 0, key or attempt(), list(outputs)))


def publish(loop: Loop, *outputs: StagedOutput, key: bytes | None = None) -> OutputsPublished:
    assert loop.files is not None
    loop.files.carry_out(PublishOutputs(1, 0, key or attempt(), list(outputs)))
    return next_event(loop, OutputsPublished)


def discard(loop: Loop, key: bytes | None = None) -> None:
    assert loop.files is not None
    loop.files.carry_out(DiscardOutputs(1, 0, key or attempt()))


Event = TypeVar("Event", OutputsStaged, OutputsPublished)


def next_event(loop: Loop, kind: type[Event]) -> Event:
    loop.run_until(lambda: loop.events)
    event = loop.events.pop(0)
    assert isinstance(event, kind)
    assert not loop.events
    return event


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def settle(loop: Loop) -> None:
    """Wait until the threads have done all they were given, and what followed from that."""
    assert loop.files is not None
    for _ in range(3):
        # All threads meet here, so none is still busy with something earlier.
        barrier = threading.Barrier(IO_THREADS)
        met: list[int] = []
        for _ in range(IO_THREADS):
            loop.files._threads.run(barrier.wait, met.append)
        loop.run_until(partial(_has_all, met))


def _has_all(met: list[int]) -> bool:
    return len(met) == IO_THREADS


# --- staging and publishing -----------------------------------------------------------------------


def test_nothing_has_its_name_before_it_is_published(loop: Loop, tmp_path: Path) -> None:
    out = tmp_path / "results" / "deep" / "a.txt"
    output = small(out)
    assert stage(loop, output) == OutputsStaged(attempt())
    assert not out.exists()
    assert len(names_in(out.parent)) == 1
    assert publish(loop, output) == OutputsPublished(attempt())
    assert out.read_bytes() == b"small"
    assert out.stat().st_mode & 0o777 == 0o755
    assert names_in(out.parent) == ["a.txt"]


def test_large_outputs_are_fetched_from_the_worker(loop: Loop, tmp_path: Path) -> None:
    first, second = os.urandom(11 * CHUNK_BYTES + 3), os.urandom(40_000)
    loop.holders[WORKER] = {source(0): first, source(1): second}
    outputs = [
        large(tmp_path / "first", first),
        large(tmp_path / "second", second, 1),
        small(tmp_path / "third", b"third", 2),
    ]
    assert stage(loop, *outputs) == OutputsStaged(attempt())
    assert publish(loop, *outputs) == OutputsPublished(attempt())
    assert (tmp_path / "first").read_bytes() == first
    assert (tmp_path / "second").read_bytes() == second
    assert (tmp_path / "third").read_bytes() == b"third"
    assert names_in(tmp_path) == ["first", "second", "state", "third"]


def test_outputs_without_destination_are_kept_for_fetching(loop: Loop, tmp_path: Path) -> None:
    printed = os.urandom(100_000)
    loop.holders[WORKER] = {source(STDOUT): printed}
    outputs = [small(b"", b"kept", 3), large(b"", printed, STDOUT)]
    stage(loop, *outputs)
    assert publish(loop, *outputs) == OutputsPublished(attempt())
    kept = tmp_path / "state" / "outputs" / "1"
    assert (kept / "0.3").read_bytes() == b"kept"
    assert (kept / "0.65534").read_bytes() == printed


def test_an_empty_output_needs_no_transfer(loop: Loop, tmp_path: Path) -> None:
    output = StagedOutput(0, 0, 0o644, digest(b""), bytes(tmp_path / "empty"))
    assert stage(loop, output) == OutputsStaged(attempt())
    publish(loop, output)
    assert (tmp_path / "empty").read_bytes() == b""


def test_names_need_not_be_utf_8(loop: Loop, tmp_path: Path) -> None:
    folder = bytes(tmp_path) + b"/\xff\xfe"
    output = small(folder + b"/out \xe9\n.txt")
    stage(loop, output)
    assert publish(loop, output) == OutputsPublished(attempt())
    assert os.listdir(folder) == [b"out \xe9\n.txt"]  # noqa: PTH208


def test_publishing_again_changes_nothing(loop: Loop, tmp_path: Path) -> None:
    content = os.urandom(2_000_000)
    loop.holders[WORKER] = {source(0): content}
    outputs = [large(tmp_path / "a", content), small(tmp_path / "b", b"b", 1)]
    stage(loop, *outputs)
    for _ in range(3):
        assert publish(loop, *outputs) == OutputsPublished(attempt())
    assert (tmp_path / "a").read_bytes() == content


def test_publishing_half_done_by_an_earlier_process_is_completed(
    loop: Loop, tmp_path: Path
) -> None:
    outputs = [small(tmp_path / "a", b"a"), small(tmp_path / "b", b"b", 1)]
    stage(loop, *outputs)
    publish(loop, outputs[0])
    again = Loop()
    files = again.open(tmp_path / "state", publishing_of(attempt()))
    # As after a restart: the content that came along is not in the record.
    bare = [StagedOutput(o.position, o.size, o.mode, o.digest, o.destination) for o in outputs]
    assert publish(again, *bare) == OutputsPublished(attempt())
    files.close()
    assert (tmp_path / "b").read_bytes() == b"b"


def test_an_output_lost_from_staging_is_an_error_unless_its_content_is_there(
    loop: Loop, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"older")
    assert "is gone" in publish(loop, small(out)).error
    assert out.read_bytes() == b"older"


def test_the_winner_replaces_an_older_file_whole(loop: Loop, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"older")
    stage(loop, small(out))
    publish(loop, small(out))
    assert out.read_bytes() == b"small"


def test_a_link_at_the_destination_is_replaced_and_not_followed(loop: Loop, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    out = tmp_path / "out"
    out.symlink_to(precious)
    stage(loop, small(out))
    publish(loop, small(out))
    assert precious.read_bytes() == b"precious"
    assert not out.is_symlink()
    assert out.read_bytes() == b"small"


def test_what_is_no_regular_file_is_not_replaced(loop: Loop, tmp_path: Path) -> None:
    fifo, link, folder = tmp_path / "fifo", tmp_path / "link", tmp_path / "folder"
    os.mkfifo(fifo)
    link.symlink_to(fifo)
    folder.mkdir()
    assert stage(loop, small(fifo)).error.endswith("fifo is not a regular file")
    assert stage(loop, small(link)).error.endswith("link is not a regular file")
    assert stage(loop, small(folder)).error.endswith("folder is a folder")
    assert fifo.is_fifo()
    assert link.is_symlink()


def test_two_attempts_of_a_task_do_not_meet(loop: Loop, tmp_path: Path) -> None:
    first, second = attempt(number=1), attempt(number=2)
    out = tmp_path / "out"
    stage(loop, small(out, b"first"), key=first)
    stage(loop, small(out, b"second"), key=second)
    discard(loop, first)
    publish(loop, small(out, b"second"), key=second)
    settle(loop)
    assert out.read_bytes() == b"second"
    assert names_in(tmp_path) == ["out", "state"]


@pytest.mark.slow
def test_thousands_of_outputs_get_their_names(loop: Loop, tmp_path: Path) -> None:
    outputs = [
        small(tmp_path / "many" / f"{number}", b"content %d" % number, number)
        for number in range(5000)
    ]
    stage(loop, *outputs)
    publish(loop, *outputs)
    assert len(names_in(tmp_path / "many")) == 5000
    assert (tmp_path / "many" / "4999").read_bytes() == b"content 4999"


def test_many_attempts_are_staged_side_by_side(loop: Loop, tmp_path: Path) -> None:
    contents = {index: b"%d " % index * 10_000 for index in range(200)}
    loop.holders[WORKER] = {source(0, attempt(index)): contents[index] for index in contents}
    effects = {
        attempt(index): [large(tmp_path / "out" / str(index), content)]
        for index, content in contents.items()
    }
    for key, outputs in effects.items():
        begin(loop, *outputs, key=key)
    loop.run_until(lambda: len(loop.events) == 200)
    assert {event.attempt for event in loop.events} == set(effects)
    assert not any(event.error for event in loop.events)


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["inline", "fetched"])
def test_content_that_is_not_its_digest_s_is_the_worker_s_fault(
    loop: Loop, tmp_path: Path, kind: str
) -> None:
    is_inline = kind == "inline"
    loop.holders[WORKER] = {source(): b"wrong"}
    place = bytes(tmp_path / "out")
    output = StagedOutput(0, 5, 0o644, digest(b"right"), place, b"wrong" if is_inline else None)
    event = stage(loop, output)
    assert event.error
    assert event.is_worker_at_fault
    assert not event.is_temporary
    discard(loop)
    settle(loop)
    assert names_in(tmp_path) == ["state"]


def test_a_worker_that_lost_its_output_is_at_fault(loop: Loop, tmp_path: Path) -> None:
    loop.holders[WORKER] = {}
    event = stage(loop, large(tmp_path / "out", b"x" * 50_000))
    assert event.is_worker_at_fault
    assert "not here" in event.error


def test_a_link_lost_in_the_middle_is_answered_and_can_be_repeated(
    loop: Loop, tmp_path: Path
) -> None:
    assert loop.files is not None
    content = os.urandom(8 * CHUNK_BYTES)
    output = large(tmp_path / "out", content)
    begin(loop, output)
    loop.run_until(lambda: loop.unanswered)
    loop.files.lost(WORKER)
    event = next_event(loop, OutputsStaged)
    assert event.is_worker_at_fault
    loop.unanswered.clear()
    loop.holders[WORKER] = {source(): content}
    discard(loop)
    assert stage(loop, output) == OutputsStaged(attempt())
    settle(loop)
    assert publish(loop, output) == OutputsPublished(attempt())
    assert (tmp_path / "out").read_bytes() == content


def test_an_absent_worker_s_large_output_is_answered_at_once(loop: Loop, tmp_path: Path) -> None:
    assert loop.files is not None
    output = large(tmp_path / "out", b"x" * 50_000)
    loop.files.carry_out(StageOutputs(0, 1, 0, attempt(), [output]))
    event = next_event(loop, OutputsStaged)
    assert "away" in event.error


def test_discarded_staging_is_answered_by_nothing_and_leaves_nothing(
    loop: Loop, tmp_path: Path
) -> None:
    content = os.urandom(8 * CHUNK_BYTES)
    outputs = [small(tmp_path / "a", b"a"), large(tmp_path / "b", content, 1)]
    begin(loop, *outputs)
    loop.run_until(lambda: loop.unanswered)
    discard(loop)
    discard(loop)
    loop.holders[WORKER] = {source(1): content}
    settle(loop)
    assert not loop.events
    assert names_in(tmp_path) == ["state"]
    assert names_in(tmp_path / "state" / "staging") == ["folders"]


def test_a_repeated_staging_replaces_the_first(loop: Loop, tmp_path: Path) -> None:
    out = tmp_path / "out"
    begin(loop, small(out))
    begin(loop, small(out))
    discard(loop)
    begin(loop, small(out))
    assert next_event(loop, OutputsStaged) == OutputsStaged(attempt())
    settle(loop)
    assert not loop.events
    assert publish(loop, small(out)) == OutputsPublished(attempt())


@pytest.mark.parametrize("destination", [b"relative/name", b"/tmp/", b"/tmp/..", b"/a\0b"])
def test_a_destination_that_is_no_file_s_name_is_refused(loop: Loop, destination: bytes) -> None:
    event = stage(loop, small(destination))
    assert event.error
    assert not event.is_worker_at_fault
    assert not event.is_temporary


def test_a_folder_at_the_destination_is_told(loop: Loop, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert "is a folder" in stage(loop, small(tmp_path / "out")).error
    late = small(tmp_path / "late")
    stage(loop, late, key=attempt(1))
    (tmp_path / "late").mkdir()
    error = publish(loop, late, key=attempt(1)).error
    assert "late" in error
    assert "directory" in error
    assert names_in(tmp_path) == ["late", "out", "state"]


def test_a_file_where_a_folder_should_be_is_told(loop: Loop, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    event = stage(loop, small(tmp_path / "file" / "out"))
    assert "cannot be written" in event.error
    assert not event.is_temporary


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_told(loop: Loop, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "Permission denied" in stage(loop, small(tmp_path / "closed" / "out")).error


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", "256k") as folder:
        yield folder


@pytest.mark.parametrize("size", [30_000, 300_000])
def test_a_full_disk_is_told_as_temporary_and_the_next_try_succeeds(
    loop: Loop, disk: Path, size: int
) -> None:
    filler = disk / "filler"
    filler.write_bytes(b"x" * 250_000)
    content = os.urandom(size)
    loop.holders[WORKER] = {source(): content[:200_000]}
    output = small(disk / "out", content[:200_000])
    if size > 200_000:
        output = large(disk / "out", content[:200_000])
    event = stage(loop, output)
    assert event.is_temporary
    assert "No space left" in event.error
    discard(loop)
    settle(loop)
    assert names_in(disk) == ["filler"]
    filler.unlink()
    assert stage(loop, output) == OutputsStaged(attempt())
    assert publish(loop, output) == OutputsPublished(attempt())


# --- after a restart ------------------------------------------------------------------------------


def publishing_of(*keys: bytes) -> Restored:
    added = JobAdded(0, 1, UID, b"", b"", b"", 0.0, True)
    told = restored([StoredJob(added, [])])
    told.publishing.extend(
        TaskPublishing(0, key, 1, 0, TaskRecord(1, 0, 1, "succeeded")) for key in keys
    )
    return told


def test_a_start_sweeps_what_is_not_being_published(loop: Loop, tmp_path: Path) -> None:
    out = tmp_path / "out"
    winner, loser = attempt(number=1), attempt(number=2)
    stage(loop, small(out / "a"), small(b"", b"kept", 1), key=winner)
    stage(loop, small(out / "a"), small(b"", b"kept", 1), key=loser)
    foreign = out / f".wq-{pack_attempt(b'x' * 16, 0, 1, 1).hex()}.0"
    foreign.write_bytes(b"another manager's")
    (out / ".wq-notes").write_bytes(b"somebody's")
    again = Loop()
    again.open(tmp_path / "state", publishing_of(winner)).close()
    winners = f".wq-{winner.hex()}.0"
    assert names_in(out) == sorted([".wq-notes", foreign.name, winners])
    assert names_in(tmp_path / "state" / "staging") == [f".wq-{winner.hex()}.1", "folders"]
    # The folder is still known to the start after that.
    third = Loop()
    third.open(tmp_path / "state", publishing_of()).close()
    assert names_in(out) == sorted([".wq-notes", foreign.name])


def test_unfinished_uploads_are_swept(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "files" / "ab"
    folder.mkdir(parents=True)
    (folder / "abcd").write_bytes(b"whole")
    (folder / "abcd.part7").write_bytes(b"half")
    Loop().open(tmp_path / "state").close()
    assert names_in(folder) == ["abcd"]
