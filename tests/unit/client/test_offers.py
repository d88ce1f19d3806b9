import os
import queue
from pathlib import Path

import pytest

from wqueue.hashing import identity
from wqueue.offers import Offers
from wqueue.protocol.limits import CHUNK_BYTES
from wqueue.protocol.messages import Data, FileIdentity, Get, GetFailed

DIGEST = b"d" * 32
SOURCE = b"d" + DIGEST


class Asker:
    def __init__(self, offers: Offers) -> None:
        self.offers = offers
        self.replies: queue.Queue[tuple[Data | GetFailed, bytes | None]] = queue.Queue()

    def get(
        self, offset: int = 0, length: int = CHUNK_BYTES, source: bytes = SOURCE
    ) -> tuple[Data | GetFailed, bytes | None]:
        self.offers.answer(Get(5, source, offset, length), lambda *reply: self.replies.put(reply))
        return self.replies.get(timeout=30)


@pytest.fixture
def asker() -> Asker:
    return Asker(Offers())


def file_of(path: Path, content: bytes) -> FileIdentity:
    path.write_bytes(content)
    return identity(os.fsencode(path), path.stat())


def test_content_in_memory_is_served_in_pieces(asker: Asker) -> None:
    content = os.urandom(CHUNK_BYTES + 10)
    asker.offers.add([(DIGEST, content)])
    assert asker.get() == (Data(5, 0), content[:CHUNK_BYTES])
    assert asker.get(CHUNK_BYTES) == (Data(5, CHUNK_BYTES), content[CHUNK_BYTES:])
    assert asker.get(2 * CHUNK_BYTES) == (Data(5, 2 * CHUNK_BYTES), b"")
    assert asker.get(0, 10 * CHUNK_BYTES) == (Data(5, 0), content[:CHUNK_BYTES])


def test_a_file_is_served_in_pieces(asker: Asker, tmp_path: Path) -> None:
    asker.offers.add([(DIGEST, file_of(tmp_path / "a", b"0123456789"))])
    assert asker.get(2, 3) == (Data(5, 2), b"234")
    assert asker.get(8, 100) == (Data(5, 8), b"89")
    asker.offers.close()


def test_a_file_that_was_changed_is_not_served(asker: Asker, tmp_path: Path) -> None:
    asker.offers.add([(DIGEST, file_of(tmp_path / "a", b"before"))])
    (tmp_path / "a").write_bytes(b"afterwards")
    message, content = asker.get()
    assert isinstance(message, GetFailed)
    assert message.code == "changed"
    assert content is None
    (tmp_path / "a").unlink()
    message, content = asker.get()
    assert isinstance(message, GetFailed)
    assert message.code == "unreadable"


@pytest.mark.parametrize("source", [b"", b"d", b"d" + b"x" * 32, b"o" + DIGEST, b"r" + DIGEST])
def test_nothing_is_served_that_is_not_offered(asker: Asker, source: bytes) -> None:
    asker.offers.add([(DIGEST, b"secret")])
    message, content = asker.get(source=source)
    assert isinstance(message, GetFailed)
    assert message.code == "missing"
    assert content is None


def test_an_offer_lasts_until_it_is_withdrawn_as_often_as_added(asker: Asker) -> None:
    asker.offers.add([(DIGEST, b"x"), (DIGEST, b"x")])
    asker.offers.withdraw([DIGEST])
    assert asker.get()[1] == b"x"
    asker.offers.withdraw([DIGEST])
    assert asker.get()[1] is None
