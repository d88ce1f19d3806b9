"""make demo as a program: truthful about how it went, and nothing is left running."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.journeys import ROOT, clean_environment
from support.processes import wait_until

pytestmark = pytest.mark.slow

WAIT_S = 120.0


class Demo:
    """The demo on an installed wheel, over a few files, with a folder for all that it makes."""

    def __init__(self, programs: Path, folder: Path, count: int) -> None:
        self.folder = folder
        self.output = folder / "output"
        self.log = folder / "demo.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [programs / "python", ROOT / "demo" / "run.py", str(count), self.output],
                cwd=folder,
                env=clean_environment() | {"TMPDIR": str(folder), "HOME": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def left_running(self) -> list[str]:
        """Give the command lines of all processes that name the demo's folder, itself aside."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) not in (os.getpid(), self.process.pid):
                try:
                    line = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if os.fsencode(self.folder) in line:
                    found.append(os.fsdecode(line.replace(b"\0", b" ")))
        return found


@pytest.fixture
def demos() -> Iterator[list[Demo]]:
    started: list[Demo] = []
    yield started
    for demo in started:
        if demo.process.poll() is None:
            demo.process.terminate()
            demo.process.wait(WAIT_S)


def test_the_demo_shows_what_it_did_and_leaves_nothing_running(
    programs: Path, tmp_path: Path, demos: list[Demo]
) -> None:
    demos.append(demo := Demo(programs, tmp_path, 40))
    assert demo.process.wait(WAIT_S) == 0, demo.log.read_text()
    said = demo.log.read_text()
    assert "40 of 40 tasks done" in said
    assert "41 tasks in " in said
    assert "most used identifiers" in said
    assert str(demo.output / "report.json") in said
    assert len(list((demo.output / "packed").rglob("*.gz"))) == 40
    assert demo.left_running() == []
    assert list(tmp_path.glob("wqueue-demo-*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_says_so_and_leaves_nothing_running(
    programs: Path, tmp_path: Path, demos: list[Demo], number: signal.Signals
) -> None:
    demos.append(demo := Demo(programs, tmp_path, 400))
    wait_until(lambda: "of 400 tasks done" in demo.log.read_text(), WAIT_S, "some progress")
    demo.process.send_signal(number)
    assert demo.process.wait(WAIT_S) == 130, demo.log.read_text()
    assert "interrupted" in demo.log.read_text()
    assert "Traceback" not in demo.log.read_text()
    assert demo.left_running() == []


def test_a_demo_whose_outputs_have_no_place_fails_and_says_why(
    programs: Path, tmp_path: Path, demos: list[Demo]
) -> None:
    tmp_path.joinpath("output").touch()
    demos.append(demo := Demo(programs, tmp_path, 5))
    assert demo.process.wait(WAIT_S) in (1, 2)
    said = demo.log.read_text()
    assert "error: " in said
    assert str(demo.output) in said
    assert "Traceback" not in said
    assert demo.left_running() == []
