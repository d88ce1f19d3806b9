import os
from pathlib import Path

import pytest
from blake3 import blake3

from wqueue.hashing import SMALL_BYTES, Hasher
from wqueue.protocol.errors import UsageError
from wqueue.spec import Source

OLD = (1_000_000_000, 1_000_000_000)


def source(path: Path) -> Source:
    return Source(os.fsencode(path))


def test_a_file_is_known_by_content_size_mode_and_place(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"hello")
    file.chmod(0o750)
    [ref] = Hasher().refs([source(file)])
    assert ref.digest == blake3(b"hello").digest()
    assert (ref.size, ref.mode) == (5, 0o750)
    assert ref.in_place is not None
    assert ref.in_place.path == os.fsencode(file)
    assert ref.in_place.inode == file.stat().st_ino


def test_a_buffer_has_no_place() -> None:
    [ref] = Hasher().refs([Source(b"", b"hello")])
    assert ref.digest == blake3(b"hello").digest()
    assert ref.in_place is None


def test_large_files_are_hashed_by_threads_and_told_of(tmp_path: Path) -> None:
    contents = [bytes([i]) * (SMALL_BYTES // 2) for i in range(4)]
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    told: list[tuple[int, int]] = []
    refs = Hasher().refs(
        [source(tmp_path / str(i)) for i in range(4)], lambda *news: told.append(news)
    )
    assert [ref.digest for ref in refs] == [blake3(content).digest() for content in contents]
    assert told[-1] == (2 * SMALL_BYTES, 2 * SMALL_BYTES)
    assert told == sorted(told)


def test_an_unchanged_file_is_read_once(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    os.utime(file, OLD)
    hasher = Hasher()
    [first] = hasher.refs([source(file)])
    file.write_bytes(b"two")
    os.utime(file, OLD)
    # Same path, size, mtime and inode: only who reads it again can tell.
    [second] = hasher.refs([source(file)])
    assert second.digest == first.digest


def test_a_file_changed_moments_ago_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    facts = file.stat()
    hasher = Hasher()
    hasher.refs([source(file)])
    file.write_bytes(b"two")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    [ref] = hasher.refs([source(file)])
    assert ref.digest == blake3(b"two").digest()


def test_what_is_no_file_is_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "closed").write_bytes(b"")
    for name, sentence in [
        ("missing", "does not exist"),
        ("", "is a directory"),
        ("pipe", "is not a regular file"),
        ("closed/x", "Not a directory"),
        ("x" * 300, "too long"),
    ]:
        with pytest.raises(UsageError, match=sentence) as caught:
            Hasher().refs([source(tmp_path / name)])
        assert str(tmp_path) in str(caught.value)
