from collections.abc import Iterator
from pathlib import Path

import pytest
from support.spawner_bench import Bench

from wqueue.worker.workdir import Workdir, open_workdir


@pytest.fixture
def workdir(tmp_path: Path) -> Iterator[Workdir]:
    found = open_workdir(b"\1" * 16, tmp_path / "work")
    yield found
    found.close()


@pytest.fixture
def bench(workdir: Workdir) -> Iterator[Bench]:
    made = Bench(workdir)
    yield made
    made.spawner.stop()
