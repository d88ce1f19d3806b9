"""What this machine gives the worker: measured inside what the worker was given of it.

The narrowest of what is known counts: the process's affinity, the limits of its control groups,
what the batch system says in the environment, else the host. OMP_NUM_THREADS is no grant, only a
wish of somebody for one program, and is not looked at.
"""

import os
import platform
import re
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from wqueue.protocol.resources import MILLI, Resources

MB = 2**20

UNLIMITED_BYTES = 2**60
"""Control groups of version 1 write "no limit" as a number near 2**63."""

NVIDIA_SMI_MAX_S = 10.0
"""Longest wait for nvidia-smi, which wakes up every card."""

_CORE_VARIABLES = (
    "SLURM_CPUS_ON_NODE",
    "NSLOTS",
    "PBS_NCPUS",
    "NCPUS",
    "PBS_NP",
    "LSB_DJOB_NUMPROC",
)
_GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
_GPU_GRANTS = ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SGE_HGR_gpu")


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
    wishes = wishes or Wishes()
    variables = os.environ if environ is None else environ
    groups = _control_groups(root)
    core_ids = sorted(os.sched_getaffinity(0))
    gpu_ids, gpu_reason = _gpus(variables, root)
    reasons: dict[str, str] = {}

    def choose(name: str, wish: int | None, found: tuple[int, str]) -> int:
        amount, reason = found if wish is None else (wish, "asked for")
        reasons[name] = reason
        return amount

    resources = Resources(
        cores_milli=choose("cores", wishes.cores_milli, _cores(core_ids, variables, groups)),
        memory_mb=choose("memory", wishes.memory_mb, _memory(variables, groups, root)),
        disk_mb=choose("disk", wishes.disk_mb, (_disk_mb(workdir), "free in the workdir")),
        gpus=choose("gpus", wishes.gpus, (len(gpu_ids), gpu_reason)),
        named=dict(wishes.named),
    )
    return Machine(
        resources,
        host=socket.gethostname(),
        software=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        boot_id=_read(root / "proc/sys/kernel/random/boot_id"),
        core_ids=core_ids,
        gpu_ids=gpu_ids,
        reasons=reasons,
    )


# --- cores ------------------------------------------------------------------------------------


def _cores(
    core_ids: list[int], variables: Mapping[str, str], groups: list[Path]
) -> tuple[int, str]:
    offers = [(len(core_ids) * MILLI, "processors this process may use")]
    offers += [(quota, "control group") for group in groups if (quota := _quota_milli(group))]
    granted = _granted_cores(variables)
    if granted is not None:
        offers.append(granted)
    return min(offers, key=lambda offer: offer[0])


def _quota_milli(group: Path) -> int:
    words = _read(group / "cpu.max").split()
    if not words:
        words = [_read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")]
    quota, period = (_number(word) for word in words[:2]) if len(words) > 1 else (0, 0)
    return max(1, quota * MILLI // period) if quota > 0 and period > 0 else 0


def _granted_cores(variables: Mapping[str, str]) -> tuple[int, str] | None:
    # One worker is one Slurm task: CPUS_PER_TASK is its share where several start on a node.
    per_task = _number(variables.get("SLURM_CPUS_PER_TASK", ""))
    if per_task > 0 and "SLURM_PROCID" in variables:
        return per_task * MILLI, "SLURM_CPUS_PER_TASK"
    for name in _CORE_VARIABLES:
        count = _number(variables.get(name, ""))
        if count > 0:
            return count * MILLI, name
    return None


# --- memory -----------------------------------------------------------------------------------


def _memory(variables: Mapping[str, str], groups: list[Path], root: Path) -> tuple[int, str]:
    offers = []
    host = re.search(r"MemTotal:\s+(\d+) kB", _read(root / "proc/meminfo"))
    if host:
        offers.append((int(host[1]) // 1024, "memory of the host"))
    for group in groups:
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _number(_read(group / name))
            if 0 < limit < UNLIMITED_BYTES:
                offers.append((limit // MB, "control group"))
    per_node = _number(variables.get("SLURM_MEM_PER_NODE", ""))
    per_cpu = _number(variables.get("SLURM_MEM_PER_CPU", ""))
    if per_node > 0:
        offers.append((per_node, "SLURM_MEM_PER_NODE"))
    elif per_cpu > 0:
        granted = _granted_cores(variables)
        if granted:
            offers.append((per_cpu * granted[0] // MILLI, "SLURM_MEM_PER_CPU"))
    return min(offers, default=(0, "unknown"), key=lambda offer: offer[0])


# --- disk and accelerators ----------------------------------------------------------------------


def _disk_mb(workdir: Path) -> int:
    status = os.statvfs(workdir)
    return status.f_bavail * status.f_frsize // MB


def _gpus(variables: Mapping[str, str], root: Path) -> tuple[list[str], str]:
    for name in _GPU_VARIABLES:
        if name in variables:
            return _ids(variables[name]), name
    for name in _GPU_GRANTS:
        if variables.get(name):
            return _ids(variables[name]), name
    if not (root / "proc/driver/nvidia").exists():
        return [], "none found"
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=NVIDIA_SMI_MAX_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return [], "nvidia-smi failed"
    return _ids(listing.replace("\n", ",")), "nvidia-smi"


def _ids(text: str) -> list[str]:
    ids: list[str] = []
    for word in (part.strip() for part in text.replace(" ", ",").split(",")):
        # CUDA ends its list at the first id that is none; "NoDevFiles" is Slurm's word for none.
        if word in ("", "NoDevFiles"):
            continue
        if word.startswith("-"):
            break
        first, dash, last = word.partition("-")
        if dash and first.isdigit() and last.isdigit():
            ids += [str(number) for number in range(int(first), int(last) + 1)]
        else:
            ids.append(word)
    return ids


# --- control groups -----------------------------------------------------------------------------


def _control_groups(root: Path) -> list[Path]:
    """List the folders of this process's control groups, and those above them, which limit too."""
    base = root / "sys/fs/cgroup"
    found: dict[Path, None] = {}
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        mounts = [base / controllers, *(base / name for name in controllers.split(","))]
        for mount in mounts if controllers else [base, base / "unified"]:
            at = mount / group.lstrip("/")
            # In a container the path is the host's, and only the mount's own root is to be seen.
            for folder in [at, *at.parents]:
                if folder == base.parent or not folder.is_relative_to(mount):
                    break
                if folder.is_dir():
                    found[folder] = None
    return list(found)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(text: str) -> int:
    """Read a count; anything else, "max" among it, is 0."""
    try:
        return int(text)
    except ValueError:
        return 0
