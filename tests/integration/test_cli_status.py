"""wq-status: every view, for people and for programs."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cli_desk import Desk, new_desk
from support.processes import wait_until

pytestmark = pytest.mark.slow


class Scene:
    """A queue with one job of each kind: done, failed, running, waiting."""

    def __init__(self, desk: Desk, go: Path) -> None:
        self.desk = desk
        self.done, _ = desk.submit_and_wait("--array", "3", "--name", "good", "--", "echo {}")
        self.failed, _ = desk.submit_and_wait(
            "--array", "10", "--", "echo task {} >&2; test {} -lt 2 -o {} -eq 6"
        )
        self.running = desk.submit("--cores", "2", "--", f"until test -e {go}; do sleep 0.05; done")
        self.waiting = desk.submit(
            *("--array", "100", "--priority", "-1", "--cores", "64", "--", "true")
        )
        wait_until(
            lambda: desk.status(self.running)["job"]["state"] == "running", what="a running job"
        )


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("desk")
    with new_desk(folder) as desk:
        yield Scene(desk, folder / "go")
        (folder / "go").touch()


def lines(scene: Scene, *arguments: object, columns: int = 80) -> list[str]:
    ran = scene.desk.run("status", *arguments, env={"COLUMNS": str(columns)})
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_the_default_view_is_the_queue_and_its_active_jobs(scene: Scene) -> None:
    shown = lines(scene)
    titles = "PROJECT HOST PORT WAITING RUNNING COMPLETE WORKERS"
    assert " ".join(shown[0].split()) == titles
    assert shown[1].split()[2:] == [str(scene.desk.manager.port), "100", "1", "13", "1"]
    assert shown[2] == ""
    assert shown[3].split()[:3] == ["JOB", "STATE", "NAME"]
    jobs = [int(line.split()[0]) for line in shown[4:]]
    assert jobs == [scene.running, scene.waiting]


def test_the_queue_has_work_queue_s_columns(scene: Scene) -> None:
    assert len(lines(scene, "-Q")) == 2


def test_all_shows_jobs_that_have_ended_too(scene: Scene) -> None:
    shown = lines(scene, "-J", "--all")
    assert len(shown) == 5
    assert shown[1].split()[:3] == [str(scene.done), "done", "good"]
    assert shown[2].split()[:2] == [str(scene.failed), "failed"]


def test_tasks_are_listed_with_work_queue_s_columns(scene: Scene) -> None:
    shown = lines(scene, "-T", f"{scene.waiting}.5-7")
    titles = "TASK STATE PRIORITY HOST COMMAND CORES MEMORY DISK GPUS"
    assert shown[0].split() == titles.split()
    assert [line.split()[0] for line in shown[1:]] == [f"{scene.waiting}.{i}" for i in (5, 6, 7)]
    assert shown[1].split()[1:3] == ["ready", "-1"]


def test_tasks_without_selector_are_those_that_workers_have(scene: Scene) -> None:
    (task,) = scene.desk.status("-T")["tasks"]
    assert (task["task"], task["state"]) == (f"{scene.running}.0", "running")
    assert len(lines(scene, "-T", "--all")) == 1 + 1 + 100 + 13


def test_a_long_listing_is_cut_and_says_so(scene: Scene) -> None:
    ran = scene.desk.run("status", "-T", "--all", "--limit", "10")
    assert len(ran.stdout.splitlines()) == 11
    assert "first 10 tasks" in ran.stderr
    assert scene.desk.status("-T", "--all", "--limit", "10")["is_complete"] is False


def test_workers_are_listed_with_what_is_used_of_what_there_is(scene: Scene) -> None:
    title, line = lines(scene, "-W")
    assert title.split()[:3] == ["WORKER", "STATE", "HOST"]
    assert line.split()[1] == "live"
    assert "2/2" in line.split()


@pytest.mark.parametrize("view", ["", "-Q", "-T", "-W", "-J"])
def test_every_table_fits_80_columns(scene: Scene, view: str) -> None:
    shown = lines(scene, *([view] if view else []), "--all")
    assert max(map(len, shown)) <= 80


def test_one_job_shows_its_counts_its_indexes_and_its_first_failures(scene: Scene) -> None:
    shown = lines(scene, scene.failed)
    assert "State      failed" in shown
    assert "Tasks      10: 3 succeeded, 7 failed" in shown
    assert "Failed     2-5,7-9" in shown
    assert "7 tasks failed (5 shown)" in shown
    assert sum(line.startswith("  | task ") for line in shown) == 5


def test_one_waiting_job_shows_what_it_waits_for(scene: Scene) -> None:
    shown = lines(scene, scene.waiting)
    assert "Tasks      100: 100 waiting" in shown
    assert "Priority   -1" in shown
    (reason,) = [line for line in shown if line.startswith("Waits for")]
    assert "64" in reason


def test_one_task_shows_why_it_waits(scene: Scene) -> None:
    shown = "\n".join(lines(scene, f"{scene.waiting}.3", columns=200))
    assert "Waits for" in shown
    assert "64" in shown.partition("Waits for")[2]


def test_one_task_shows_how_it_ended_and_what_it_printed(scene: Scene) -> None:
    shown = lines(scene, f"{scene.failed}.4", columns=200)
    text = "\n".join(shown)
    assert "State      failed" in text
    assert "(exit_nonzero)" in text
    assert "wall" in text
    assert shown[-1] == "  | task 4"
    good = "\n".join(lines(scene, f"{scene.done}.2"))
    assert "stdout (2 bytes), its end:\n  | 2" in good


def test_several_selectors_give_a_table(scene: Scene) -> None:
    assert len(lines(scene, scene.done, scene.failed)) == 3
    assert len(lines(scene, f"{scene.done}.0-1")) == 3
    assert len(lines(scene, "all")) == 5


def test_colours_are_for_terminals_and_not_with_no_color(scene: Scene) -> None:
    desk = scene.desk
    assert "\x1b[" in desk.on_terminal("status")
    assert "\x1b[" not in desk.on_terminal("status", env={"NO_COLOR": "1"})
    assert "\x1b[" not in desk.run("status", env={"NO_COLOR": "", "TERM": "xterm"}).stdout


def test_head_is_enough_and_nobody_complains(scene: Scene) -> None:
    desk = scene.desk
    command = " ".join(desk.site.command("status", "-T", "--all"))
    ran = subprocess.run(
        ["bash", "-c", f"for i in 1 2 3; do {command}; done | head -1"],
        env=desk.site.env | desk.env,
        cwd=desk.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.stderr, len(ran.stdout.splitlines())) == ("", 1)


@pytest.mark.parametrize(
    ("target", "code", "said"),
    [("&-", 0, ""), ("/dev/full", 2, "cannot write to <stdout>: No space left on device")],
)
def test_a_stdout_that_takes_nothing_is_no_bug(
    scene: Scene, target: str, code: int, said: str
) -> None:
    desk = scene.desk
    ran = subprocess.run(
        ["bash", "-c", f"{' '.join(desk.site.command('status'))} >{target}"],
        env=desk.site.env | desk.env,
        cwd=desk.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (code, f"wq-status: {said}\n" if said else "")


COUNTS = {
    *("blocked", "held", "ready", "assigned", "running"),
    *("retrieving", "unknown", "done", "failed", "canceled"),
}

SCHEMA: dict[str, dict[str, Any]] = {
    "queue": {
        "project": str,
        "host": str,
        "port": int,
        "waiting": int,
        "running": int,
        "complete": int,
        "workers": int,
        "workers_away": int,
        "workers_busy": int,
        "jobs": int,
        "jobs_active": int,
        "counts": dict,
        "total": dict,
        "committed": dict,
        "version": str,
        "server_id": str,
        "epoch": int,
        "up_s": float,
        "store_error": None,
        "state_dir": str,
    },
    "jobs": {
        "job": int,
        "name": str,
        "tag": None,
        "category": str,
        "priority": float,
        "state": str,
        "tasks": int,
        "waiting": int,
        "running": int,
        "complete": int,
        "failed": int,
        "canceled": int,
        "counts": dict,
        "command": str,
        "resources": dict,
        "directory": None,
        "submitted": str,
        "ended": str,
    },
    "tasks": {
        "task": str,
        "job": int,
        "index": int,
        "state": str,
        "priority": float,
        "host": str,
        "worker": int,
        "command": str,
        "cores": float,
        "memory_mb": int,
        "disk_mb": int,
        "gpus": int,
        "named": dict,
        "running_s": None,
        "attempts": int,
        "reason": None,
        "record": dict,
    },
    "workers": {
        "worker": int,
        "state": str,
        "host": str,
        "address": str,
        "pid": int,
        "completed": int,
        "failed": int,
        "queued": int,
        "running": int,
        "total": dict,
        "committed": dict,
        "heard_ago_s": float,
        "features": list,
        "version": str,
        "workdir": str,
    },
}
"""wqueue.status/1: the keys of each row and the type they have in the scene (None: null there)."""


def test_every_way_to_name_the_manager_finds_it(scene: Scene) -> None:
    site, manager = scene.desk.site, scene.desk.manager
    state = manager.state_dir
    named = Path(site.env["XDG_STATE_HOME"]) / "wqueue" / "nick"
    named.parent.mkdir(exist_ok=True)
    named.symlink_to(state)
    address = f"127.0.0.1:{manager.port}"
    secret = state / "password"
    for options in (
        ["--info-file", manager.info_file],
        ["--state-dir", state],
        ["-M", "nick"],
        ["--name", "nick"],
        ["--manager", address, "--password-file", secret],
        ["--manager", address],
    ):
        ran = site.run("status", "-Q", *options)
        assert (ran.returncode, ran.stderr) == (0, ""), options
    for environ in (
        {"WQ_INFO_FILE": str(manager.info_file)},
        {"WQ_STATE_DIR": str(state)},
        {"WQ_NAME": "nick"},
        {"WQ_MANAGER": address, "WQ_PASSWORD_FILE": str(secret)},
    ):
        assert site.run("status", "-Q", env=environ).returncode == 0, environ


def test_a_queue_without_workers_says_how_to_start_one(tmp_path: Path) -> None:
    with new_desk(tmp_path, workers=0) as desk:
        desk.submit("--", "true")
        ran = desk.run("status")
        assert f"wq-worker 127.0.0.1 {desk.manager.port}" in ran.stderr
        assert "no worker" in desk.run("status", 1).stdout


def test_json_has_the_keys_and_types_of_its_schema(scene: Scene) -> None:
    value = scene.desk.status("-Q", "-J", "-T", "-W", scene.done)
    assert value["schema"] == "wqueue.status/1"
    assert set(value) == {"schema", "is_complete", *SCHEMA}
    assert set(value["queue"]["counts"]) == COUNTS
    rows = {"queue": value["queue"]} | {view: value[view][0] for view in SCHEMA if view != "queue"}
    for view, keys in SCHEMA.items():
        types = {key: None if v is None else type(v) for key, v in rows[view].items()}
        assert types == keys, view


def test_the_json_of_one_task_holds_its_record(scene: Scene) -> None:
    value = scene.desk.status(f"{scene.failed}.4")
    record = value["task"]["record"]
    assert (record["outcome"], record["exit_code"], record["signal"]) == ("exit_nonzero", 1, None)
    assert record["stderr"] == {"size": 7, "text": "task 4\n"}
    assert record["usage"]["wall_s"] >= 0


def test_the_json_of_one_job_holds_its_failures(scene: Scene) -> None:
    value = scene.desk.status(scene.failed)
    assert value["indexes"] == {"running": None, "assigned": None} | {"failed": "2-5,7-9"}
    assert [failure["task"] for failure in value["failures"]] == sorted(
        failure["task"] for failure in value["failures"]
    ) or len(value["failures"]) == 5
