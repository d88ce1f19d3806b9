import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wqueue.worker.cache_files import CacheEntry, CacheFiles

CONTENT = b"#!/bin/sh\necho hi\n"
DIGEST = blake3(CONTENT).digest()


def place(cache: CacheFiles, is_executable: bool = False) -> Path:
    return Path(os.fsdecode(cache.path(DIGEST, is_executable)))


def fill(cache: CacheFiles, is_executable: bool = False) -> None:
    incoming = cache.receive(DIGEST, len(CONTENT), is_executable)
    incoming.write(0, CONTENT)
    assert incoming.finish()


def test_a_file_is_seen_only_when_it_is_whole_and_right(tmp_path: Path) -> None:
    cache = CacheFiles(tmp_path)
    incoming = cache.receive(DIGEST, len(CONTENT), False)
    incoming.write(4, CONTENT[4:])
    assert not place(cache).exists()
    incoming.write(0, CONTENT[:4])
    assert incoming.finish()
    assert place(cache).read_bytes() == CONTENT
    assert stat.S_IMODE(place(cache).stat().st_mode) == 0o444
    assert cache.index() == [CacheEntry(DIGEST, False, len(CONTENT))]


def test_wrong_short_and_given_up_content_leaves_nothing(tmp_path: Path) -> None:
    cache = CacheFiles(tmp_path)
    for data, size in ((b"x" * len(CONTENT), len(CONTENT)), (CONTENT[:-1], len(CONTENT))):
        incoming = cache.receive(DIGEST, size, False)
        incoming.write(0, data)
        assert not incoming.finish()
    incoming = cache.receive(DIGEST, len(CONTENT), False)
    incoming.write(len(CONTENT), b"more")
    assert not incoming.finish()
    cache.receive(DIGEST, 5, False).abort()
    assert list(tmp_path.iterdir()) == []


def test_the_executable_form_is_a_file_of_its_own(tmp_path: Path) -> None:
    cache = CacheFiles(tmp_path)
    assert not cache.derive(DIGEST, True)
    fill(cache)
    assert cache.derive(DIGEST, True)
    assert stat.S_IMODE(place(cache, True).stat().st_mode) == 0o555
    assert stat.S_IMODE(place(cache, False).stat().st_mode) == 0o444
    entries = [CacheEntry(DIGEST, is_executable, len(CONTENT)) for is_executable in (False, True)]
    assert cache.index() == entries
    cache.remove(DIGEST, False)
    cache.remove(DIGEST, False)
    assert cache.derive(DIGEST, False)


def test_an_indexed_file_that_was_changed_is_removed(tmp_path: Path) -> None:
    cache = CacheFiles(tmp_path)
    fill(cache)
    assert cache.verify(DIGEST, False, len(CONTENT))
    place(cache).chmod(0o644)
    place(cache).write_bytes(b"y" * len(CONTENT))
    assert not cache.verify(DIGEST, False, len(CONTENT))
    assert not place(cache).exists()
    assert not cache.verify(DIGEST, False, len(CONTENT))


def test_a_change_in_the_same_tick_of_the_clock_is_seen(tmp_path: Path) -> None:
    (tmp_path / "now").touch()
    cache = CacheFiles(tmp_path)
    incoming = cache.receive(DIGEST, len(CONTENT), False)
    incoming.write(0, CONTENT)
    stamp = incoming.finish()
    assert stamp is not None
    assert stamp == cache.stamp(DIGEST, False)
    assert stamp.mtime_ns < (tmp_path / "now").stat().st_mtime_ns
    place(cache).chmod(0o644)
    place(cache).write_bytes(b"y" * len(CONTENT))
    place(cache).chmod(0o444)
    assert cache.stamp(DIGEST, False) != stamp


def test_a_verified_file_has_the_mode_of_its_form_again(tmp_path: Path) -> None:
    cache = CacheFiles(tmp_path)
    fill(cache)
    stamp = cache.stamp(DIGEST, False)
    place(cache).chmod(0o777)
    assert cache.verify(DIGEST, False, len(CONTENT)) == stamp == cache.stamp(DIGEST, False)


def test_an_index_drops_unfinished_files_and_ignores_foreign_ones(tmp_path: Path) -> None:
    cache = CacheFiles(tmp_path)
    fill(cache)
    cache.receive(DIGEST, 3, False)
    for name in ("README", "ab", "zz" * 32, DIGEST.hex().upper()):
        (tmp_path / name).touch()
    (tmp_path / ("00" * 32)).mkdir()
    assert cache.index() == [CacheEntry(DIGEST, False, len(CONTENT))]
    assert not list(tmp_path.glob(".tmp-*"))


def test_the_same_file_may_come_from_several_threads(tmp_path: Path) -> None:
    cache = CacheFiles(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: fill(cache), range(40)))
    assert [path.name for path in tmp_path.iterdir()] == [DIGEST.hex()]


def test_a_file_that_does_not_fit_is_refused_at_once(tmp_path: Path) -> None:
    cache = CacheFiles(tmp_path)
    with pytest.raises(OSError, match=r"No space left|File too large"):
        cache.receive(DIGEST, 2**50, False)
    assert list(tmp_path.iterdir()) == []


@given(st.binary(max_size=300), st.randoms(use_true_random=False))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pieces_may_come_in_any_order(tmp_path: Path, content: bytes, random: object) -> None:
    cache = CacheFiles(tmp_path)
    digest = blake3(content).digest()
    incoming = cache.receive(digest, len(content), False)
    offsets = list(range(0, len(content), 7))
    random.shuffle(offsets)  # type: ignore[attr-defined]
    for offset in offsets:
        incoming.write(offset, content[offset : offset + 7])
    assert incoming.finish()
    assert Path(os.fsdecode(cache.path(digest, False))).read_bytes() == content
