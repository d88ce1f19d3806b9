"""What processes have used, read from /proc."""

import os
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """CPU seconds of all threads of a process, without its children."""
    return _cpu_of(Path(f"/proc/{pid}/stat"))


def cpu_by_part_s(pid: int) -> dict[str, float]:
    """CPU seconds of a manager by what its threads do.

    The main thread is the loop, ZeroMQ names its own; what is left is the journal's writer, and
    where there are files, the threads that read and write them.
    """
    parts = {"loop": 0.0, "zmq": 0.0, "store": 0.0}
    for task in Path(f"/proc/{pid}/task").iterdir():
        is_zmq = (task / "comm").read_text().startswith("ZMQ")
        part = "loop" if int(task.name) == pid else "zmq" if is_zmq else "store"
        parts[part] += _cpu_of(task / "stat")
    return parts


def _cpu_of(stat: Path) -> float:
    fields = stat.read_text().rpartition(")")[2].split()
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
    """CPU that some named processes use from now on, that of the manager also by part."""

    def __init__(self, manager: int, **others: int) -> None:
        self.manager = manager
        self.pids = {"manager": manager} | others
        self.before = self._now()

    def per_task_us(self, count: int) -> dict[str, float]:
        """Give microseconds of CPU per task for each, after `count` tasks."""
        now = self._now()
        return {f"{name}_us": (now[name] - self.before[name]) / count * 1e6 for name in now}

    def _now(self) -> dict[str, float]:
        whole = {name: cpu_s(pid) for name, pid in self.pids.items()}
        parts = cpu_by_part_s(self.manager)
        return whole | {f"manager_{part}": used for part, used in parts.items()}
