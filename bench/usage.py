"""What processes have used, read from /proc."""

import os
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """CPU seconds of all threads of a process, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def memory_bytes(pid: int) -> int:
    """Resident memory of a process now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def children(pid: int) -> list[int]:
    """Give the processes that a process started and that are still there."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


class Meter:
    """CPU that some named processes use from now on."""

    def __init__(self, **pids: int) -> None:
        self.pids = pids
        self.before = {name: cpu_s(pid) for name, pid in pids.items()}

    def per_task_us(self, count: int) -> dict[str, float]:
        """Give microseconds of CPU per task for each, after `count` tasks."""
        return {
            f"{name}_us": (cpu_s(pid) - self.before[name]) / count * 1e6
            for name, pid in self.pids.items()
        }
