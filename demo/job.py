"""The demo's job: pack and count every source of the standard library, then merge the counts.

Written as a user would write it, on wqueue.Client; tests run the same functions.
"""

import gzip
import json
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import wqueue

HERE = Path(__file__).resolve().parent

PYTHON = [sys.executable, "-I", "-S"]
"""The running interpreter without site packages: it starts in 10 ms instead of 20."""


def library() -> Path:
    """Give the folder of the running interpreter's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def sources(folder: Path) -> list[str]:
    """List the .py files of a standard library, relative to its folder."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in ("site-packages", "__pycache__")]
        found += [
            (Path(parent) / name).relative_to(folder).as_posix()
            for name in files
            if name.endswith(".py")
        ]
    return sorted(found)


def submit_counts(
    client: wqueue.Client, folder: Path, names: Iterable[str], output: Path
) -> wqueue.Job:
    """Submit a task for each source; it gives OUTPUT/packed/NAME.gz and counts/NAME.json."""
    task = wqueue.Task(
        [*PYTHON, "count.py", "library/{}", "packed/{}.gz", "counts/{}.json"],
        inputs=[
            wqueue.InputFile(HERE / "count.py", "count.py"),
            wqueue.InputFile(f"{folder}/{{}}", "library/{}"),
        ],
        outputs=[
            wqueue.OutputFile("packed/{}.gz", f"{output}/packed/{{}}.gz"),
            wqueue.OutputFile("counts/{}.json", f"{output}/counts/{{}}.json"),
        ],
        name="count",
    )
    return client.submit_array(task, values=names)


def submit_merge(client: wqueue.Client, names: Iterable[str], output: Path) -> wqueue.Job:
    """Submit the one task that takes all counts and gives OUTPUT/report.json."""
    counts = [
        wqueue.InputFile(output / "counts" / f"{name}.json", f"counts/{name}.json")
        for name in names
    ]
    task = wqueue.Task(
        [*PYTHON, "merge.py", "counts", "report.json"],
        inputs=[wqueue.InputFile(HERE / "merge.py", "merge.py"), *counts],
        outputs=[wqueue.OutputFile("report.json", output / "report.json")],
        name="merge",
    )
    return client.submit(task)


def why_it_failed(client: wqueue.Client, job: wqueue.Job, most: int = 5) -> list[str]:
    """Give a line for each of the first tasks that did not succeed."""
    lines: list[str] = []
    for record in client.results(job, follow=False):
        if record.outcome != "succeeded" and len(lines) < most:
            printed = client.stderr(record).decode(errors="replace").strip().splitlines()
            where = f"task {record.job}.{record.index}: {record.outcome}"
            lines.append(" | ".join([where, record.text, *printed[-1:]]))
    return lines


def wrong_gzips(folder: Path, names: Iterable[str], output: Path) -> list[str]:
    """Name the sources whose gzip is not there or does not give the source back."""
    return [name for name in names if not _is_packed(folder / name, output / f"packed/{name}.gz")]


def _is_packed(source: Path, packed: Path) -> bool:
    try:
        return gzip.decompress(packed.read_bytes()) == source.read_bytes()
    except (OSError, EOFError):
        return False


def read_report(output: Path) -> dict[str, Any]:
    """Give the merged report."""
    report: dict[str, Any] = json.loads((output / "report.json").read_bytes())
    return report


def run(
    client: wqueue.Client,
    folder: Path,
    names: list[str],
    output: Path,
    on_progress: Callable[[int], None] = lambda done: None,
    timeout_s: float = 600.0,
) -> list[str]:
    """Do the whole job; give the faults found, a line each (none: all is right)."""

    def tell(progress: wqueue.Progress) -> None:
        on_progress(progress.events)

    counts = submit_counts(client, folder, names, output)
    faults = wait_for(client, counts, tell, timeout_s)
    if faults:
        return faults
    merge = submit_merge(client, names, output)
    faults = wait_for(client, merge, tell, timeout_s)
    if faults:
        return faults
    return [f"the gzip of {name} differs from it" for name in wrong_gzips(folder, names, output)]


def wait_for(
    client: wqueue.Client,
    job: wqueue.Job,
    on_progress: Callable[[wqueue.Progress], None],
    timeout_s: float,
) -> list[str]:
    """Wait for a job; give the faults, a line each."""
    (summary,) = client.wait(job, timeout_s, on_progress)
    if summary.all_succeeded:
        return []
    head = f"{summary.count - summary.succeeded} of {summary.count} tasks did not succeed"
    return [head, *why_it_failed(client, job)]
