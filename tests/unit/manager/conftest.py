"""A journal in a folder of its own, for the tests of the store."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.journal import Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal(path)
    journal.store.open()
    yield journal
    journal.store.close()
