"""What this machine gives without us: the figures that a ratio is made of."""

import multiprocessing
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

TRUE = "/bin/true"


def measure(count: int = 2000) -> dict[str, float]:
    """Give spawns per second with one and two processes, and synced appends per second."""
    return {
        "posix_spawn_1_per_s": spawn_rate(posix_spawn, 1, count),
        "posix_spawn_2_per_s": spawn_rate(posix_spawn, 2, count),
        "popen_1_per_s": spawn_rate(popen, 1, count),
        "popen_2_per_s": spawn_rate(popen, 2, count),
        "synced_append_per_s": synced_appends(count // 10),
    }


def posix_spawn(count: int) -> None:
    for _ in range(count):
        os.waitpid(os.posix_spawn(TRUE, [TRUE], os.environ), 0)


def popen(count: int) -> None:
    for _ in range(count):
        subprocess.Popen([TRUE]).wait()


def spawn_rate(spawn: Callable[[int], None], process_count: int, count: int) -> float:
    """Spawn `count` times in all, from so many processes at once."""
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=spawn, args=(count // process_count,)) for _ in range(process_count)
    ]
    begun = time.perf_counter()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return count / (time.perf_counter() - begun)


def synced_appends(count: int) -> float:
    """Append 4 KiB and fdatasync, as each commit of the journal does at least once."""
    with tempfile.TemporaryDirectory(prefix="wqueue-floor-") as folder:
        page = bytes(4096)
        with (Path(folder) / "file").open("wb", buffering=0) as file:
            begun = time.perf_counter()
            for _ in range(count):
                file.write(page)
                os.fdatasync(file.fileno())
            return count / (time.perf_counter() - begun)
