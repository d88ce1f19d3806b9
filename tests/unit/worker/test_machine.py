import os
import socket
from pathlib import Path

import pytest

from wqueue.protocol.resources import Resources
from wqueue.worker.machine import Wishes, measure


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put(tmp_path, "proc/meminfo", "MemFree: 1 kB\nMemTotal:       8388608 kB\n")
    put(tmp_path, "proc/sys/kernel/random/boot_id", "the-boot\n")
    put(tmp_path, "proc/self/cgroup", "0::/user/session\n")
    (tmp_path / "sys/fs/cgroup/user/session").mkdir(parents=True)
    return tmp_path


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def offer(root: Path, **environ: str) -> Resources:
    return measure(root, environ=environ, root=root).resources


def test_a_bare_host_offers_what_it_has(root: Path) -> None:
    machine = measure(root, environ={}, root=root)
    assert machine.resources.cores_milli == 1000 * len(os.sched_getaffinity(0))
    assert machine.resources.memory_mb == 8192
    assert machine.resources.disk_mb > 0
    assert machine.resources.gpus == 0
    assert machine.core_ids == sorted(os.sched_getaffinity(0))
    assert (machine.host, machine.boot_id) == (socket.gethostname(), "the-boot")
    assert machine.reasons["memory"] == "memory of the host"


def test_the_command_line_has_the_last_word(root: Path) -> None:
    wishes = Wishes(3500, 100, 7, 2, {"licence": 4})
    machine = measure(root, wishes, environ={"NSLOTS": "1"}, root=root)
    assert machine.resources == Resources(3500, 100, 7, 2, {"licence": 4})
    assert set(machine.reasons.values()) == {"asked for"}


def test_limits_of_control_groups_count_also_those_above(root: Path) -> None:
    put(root, "sys/fs/cgroup/user/cpu.max", "50000 100000\n")
    put(root, "sys/fs/cgroup/user/session/cpu.max", "max 100000\n")
    put(root, "sys/fs/cgroup/user/memory.max", f"{2**30}\n")
    put(root, "sys/fs/cgroup/user/session/memory.max", "max\n")
    assert offer(root).cores_milli == 500
    assert offer(root).memory_mb == 1024


def test_control_groups_of_version_1_count_too(root: Path) -> None:
    put(root, "proc/self/cgroup", "4:memory:/job\n3:cpu,cpuacct:/job\n")
    put(root, "sys/fs/cgroup/memory/job/memory.limit_in_bytes", f"{3 * 2**30}\n")
    put(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{2**63 - 4096}\n")
    put(root, "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "25000\n")
    put(root, "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n")
    put(root, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    assert (offer(root).cores_milli, offer(root).memory_mb) == (250, 3072)


def test_a_container_sees_its_limits_at_the_root_of_the_mount(root: Path) -> None:
    put(root, "proc/self/cgroup", "0::/docker/abcdef\n")
    put(root, "sys/fs/cgroup/cpu.max", "20000 100000\n")
    assert offer(root).cores_milli == 200


@pytest.mark.parametrize(
    "environ",
    [
        {"SLURM_CPUS_PER_TASK": "1", "SLURM_PROCID": "0", "SLURM_CPUS_ON_NODE": "64"},
        {"SLURM_CPUS_ON_NODE": "1"},
        {"NSLOTS": "1"},
        {"PBS_NCPUS": "1"},
    ],
)
def test_a_batch_system_grants_cores(root: Path, environ: dict[str, str]) -> None:
    assert offer(root, **environ).cores_milli == 1000
    assert offer(root, **environ, OMP_NUM_THREADS="64").cores_milli == 1000


def test_a_grant_never_exceeds_the_affinity_and_nonsense_is_ignored(root: Path) -> None:
    usable = 1000 * len(os.sched_getaffinity(0))
    assert offer(root, NSLOTS="4096").cores_milli == usable
    assert offer(root, NSLOTS="x", SLURM_CPUS_ON_NODE="").cores_milli == usable


def test_a_batch_system_grants_memory(root: Path) -> None:
    assert offer(root, SLURM_MEM_PER_NODE="500").memory_mb == 500
    assert offer(root, SLURM_MEM_PER_CPU="300", NSLOTS="2").memory_mb == 600
    assert offer(root, SLURM_MEM_PER_NODE="0").memory_mb == 8192


@pytest.mark.parametrize(
    ("environ", "ids"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0,2"}, ["0", "2"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, []),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, []),
        ({"CUDA_VISIBLE_DEVICES": "GPU-1a2b"}, ["GPU-1a2b"]),
        ({"SLURM_JOB_GPUS": "1-3,5"}, ["1", "2", "3", "5"]),
        ({"SGE_HGR_gpu": "gpu0 gpu1"}, ["gpu0", "gpu1"]),
    ],
)
def test_gpus_are_those_that_were_given(
    root: Path, environ: dict[str, str], ids: list[str]
) -> None:
    machine = measure(root, environ=environ, root=root)
    assert machine.gpu_ids == ids
    assert machine.resources.gpus == len(ids)


def test_this_machine_can_be_measured(tmp_path: Path) -> None:
    machine = measure(tmp_path)
    assert machine.resources.memory_mb > 0
    assert machine.boot_id
