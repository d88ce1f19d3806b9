"""Fixtures of the integration tests: real processes on loopback."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.journeys import build_wheel, install
from support.processes import Manager, Site, new_site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """An empty world of its own; what is started in it ends with the test."""
    with new_site(tmp_path) as it:
        yield it


@pytest.fixture
def manager(site: Site) -> Manager:
    """A running manager without workers."""
    return site.start_manager()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of that wheel, installed in a fresh environment outside the checkout."""
    return install(wheel, tmp_path_factory.mktemp("installed"))
