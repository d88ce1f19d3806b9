"""How a worker begins, is disturbed and ends: real processes, real signals."""

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import Manager, Program, Site, is_alive, wait_until

import wqueue
from wqueue.protocol.messages import STDOUT, AttemptResult, OutputResult, TaskRecord
from wqueue.worker.outbox import Kept, Outbox


@pytest.fixture
def client(manager: Manager) -> Iterator[wqueue.Client]:
    with wqueue.Client(info_file=manager.info_file) as it:
        yield it


class Sleeper:
    """A task that writes its pid and sleeps until a file appears."""

    def __init__(self, folder: Path, *, ignores_sigterm: bool = False) -> None:
        self._pids = folder / "pids"
        self.gate = folder / "gate"
        pids, gate = shlex.quote(str(self._pids)), shlex.quote(str(self.gate))
        trap = "trap '' TERM; " if ignores_sigterm else ""
        self.command = (
            f"{trap}echo $$ >> {pids}; until [ -e {gate} ]; do sleep 0.05; done; echo through"
        )

    def pids(self) -> list[int]:
        return [int(pid) for pid in self._pids.read_text().split()] if self._pids.exists() else []

    def wait_until_it_runs(self, times: int = 1) -> int:
        """Wait for its start and give the pid."""
        wait_until(lambda: len(self.pids()) >= times, what=f"start number {times} of the task")
        return self.pids()[-1]


def wait_until_ended(pid: int) -> None:
    wait_until(lambda: not is_alive(pid), what=f"the end of process {pid}")


def wait_for_worker(worker: Program) -> None:
    worker.wait_for_line("as worker")


def only_result(client: wqueue.Client, job: wqueue.Job) -> TaskRecord:
    (record,) = client.results(job, timeout_s=60)
    return record


def test_it_says_what_it_offers_and_where_it_is_connected(site: Site, manager: Manager) -> None:
    worker = site.start_worker(
        manager, "--cores", 3, "--memory", "500M", "--disk", "2G", "--gpus", 1
    )
    wait_for_worker(worker)
    first, second = worker.output().splitlines()
    assert first.startswith("wq-worker: using 3 cores, 500 MB memory, 2048 MB disk, 1 gpus in /")
    assert second.startswith("wq-worker: connected to manager ")
    assert second.endswith(f":{manager.port} as worker 1")


def test_host_and_port_are_enough_on_the_managers_account(site: Site) -> None:
    manager = site.start_manager(state_dir=site.folder / "state-home" / "wqueue" / "default")
    worker = site.start("worker", "127.0.0.1", manager.port, "--cores", 1)
    wait_for_worker(worker)
    assert worker.stop() == 0


def test_sigterm_gives_running_tasks_back_at_no_cost(
    site: Site, manager: Manager, client: wqueue.Client, tmp_path: Path
) -> None:
    first = site.start_worker(manager)
    sleeper = Sleeper(tmp_path)
    job = client.submit(wqueue.Task(sleeper.command, max_retries=0))
    pid = sleeper.wait_until_it_runs()
    assert first.stop() == 0
    assert not is_alive(pid)
    site.start_worker(manager)
    sleeper.wait_until_it_runs(2)
    sleeper.gate.touch()
    assert only_result(client, job).outcome == "succeeded"


def test_a_second_signal_ends_it_at_once_and_leaves_nothing(
    site: Site, manager: Manager, client: wqueue.Client, tmp_path: Path
) -> None:
    worker = site.start_worker(manager)
    sleeper = Sleeper(tmp_path, ignores_sigterm=True)
    client.submit(wqueue.Task(sleeper.command))
    pid = sleeper.wait_until_it_runs()
    worker.may_end = True
    worker.signal(signal.SIGTERM)
    worker.signal(signal.SIGINT)
    assert worker.wait(4.0) == 0
    wait_until_ended(pid)


def test_kill_9_leaves_no_task_running(
    site: Site, manager: Manager, client: wqueue.Client, tmp_path: Path
) -> None:
    worker = site.start_worker(manager)
    sleeper = Sleeper(tmp_path)
    client.submit(wqueue.Task(sleeper.command))
    pid = sleeper.wait_until_it_runs()
    worker.kill()
    wait_until_ended(pid)


def test_without_work_it_leaves_after_its_timeout(site: Site, manager: Manager) -> None:
    worker = site.start_worker(manager, "--timeout", "0.2")
    assert worker.wait() == 0
    assert worker.output().splitlines()[-1] == "wq-worker: no work for 0.2 s"


def test_it_leaves_when_its_wall_time_is_over(
    site: Site, manager: Manager, client: wqueue.Client, tmp_path: Path
) -> None:
    worker = site.start_worker(manager, "--wall-time", "2")
    sleeper = Sleeper(tmp_path)
    client.submit(wqueue.Task(sleeper.command))
    pid = sleeper.wait_until_it_runs()
    assert worker.wait() == 0
    assert worker.output().splitlines()[-1] == "wq-worker: the wall time is over"
    assert not is_alive(pid)


def test_a_worker_whose_folder_is_taken_away_leaves_and_its_tasks_run_elsewhere(
    site: Site, manager: Manager, client: wqueue.Client
) -> None:
    folder = site.folder / "work"
    worker = site.start_worker(manager, "--cores", 1, "--workdir", folder)
    wait_for_worker(worker)
    shutil.rmtree(folder)
    job = client.submit_array(wqueue.Task("true"), count=20)
    assert worker.wait(30) == 0
    assert f"the folder {folder} is gone" in worker.output()
    site.start_worker(manager, "--cores", 1)
    assert job.wait(60).all_succeeded


def test_a_single_shot_worker_leaves_with_its_manager(site: Site, manager: Manager) -> None:
    worker = site.start_worker(manager, "--single-shot")
    wait_for_worker(worker)
    manager.kill_all()
    assert worker.wait() == 0


def test_without_a_manager_for_its_grace_it_gives_up(
    site: Site, manager: Manager, client: wqueue.Client, tmp_path: Path
) -> None:
    worker = site.start_worker(manager, "--manager-grace", "1")
    sleeper = Sleeper(tmp_path)
    client.submit(wqueue.Task(sleeper.command))
    pid = sleeper.wait_until_it_runs()
    manager.kill_all()
    assert worker.wait() == 3
    last = worker.output().splitlines()[-1]
    assert last == "wq-worker: error: no manager answered for 1 s"
    assert not is_alive(pid)


def test_a_final_stop_of_the_manager_ends_it(site: Site, manager: Manager) -> None:
    worker = site.start_worker(manager)
    wait_for_worker(worker)
    worker.may_end = True
    done = site.run("control", "shutdown", "--info-file", manager.info_file)
    manager.may_end = True
    assert done.returncode == 0, done.stderr
    assert worker.wait() == 0
    assert "wq-worker: the manager " in worker.output().splitlines()[-1]
    assert "lost the manager" not in worker.output()


def test_no_manager_at_all_is_said_once_and_ends_with_exit_code_3(site: Site) -> None:
    state = site.folder / "nothing-here"
    done = site.run("worker", "--state-dir", state, "--connect-timeout", "1")
    assert done.returncode == 3
    assert done.stdout.count("trying again") == 1
    assert "no manager answered for 1 s" in done.stderr


def test_a_manager_that_comes_later_is_found(site: Site) -> None:
    state = site.folder / "later"
    worker = site.start("worker", "--state-dir", state, "--cores", 1)
    worker.wait_for_line("trying again")
    site.start_manager(state_dir=state)
    wait_for_worker(worker)


def test_it_can_be_stopped_while_it_waits_for_a_manager(site: Site) -> None:
    worker = site.start("worker", "--state-dir", site.folder / "nothing-here")
    worker.wait_for_line("trying again")
    assert worker.stop(10.0) == 0


def test_a_wrong_password_is_one_line_and_exit_code_4(site: Site, manager: Manager) -> None:
    other = site.start_manager(name="other")
    password = other.state_dir / "password"
    done = site.run("worker", "--manager", f"127.0.0.1:{manager.port}", "--password-file", password)
    assert done.returncode == 4
    said = [line for line in (done.stdout + done.stderr).splitlines() if "using" not in line]
    assert len(said) == 1, said


def test_it_leaves_with_the_process_that_started_it(site: Site, manager: Manager) -> None:
    pid_file = site.folder / "pid"
    command = site.command("worker", "--info-file", manager.info_file, "--parent-death")
    script = (
        f"import subprocess, sys, time; p = subprocess.Popen({command!r}); "
        f"open({str(pid_file)!r}, 'w').write(str(p.pid)); time.sleep(1000)"
    )
    parent = Program("parent", [sys.executable, "-c", script], site.folder, site.env)
    site.programs.append(parent)
    parent.wait_for_line("as worker")
    pid = int(pid_file.read_text())
    parent.kill()
    wait_until_ended(pid)


def test_tasks_know_what_they_were_given(
    site: Site, manager: Manager, client: wqueue.Client
) -> None:
    site.start_worker(manager, "--cores", 4, "--memory", 900, "--gpus", 2)
    names = ["CORES", "OMP_NUM_THREADS", "MEMORY", "GPUS", "CUDA_VISIBLE_DEVICES"]
    names += ["WQ_TASK_ID", "WQ_ATTEMPT"]
    shown = " ".join(f"${{{name}-unset}}" for name in names)
    line = f'echo {shown}; [ "$WQ_SANDBOX" = "$PWD" ] && echo at home'
    some = client.submit(wqueue.Task(line, cores=2.5, memory_mb=100, gpus=1))
    none = client.submit(wqueue.Task('echo "$CUDA_VISIBLE_DEVICES" ${GPUS-unset}', cores=1))
    first, second = printed(client, some).splitlines()
    cores, threads, memory, gpus, visible, task, attempt = first.split()
    assert (cores, threads, memory, gpus, task) == ("3", "3", "100", "1", f"{some.id}.0")
    assert visible in ("0", "1")
    assert len(bytes.fromhex(attempt)) == 36
    assert second == "at home"
    assert printed(client, none) == " unset\n"


def printed(client: wqueue.Client, job: wqueue.Job) -> str:
    record = only_result(client, job)
    assert record.outcome == "succeeded", record
    return next(o.inline or b"" for o in record.outputs if o.position == STDOUT).decode()


@pytest.mark.parametrize(
    "change",
    ["chmod u+w in.txt; echo EVIL >> in.txt", "chmod 666 in.txt", "rm ../../cache/*"],
)
def test_an_input_that_a_task_has_changed_comes_anew_for_the_next(
    site: Site, manager: Manager, client: wqueue.Client, tmp_path: Path, change: str
) -> None:
    (tmp_path / "in.txt").write_text("clean\n")
    inputs = [wqueue.InputFile(tmp_path / "in.txt", "in.txt")]
    site.start_worker(manager, workdir=tmp_path / "work")
    job = client.submit(wqueue.Task(change, inputs=inputs))
    assert only_result(client, job).outcome == "succeeded"
    cache = tmp_path / "work" / "cache"
    wait_until(lambda: not list(cache.iterdir()), what="the end of the changed file")
    look = wqueue.Task("cat in.txt; stat -c %a in.txt", inputs=inputs)
    assert printed(client, client.submit(look)) == "clean\n444\n"
    assert (tmp_path / "in.txt").read_text() == "clean\n"


def test_a_changed_input_comes_anew_while_the_task_that_changed_it_runs_on(
    site: Site, manager: Manager, client: wqueue.Client, tmp_path: Path
) -> None:
    (tmp_path / "in.txt").write_text("clean\n")
    inputs = [wqueue.InputFile(tmp_path / "in.txt", "in.txt")]
    site.start_worker(manager, "--cores", 2)
    sleeper = Sleeper(tmp_path)
    change = "chmod u+w in.txt; echo EVIL >> in.txt"
    evil = client.submit(wqueue.Task(f"{change}; {sleeper.command}; cat in.txt", inputs=inputs))
    sleeper.wait_until_it_runs()
    assert printed(client, client.submit(wqueue.Task("cat in.txt", inputs=inputs))) == "clean\n"
    sleeper.gate.touch()
    assert printed(client, evil) == "through\nclean\nEVIL\n"


def test_a_result_too_large_to_deliver_does_not_end_the_next_worker(
    site: Site, manager: Manager, client: wqueue.Client, tmp_path: Path
) -> None:
    workdir = tmp_path / "work"
    first = site.start_worker(manager, workdir=workdir)
    wait_for_worker(first)
    assert first.stop() == 0
    outputs = [OutputResult(i, 100_000, 0o644, bytes(32)) for i in range(30_000)]
    outbox = Outbox(workdir / "outbox")
    outbox.append([Kept(AttemptResult(bytes(36), "succeeded", 0, outputs=outputs))])
    outbox.close()
    worker = site.start_worker(manager, workdir=workdir)
    assert printed(client, client.submit(wqueue.Task("echo alive"))) == "alive\n"
    assert worker.stop() == 0


def test_a_worker_that_was_suspended_goes_on(
    site: Site, manager: Manager, client: wqueue.Client, tmp_path: Path
) -> None:
    worker = site.start_worker(manager)
    sleeper = Sleeper(tmp_path)
    job = client.submit(wqueue.Task(sleeper.command))
    sleeper.wait_until_it_runs()
    worker.signal(signal.SIGSTOP)
    sleeper.gate.touch()
    os.kill(worker.pid, signal.SIGCONT)
    assert only_result(client, job).outcome == "succeeded"
    assert len(sleeper.pids()) == 1


@pytest.mark.slow
def test_files_of_all_sizes_go_both_ways_and_are_cached(
    site: Site, manager: Manager, client: wqueue.Client, tmp_path: Path
) -> None:
    sizes = [0, 1, 32 * 1024, 32 * 1024 + 1, 256 * 1024, 256 * 1024 + 1, 5_000_000]
    for size in sizes:
        (tmp_path / f"in-{size}").write_bytes(os.urandom(size))
    inputs = [wqueue.InputFile(tmp_path / f"in-{size}", f"in-{size}") for size in sizes]
    outputs = [wqueue.OutputFile(f"out-{size}", tmp_path / f"out-{size}") for size in sizes]
    copies = "; ".join(f"cp in-{size} out-{size}" for size in sizes)
    task = wqueue.Task(f"{copies}; cat in-5000000", inputs=inputs, outputs=outputs)
    workdir = tmp_path / "work"
    for _ in range(2):
        # The second worker finds what the first one has cached, and a file that was damaged.
        worker = site.start_worker(manager, workdir=workdir)
        job = client.submit(task)
        record = only_result(client, job)
        assert record.outcome == "succeeded", record.text
        for size in sizes:
            source, target = tmp_path / f"in-{size}", tmp_path / f"out-{size}"
            assert source.read_bytes() == target.read_bytes(), size
            target.unlink()
        fetched = client.fetch(job, 0, STDOUT)
        assert fetched == (tmp_path / "in-5000000").read_bytes()
        assert worker.stop() == 0
        damaged = next(p for p in (workdir / "cache").iterdir() if p.stat().st_size == 1)
        damaged.chmod(0o600)
        damaged.write_bytes(b"?")


@pytest.mark.slow
def test_hundreds_of_inputs_at_once_arrive(
    site: Site, manager: Manager, client: wqueue.Client, tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    inputs = []
    for number in range(400):
        path = folder / str(number)
        path.write_text(f"{number}\n")
        inputs.append(wqueue.InputFile(path, f"d/{number}"))
    site.start_worker(manager)
    job = client.submit(wqueue.Task("cat d/* | sort -n | sha256sum; ls d | wc -l", inputs=inputs))
    assert printed(client, job).splitlines()[1] == "400"
