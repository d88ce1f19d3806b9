"""A manager and workers on this machine, for the demo and the figures; they end with the block.

Encryption and password are on, as always: the manager makes its keys at its first start, workers
and clients find them through the info file.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TOOLS = Path(sys.executable).parent

START_S = 30.0
"""Patience for the manager's info file."""

END_S = 20.0
"""From one word to end to the next, stronger one."""

Process = subprocess.Popen[bytes]


class DidNotStart(Exception):
    """A manager did not come up; the text holds what it wrote."""


@contextmanager
def manager(folder: Path, name: str = "manager") -> Iterator[Path]:
    """Run a manager that keeps its state below `folder`; give its info file."""
    info = folder / f"{name}.json"
    options = ["--listen", "127.0.0.1", "--port", "0"]
    options += ["--state-dir", str(folder / f"{name}-state"), "--info-file", str(info)]
    with program(folder, "wq-manager", name, options) as process:
        ends = time.monotonic() + START_S
        while not info.exists():
            if process.poll() is not None or time.monotonic() > ends:
                log = (folder / f"{name}.log").read_text(errors="replace").strip()
                raise DidNotStart(f"the manager did not start\n{log}")
            time.sleep(0.02)
        yield info


def about(info: Path) -> dict[str, Any]:
    """Read an info file."""
    read: dict[str, Any] = json.loads(info.read_text())
    return read


@contextmanager
def worker(folder: Path, info: Path, cores: int, name: str = "worker") -> Iterator[Process]:
    """Run a worker of the manager with that info file."""
    options = ["--info-file", str(info), "--cores", str(cores)]
    options += ["--workdir", str(folder / f"{name}-workdir")]
    with program(folder, "wq-worker", name, options) as process:
        yield process


@contextmanager
def program(folder: Path, tool: str, name: str, options: list[str]) -> Iterator[Process]:
    """Run a tool with its output in a log; see that it has ended, whatever happens.

    It is in a session of its own, so that Ctrl-C reaches the caller alone, who then ends things in
    their order.
    """
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [TOOLS / tool, *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    is_well = False
    try:
        yield process
        is_well = True
    finally:
        end(process, was_told=is_well)


def end(process: Process, *, was_told: bool) -> None:
    """Wait for a process that was told to end; tell it, and then force it, otherwise."""
    steps: list[Callable[[], None]] = [process.terminate, process.kill]
    if was_told:
        steps.insert(0, lambda: None)
    for step in steps:
        step()
        try:
            process.wait(END_S)
            return
        except subprocess.TimeoutExpired:
            print(f"process {process.pid} does not end, trying harder", flush=True)
