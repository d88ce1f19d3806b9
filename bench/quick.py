"""make bench-quick: the figures in under a minute, as a table and one line of JSON.

Numbers, not assertions. Encryption, password, sandbox and journal are on. The workloads are W1
(many `true`), W3 (one after the other) and W5 (a backlog without workers).
"""

import json
import math
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import floor
from loopback import about, manager, worker
from usage import Meter, children, memory_bytes

import wqueue
from wqueue._version import __version__

TRUE = "/bin/true"

WARM_UP = 200
"""Tasks before W1: their rate also tells how many W1 can afford."""

W1_S = 20.0
"""Time that W1 may take; where 10,000 tasks would take longer it has 5,000 or 1,000."""

W3_COUNT = 200

BUSY_COUNT = 4000
"""Tasks that keep the loop full while single submissions are timed."""

W5_COUNTS = (100_000, 1_000_000)

Figures = dict[str, float]


def main() -> int:
    """Measure everything and print it."""
    folder = Path(tempfile.mkdtemp(prefix="wqueue-bench-"))
    try:
        figures = {"floor": floor.measure()} | with_worker(folder) | {"W5": backlog(folder)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show(figures)
    machine = {"cpus": os.cpu_count(), "python": platform.python_version()}
    rounded = {k: {n: significant(v) for n, v in row.items()} for k, row in figures.items()}
    print(json.dumps({"bench": "quick", "version": __version__} | machine | rounded))
    return 0


def with_worker(folder: Path) -> dict[str, Figures]:
    """Measure what needs a worker: W1, W3 and submissions while the loop is full."""
    with ExitStack() as stack:
        info = stack.enter_context(manager(folder))
        process = stack.enter_context(worker(folder, info, os.cpu_count() or 1))
        client = stack.enter_context(wqueue.Client(info_file=info))
        rate = run_array(client, WARM_UP)[0]
        fitting = [n for n in (10_000, 5_000) if n <= rate * W1_S]
        (spawner,) = children(process.pid)
        daemon = about(info)["daemon_pid"]
        meter = Meter(daemon, worker=process.pid, spawner=spawner, client=os.getpid())
        figures = {"W1": many(client, fitting[0] if fitting else 1_000, meter)}
        figures["W3"] = one_by_one(client)
        figures["busy"] = while_busy(client)
        client.shutdown()
    return figures


def run_array(client: wqueue.Client, count: int) -> tuple[float, float]:
    """Run an array of `true`; give its rate and the time its submission took."""
    begun = time.perf_counter()
    job = client.submit_array(wqueue.Task([TRUE]), count=count)
    submitted = time.perf_counter()
    (summary,) = client.wait(job)
    if not summary.all_succeeded:
        raise SystemExit(f"error: {summary.succeeded} of {summary.count} tasks succeeded")
    return count / (time.perf_counter() - begun), submitted - begun


def many(client: wqueue.Client, count: int, meter: Meter) -> Figures:
    """W1: an array of `true`."""
    rate, submit_s = run_array(client, count)
    return {"tasks": count, "per_s": rate, "submit_ms": submit_s * 1e3} | meter.per_task_us(count)


def one_by_one(client: wqueue.Client) -> Figures:
    """W3: submit one `true`, wait for it, and again."""
    times: list[float] = []
    for _ in range(W3_COUNT):
        begun = time.perf_counter()
        client.submit(wqueue.Task([TRUE])).wait()
        times.append((time.perf_counter() - begun) * 1e3)
    return spread(times)


def while_busy(client: wqueue.Client) -> Figures:
    """Time single submissions, each answered after its commit, while an array keeps all busy."""
    array = client.submit_array(wqueue.Task([TRUE]), count=BUSY_COUNT)
    times: list[float] = []
    while len(times) < W3_COUNT and not array.summary().is_ended:
        begun = time.perf_counter()
        client.submit(wqueue.Task([TRUE]), watch=False)
        times.append((time.perf_counter() - begun) * 1e3)
    client.wait(array)
    return spread(times)


def spread(times_ms: list[float]) -> Figures:
    """Give count, median, 99th percentile and maximum."""
    ranked = sorted(times_ms)
    return {
        "count": len(ranked),
        "median_ms": statistics.median(ranked),
        "p99_ms": ranked[int(len(ranked) * 0.99)],
        "max_ms": ranked[-1],
    }


def backlog(folder: Path) -> Figures:
    """W5: arrays that nobody runs; each on a fresh manager, so that memory is its own."""
    figures: Figures = {}
    for count in W5_COUNTS:
        with waiting_manager(folder, f"backlog-{count}") as (client, pid):
            before = memory_bytes(pid)
            begun = time.perf_counter()
            client.submit_array(wqueue.Task([TRUE]), count=count)
            figures[f"submit_{count}_s"] = time.perf_counter() - begun
            figures[f"bytes_per_task_{count}"] = (memory_bytes(pid) - before) / count
            figures[f"manager_{count}_mb"] = memory_bytes(pid) / 1e6
            begun = time.perf_counter()
            client.queue()
            figures[f"query_{count}_ms"] = (time.perf_counter() - begun) * 1e3
            client.shutdown()
    return figures


@contextmanager
def waiting_manager(folder: Path, name: str) -> Iterator[tuple[wqueue.Client, int]]:
    """Run a manager without workers; give a client of it and the daemon's pid."""
    with manager(folder, name) as info, wqueue.Client(info_file=info) as client:
        yield client, about(info)["daemon_pid"]


def show(figures: dict[str, Figures]) -> None:
    """Print a line for each group of figures."""
    titles = {
        "floor": "floor: this machine without us",
        "W1": "W1: an array of `true`; CPU per task of each process in microseconds",
        "W3": "W3: submit one `true` and wait for it",
        "busy": "submit acknowledged (committed) while the loop is full",
        "W5": "W5: arrays that wait; no worker",
    }
    for group, row in figures.items():
        print(titles[group])
        for name, value in row.items():
            print(f"    {name:26} {significant(value):>12,}")


def significant(value: float) -> float:
    """Round to what can be told from noise."""
    if value == 0 or abs(value) >= 100:
        return round(value)
    return round(value, 2 - math.floor(math.log10(abs(value))))


if __name__ == "__main__":
    sys.exit(main())
