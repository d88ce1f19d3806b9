"""make demo: a manager and two workers on loopback do a real job; nothing is left running.

Tests call it with a number of files and an output folder of their own: run.py [COUNT [OUTPUT]].
"""

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import job
from loopback import DidNotStart, about, manager, worker

import wqueue
from wqueue.protocol.errors import WqueueError

OUTPUT = Path(__file__).resolve().parent.parent / "demo-output"
WORKERS = 2

PLAIN_STEP = 10
"""Where no terminal shows a bar: one line each so many per cent."""


def main() -> int:
    """Run the demo and give its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    folder = Path(tempfile.mkdtemp(prefix="wqueue-demo-"))
    count = int(sys.argv[1]) if len(sys.argv) > 1 else None
    output = Path(sys.argv[2]) if len(sys.argv) > 2 else OUTPUT
    code = 1
    try:
        code = demonstrate(folder, count, output)
    except DidNotStart as error:
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


def demonstrate(folder: Path, count: int | None, output: Path) -> int:
    """Start everything, run the job, show what it gave, stop everything."""
    library = job.library()
    names = job.sources(library)[:count]
    shutil.rmtree(output, ignore_errors=True)
    with ExitStack() as stack:
        info = stack.enter_context(manager(folder))
        port = about(info)["port"]
        say(f"manager on 127.0.0.1:{port}, CURVE and password on; {WORKERS} workers")
        cores = max(1, (os.cpu_count() or 1) // WORKERS)
        for number in range(1, WORKERS + 1):
            stack.enter_context(worker(folder, info, cores, f"worker-{number}"))
        client = stack.enter_context(wqueue.Client(info_file=info))
        say(f"{len(names)} files of {library}: one task each, then one that merges their counts")
        begun = time.monotonic()
        with progress_bar(len(names)) as on_progress:
            faults = job.run(client, library, names, output, on_progress)
        took = time.monotonic() - begun
        client.shutdown()
    for fault in faults:
        say(f"error: {fault}")
    if faults:
        return 1
    show(job.read_report(output), len(names) + 1, took)
    say(f"outputs: {output}/packed, {output}/counts, {output}/report.json")
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
