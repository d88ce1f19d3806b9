import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from wqueue.protocol.errors import UsageError
from wqueue.worker.workdir import Swept, Workdir, open_workdir, remove_sandbox

SERVER = b"\xab" * 16


def test_each_worker_gets_the_first_free_slot(tmp_path: Path) -> None:
    environ = {"TMPDIR": str(tmp_path)}
    base = tmp_path / f"wqueue-{os.getuid()}" / SERVER.hex()
    first, second = (open_workdir(SERVER, environ=environ) for _ in range(2))
    assert (first.path, second.path) == (base / "0", base / "1")
    first.close()
    again = open_workdir(SERVER, environ=environ)
    assert again.path == base / "0"
    other = open_workdir(b"\1" * 16, environ=environ)
    assert other.path.name == "0"
    for workdir in (second, again, other):
        workdir.close()
    folders = [base.parent, base / "0", *(base / "0" / name for name in ("cache", "outbox"))]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}


def test_a_chosen_folder_that_is_taken_is_refused(tmp_path: Path) -> None:
    workdir = open_workdir(SERVER, tmp_path / "w")
    with pytest.raises(UsageError, match=f"in use by the worker with pid {os.getpid()}"):
        open_workdir(SERVER, tmp_path / "w")
    workdir.close()


def test_a_place_that_cannot_be_used_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be used to work in"):
        open_workdir(SERVER, tmp_path / "file" / "w")
    (tmp_path / f"wqueue-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="not a folder of this account"):
        open_workdir(SERVER, environ={"TMPDIR": str(tmp_path)})


def test_a_noexec_file_system_is_noticed(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "noexec,size=1m", "none", str(tmp_path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount")
    try:
        with pytest.raises(UsageError, match="noexec"):
            open_workdir(SERVER, tmp_path / "w")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_sweep_ends_marked_processes_of_this_workdir_only(tmp_path: Path) -> None:
    workdir, other = (open_workdir(SERVER, tmp_path / name) for name in ("w", "x"))

    def begin(marker: Path) -> "subprocess.Popen[bytes]":
        env = {"WQ_WORKDIR": str(marker), "PATH": os.environ["PATH"]}
        return subprocess.Popen(["sleep", "1000"], env=env, start_new_session=True)

    ours, theirs = begin(workdir.path), begin(other.path)
    assert workdir.sweep() == Swept(1, 0)
    assert ours.wait() == -signal.SIGKILL
    assert theirs.poll() is None
    theirs.kill()
    theirs.wait()
    workdir.close()
    other.close()


def test_a_sweep_keeps_the_sandboxes_of_waiting_results(tmp_path: Path) -> None:
    workdir = open_workdir(SERVER, tmp_path / "w")
    stale, needed = workdir.sandbox(b"\1" * 36), workdir.sandbox(b"\2" * 36)
    for sandbox in (stale, needed):
        fill(sandbox)
    assert workdir.sweep(keep=[needed]).sandbox_count == 1
    names = sorted(path.name for path in workdir.sandboxes.iterdir())
    kept = Path(os.fsdecode(needed)).name
    assert names == [kept, f"{kept}.err", f"{kept}.out"]
    workdir.close()


def test_a_sandbox_goes_whatever_the_task_did_to_it(workdir: Workdir) -> None:
    sandbox = workdir.sandbox(b"\3" * 36)
    fill(sandbox)
    path = Path(os.fsdecode(sandbox))
    (path / "deep" / "er").mkdir(parents=True)
    (path / "deep" / "er" / "x\n\udcff").touch()
    (path / "deep").chmod(0)
    (path / "away").symlink_to("/usr")
    remove_sandbox(sandbox)
    assert list(workdir.sandboxes.iterdir()) == []
    remove_sandbox(sandbox)


def test_a_chosen_name_need_not_be_text(tmp_path: Path) -> None:
    chosen = Path(os.fsdecode(bytes(tmp_path) + b"/w\xff\n x"))
    workdir = open_workdir(SERVER, chosen)
    assert workdir.sandbox(b"\1").startswith(bytes(tmp_path) + b"/w\xff\n x/sandboxes/")
    assert workdir.disk_free_mb() > 0
    assert workdir.sweep() == Swept()
    workdir.close()


def fill(sandbox: bytes) -> None:
    path = Path(os.fsdecode(sandbox))
    path.mkdir()
    (path / "file").touch()
    for suffix in (".out", ".err"):
        Path(f"{path}{suffix}").touch()
