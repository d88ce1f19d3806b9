import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wqueue.protocol.errors import UsageError
from wqueue.protocol.messages import AttemptResult, OutputResult
from wqueue.worker.outbox import COMPACT_BYTES, Kept, Outbox


def kept(number: int, size: int = 10) -> Kept:
    outputs = [OutputResult(0, size, inline=b"\xff" * size)]
    result = AttemptResult(b"%036d" % number, "succeeded", 0, outputs=outputs)
    return Kept(result, b"/s/\xff%d" % number, [(1, b"/s/o")], 12.5)


def test_results_wait_until_they_are_acknowledged(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    box.append([kept(1), kept(2)])
    box.append([kept(3)])
    assert box.acknowledge([b"%036d" % 2, b"unknown"]) == [kept(2)]
    assert box.acknowledge([b"%036d" % 2]) == []
    assert box.pending() == [kept(1), kept(3)]
    assert box.get(b"%036d" % 3) == kept(3)
    assert box.get(b"%036d" % 2) is None
    assert len(box) == 2
    box.close()


def test_the_next_process_finds_what_waits(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    box.append([kept(1), kept(2)])
    box.acknowledge([b"%036d" % 1])
    box.close()
    again = Outbox(tmp_path)
    assert again.pending() == [kept(2)]
    again.append([kept(3)])
    again.close()
    third = Outbox(tmp_path)
    assert third.pending() == [kept(2), kept(3)]
    third.close()


def test_two_processes_cannot_share_it(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    with pytest.raises(UsageError, match="in use by another worker"):
        Outbox(tmp_path)
    box.close()


def test_the_log_is_empty_when_nothing_waits(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    box.append([kept(1), kept(2)])
    box.acknowledge([b"%036d" % 1, b"%036d" % 2])
    assert (tmp_path / "results").stat().st_size == 0
    box.append([kept(4)])
    box.close()
    again = Outbox(tmp_path)
    assert again.pending() == [kept(4)]
    again.close()


def test_one_old_result_does_not_make_the_log_grow_without_end(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    box.append([kept(0)])
    size = 30_000
    for number in range(1, 3 * COMPACT_BYTES // size):
        box.append([kept(number, size)])
        box.acknowledge([b"%036d" % number])
        assert (tmp_path / "results").stat().st_size < COMPACT_BYTES + 2 * size
    box.close()
    again = Outbox(tmp_path)
    assert again.pending() == [kept(0)]
    again.close()


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    box.append([kept(1)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with pytest.raises(OSError, match="File too large"):
            box.append([kept(2, 30_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert box.pending() == [kept(1)]
    box.append([kept(3)])
    box.close()
    again = Outbox(tmp_path)
    assert again.pending() == [kept(1), kept(3)]
    again.close()


@given(st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_log_torn_at_any_byte_keeps_what_was_whole(tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "box"
    shutil.rmtree(folder, ignore_errors=True)
    box = Outbox(folder)
    ends: list[tuple[int, list[Kept]]] = [(0, [])]
    for number in range(6):
        if number == 3:
            box.acknowledge([b"%036d" % 1])
        else:
            box.append([kept(number, number * 9)])
        ends.append(((folder / "results").stat().st_size, box.pending()))
    box.close()
    log = (folder / "results").read_bytes()
    cut = data.draw(st.integers(0, len(log)))
    tail = data.draw(st.sampled_from([b"", b"\0" * 40, b"\xff" * 9, b"\0\0\0\1\0\0\0\0x"]))
    torn = log[:cut] + tail
    (folder / "results").write_bytes(torn)
    # The tail may happen to be what was cut off.
    while cut < len(torn) and log[cut : cut + 1] == torn[cut : cut + 1]:
        cut += 1
    again = Outbox(folder)
    assert again.pending() == max((end for end in ends if end[0] <= cut), key=lambda e: e[0])[1]
    again.append([kept(99)])
    assert again.pending()[-1] == kept(99)
    again.close()
    third = Outbox(folder)
    assert third.pending()[-1] == kept(99)
    third.close()


def test_every_cut_and_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    box.append([kept(1)])
    first = (tmp_path / "results").stat().st_size
    box.append([kept(2)])
    box.close()
    log = (tmp_path / "results").read_bytes()
    for at in range(first, len(log)):
        for damaged in (log[:at], log[:at] + bytes([log[at] ^ 0x41]) + log[at + 1 :]):
            (tmp_path / "results").write_bytes(damaged)
            again = Outbox(tmp_path)
            assert again.pending() == [kept(1)]
            again.close()


def test_kill_9_loses_nothing_that_was_appended(tmp_path: Path) -> None:
    program = (
        "import sys, os; from pathlib import Path; from wqueue.worker.outbox import *\n"
        "from wqueue.protocol.messages import AttemptResult\n"
        f"box = Outbox(Path({str(tmp_path)!r}))\n"
        "for n in range(10**6):\n"
        "    box.append([Kept(AttemptResult(b'%036d' % n, 'succeeded'))])\n"
        "    os.write(1, b'%d\\n' % n)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(500):
        process.stdout.readline()
    process.kill()
    rest = process.stdout.read()
    process.stdout.close()
    process.wait()
    told = 500 + rest.count(b"\n")
    box = Outbox(tmp_path)
    assert len(box) in (told, told + 1)
    box.close()
