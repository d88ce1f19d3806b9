"""wq-wait: a truthful exit code, and work that goes on whatever happens to who waits."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli_desk import Desk, new_desk
from support.processes import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with new_desk(tmp_path_factory.mktemp("desk")) as it:
        yield it


@pytest.fixture
def go(tmp_path: Path) -> Iterator[Path]:
    """A file that lets `until_go` end; it is there at the end of the test at the latest."""
    path = tmp_path / "go"
    yield path
    path.touch()


def until_go(go: Path) -> str:
    return f"until test -e {go}; do sleep 0.05; done"


def test_the_exit_code_tells_whether_all_succeeded(desk: Desk) -> None:
    good = desk.submit("--array", "3", "--", "true")
    bad = desk.submit("--array", "3", "--", "exit {}")
    assert desk.run("wait", good).returncode == 0
    ran = desk.run("wait", good, bad)
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert f"job {good}: 3 tasks: 3 succeeded" in ran.stderr
    assert f"job {bad}: 3 tasks: 1 succeeded, 2 failed" in ran.stderr
    assert "2 tasks failed" in ran.stderr


def test_last_and_ranges_are_jobs_too(desk: Desk) -> None:
    first = desk.submit("--", "true")
    last = desk.submit("--", "exit 1")
    assert desk.run("wait", f"{first}-{first}").returncode == 0
    assert desk.run("wait", "last").returncode == 1
    assert f"job {last}:" in desk.run("wait", f"{first}-{last}").stderr


def test_the_time_can_run_out_and_the_job_goes_on(desk: Desk, go: Path) -> None:
    job = desk.submit("--", until_go(go))
    ran = desk.run("wait", "--timeout", "0.2s", job)
    assert ran.returncode == 5
    assert len(ran.stderr.splitlines()) <= 2
    go.touch()
    assert desk.run("wait", job).returncode == 0


def test_an_interrupt_leaves_the_job_running_and_says_how_to_come_back(
    desk: Desk, go: Path
) -> None:
    job = desk.submit("--", until_go(go))
    waiter = desk.start("wait", "--progress", job)
    waiter.wait_for_line("0 of 1 tasks ended")
    waiter.signal(signal.SIGINT)
    assert waiter.wait() == 130
    assert f"wq-wait {job}" in waiter.output()
    assert "Traceback" not in waiter.output()
    go.touch()
    assert desk.run("wait", job).returncode == 0


def test_an_interrupt_of_submit_wait_leaves_the_job_running(desk: Desk, go: Path) -> None:
    submitter = desk.start("submit", "--wait", "--", until_go(go))
    submitter.wait_for_line("submitted job")
    submitter.signal(signal.SIGINT)
    assert submitter.wait() == 130
    job = int(submitter.output().partition("submitted job ")[2].partition(":")[0])
    assert f"wq-wait {job}" in submitter.output()
    go.touch()
    assert desk.run("wait", job).returncode == 0


def test_quiet_says_nothing_and_json_says_all(desk: Desk) -> None:
    job = desk.submit("--", "echo no >&2; exit 4")
    assert desk.run("wait", "--quiet", job).stderr == ""
    value = json.loads(desk.run("wait", "--quiet", "--json", job).stdout)
    assert value["schema"] == "wqueue.wait/1"
    assert value["jobs"] == [
        {
            "job": job,
            "tasks": 1,
            "succeeded": 0,
            "failed": 1,
            "canceled": 0,
            "is_ended": True,
        }
    ]
    assert value["failures"][0]["exit_code"] == 4
    assert value["failures"][0]["stderr_tail"] == ["no"]


def test_the_exit_code_of_a_single_task_can_be_passed_on(desk: Desk) -> None:
    assert desk.run("wait", "--pass-exit-code", desk.submit("--", "exit 42")).returncode == 42
    many = desk.submit("--array", "2", "--", "true")
    assert desk.run("wait", "--pass-exit-code", many).returncode == 2


def test_canceled_tasks_have_not_succeeded(desk: Desk, go: Path) -> None:
    job = desk.submit("--", until_go(go))
    waiter = desk.start("wait", job)
    assert desk.run("cancel", job).stderr == "canceled 1 task\n"
    assert waiter.wait() == 1
    assert "1 canceled" in waiter.output()
    again = desk.run("cancel", job)
    assert again.returncode == 0
    assert "nothing to cancel" in again.stderr


def test_some_tasks_of_a_job_can_be_canceled(desk: Desk, go: Path) -> None:
    job = desk.submit("--array", "10", "--", until_go(go))
    value = json.loads(desk.run("cancel", "--json", "--quiet", f"{job}.3-5,9").stdout)
    assert value == {"schema": "wqueue.cancel/1", "canceled": 4}
    go.touch()
    assert desk.run("wait", job).returncode == 1
    canceled = [task["index"] for task in desk.tasks(job) if task["state"] == "canceled"]
    assert canceled == [3, 4, 5, 9]


def test_all_that_is_active_can_be_canceled(desk: Desk, go: Path) -> None:
    jobs = [desk.submit("--array", "3", "--", until_go(go)) for _ in range(2)]
    assert desk.run("cancel", "all").stderr == "canceled 6 tasks\n"
    assert desk.run("wait", *jobs).returncode == 1


def test_who_waits_outlives_the_manager_and_is_told(tmp_path: Path) -> None:
    with new_desk(tmp_path) as desk:
        go = tmp_path / "go"
        job = desk.submit("--array", "4", "--", until_go(go))
        waiter = desk.start("wait", "--progress", job)
        waiter.wait_for_line("of 4 tasks ended")
        desk.manager.kill_all()
        waiter.wait_for_line("connection to the manager: lost")
        desk.site.start_manager()
        waiter.wait_for_line("connection to the manager: connected")
        go.touch()
        assert waiter.wait() == 0
        assert f"job {job}: 4 tasks: 4 succeeded" in waiter.output()


def test_shutdown_ends_the_manager_and_its_workers(tmp_path: Path) -> None:
    with new_desk(tmp_path) as desk:
        wait_until(lambda: desk.status("-W")["workers"], what="the worker")
        for program in desk.site.programs:
            program.may_end = True
        ran = desk.run("control", "shutdown")
        assert ran.returncode == 0
        assert "the manager default at" in ran.stderr
        wait_until(
            lambda: not any(program.is_running for program in desk.site.programs),
            what="the end of manager and worker",
        )
        assert [program.process.returncode for program in desk.site.programs] == [0, 0]
