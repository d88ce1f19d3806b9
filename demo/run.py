"""make demo: a manager and two workers on loopback do a real job; nothing is left running.

Encryption and password are on, as always: the manager makes its keys at its first start, the
workers and this client find them through the info file.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import job

import wqueue
from wqueue.protocol.errors import WqueueError

OUTPUT = Path(__file__).resolve().parent.parent / "demo-output"
TOOLS = Path(sys.executable).parent
WORKERS = 2

START_S = 30.0
"""Patience for the manager's info file."""

END_S = 20.0
"""From the order to end until processes are killed."""

PLAIN_STEP = 10
"""Where no terminal shows a bar: one line each so many per cent."""


class DemoError(Exception):
    """The demo cannot go on; the text says why."""


def main() -> int:
    """Run the demo and give its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    folder = Path(tempfile.mkdtemp(prefix="wqueue-demo-"))
    code = 1
    try:
        code = demonstrate(folder)
    except DemoError as error:
        say(f"error: {error}")
    except WqueueError as error:
        say(f"error: {error}")
        code = error.exit_code
    except KeyboardInterrupt:
        say("interrupted")
        code = 130
    if code:
        say(f"the logs of manager and workers lie in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return code


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def demonstrate(folder: Path) -> int:
    """Start everything, run the job, show what it gave, stop everything."""
    library = job.library()
    names = job.sources(library)
    shutil.rmtree(OUTPUT, ignore_errors=True)
    with ExitStack() as stack:
        info = stack.enter_context(manager(folder))
        for number in range(WORKERS):
            stack.enter_context(worker(folder, info, number))
        client = stack.enter_context(wqueue.Client(info_file=info))
        say(f"{len(names)} files of {library}: one task each, then one that merges their counts")
        begun = time.monotonic()
        with progress_bar(len(names)) as on_progress:
            faults = job.run(client, library, names, OUTPUT, on_progress)
        took = time.monotonic() - begun
        client.shutdown()
    for fault in faults:
        say(f"error: {fault}")
    if faults:
        return 1
    show(job.read_report(OUTPUT), len(names) + 1, took)
    return 0


@contextmanager
def manager(folder: Path) -> Iterator[Path]:
    """Run a manager; give its info file."""
    info = folder / "info.json"
    options = ["--listen", "127.0.0.1", "--port", "0"]
    options += ["--state-dir", str(folder / "state"), "--info-file", str(info)]
    with program(folder, "wq-manager", "manager", options) as process:
        ends = time.monotonic() + START_S
        while not info.exists():
            if process.poll() is not None or time.monotonic() > ends:
                log = (folder / "manager.log").read_text(errors="replace").strip()
                raise DemoError(f"the manager did not start\n{log}")
            time.sleep(0.02)
        about = json.loads(info.read_text())
        say(f"manager on 127.0.0.1:{about['port']}, CURVE and password on; {WORKERS} workers")
        yield info


@contextmanager
def worker(folder: Path, info: Path, number: int) -> Iterator[None]:
    """Run a worker with its part of this machine's cores."""
    cores = max(1, (os.cpu_count() or 1) // WORKERS)
    options = ["--info-file", str(info), "--cores", str(cores)]
    options += ["--workdir", str(folder / f"workdir-{number}")]
    with program(folder, "wq-worker", f"worker-{number}", options):
        yield


@contextmanager
def program(
    folder: Path, tool: str, name: str, options: list[str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a tool with its output in a log; see that it has ended, whatever happens."""
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
        end(process, is_ordered=is_well)


def end(process: "subprocess.Popen[bytes]", *, is_ordered: bool) -> None:
    """Wait for a process that was told to end; tell it (and then force it) otherwise."""
    steps: list[Callable[[], None]] = [process.terminate, process.kill]
    if is_ordered:
        steps.insert(0, lambda: None)
    for step in steps:
        step()
        try:
            process.wait(END_S)
            return
        except subprocess.TimeoutExpired:
            say(f"process {process.pid} does not end, trying harder")


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[int], None]]:
    """Draw a bar on a terminal, else write a line now and then; give the function that feeds it."""
    if not sys.stdout.isatty():
        yield plain_progress(total)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    with Progress("tasks", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as bar:
        row = bar.add_task("tasks", total=total)
        most = [0]

        def draw(done: int) -> None:
            most[0] = max(most[0], done)
            bar.update(row, completed=most[0])

        yield draw


def plain_progress(total: int) -> Callable[[int], None]:
    """Give a function that writes a line at each step forward."""
    shown = [0]

    def tell(done: int) -> None:
        percent = 100 * done // total
        if percent >= shown[0] + PLAIN_STEP:
            shown[0] = percent - percent % PLAIN_STEP
            say(f"{done} of {total} tasks done")

    return tell


def show(report: dict[str, object], task_count: int, took_s: float) -> None:
    """Print the top ten of both lists, the rate, and where the outputs lie."""
    say("\nlargest files                                tokens   lines | most used identifiers")
    files, names = report["largest_files"], report["most_used_identifiers"]
    assert isinstance(files, list)
    assert isinstance(names, list)
    for row, (name, used) in zip(files, names, strict=True):
        say(f"{row['file']:42} {row['tokens']:8} {row['lines']:7} | {name:20} {used:8}")
    totals = report["totals"]
    assert isinstance(totals, dict)
    say(f"\n{totals['files']} files, {totals['lines']} lines, {totals['tokens']} tokens")
    say(f"{task_count} tasks in {took_s:.1f} s: {task_count / took_s:.0f} tasks/s")
    say("every gzip was unpacked and is its source to the byte")
    say(f"outputs: {OUTPUT}/packed, {OUTPUT}/counts, {OUTPUT}/report.json")


if __name__ == "__main__":
    sys.exit(main())
