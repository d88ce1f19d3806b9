"""What this machine gives the worker: measured inside what the worker was given of it."""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from wqueue.protocol.resources import Resources


class Wishes(Struct, frozen=True):
    """What the command line said; None means measure."""

    cores_milli: int | None = None
    memory_mb: int | None = None
    disk_mb: int | None = None
    gpus: int | None = None
    named: dict[str, int] = {}


class Machine(Struct, frozen=True):
    """A worker's offer and how it came about.

    `reasons` tells for cores, memory, disk and gpus where the number comes from. `core_ids` and
    `gpu_ids` are the concrete ones this process may use.
    """

    resources: Resources
    host: str
    software: str
    python: str
    boot_id: str
    core_ids: list[int]
    gpu_ids: list[str]
    reasons: dict[str, str]


def measure(
    workdir: Path,
    wishes: Wishes | None = None,
    environ: Mapping[str, str] | None = None,
    root: Path = Path("/"),
) -> Machine:
    """Measure the machine. `root` is where /proc and /sys are, another folder in tests."""
    raise NotImplementedError
