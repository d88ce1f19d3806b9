"""How tasks go wrong: each way has its own outcome and one clear line; neighbours do not notice."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.cli_desk import Desk, new_desk

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with new_desk(tmp_path_factory.mktemp("desk")) as it:
        (it.folder / "plain").write_text("not a program")
        (it.folder / "lost").write_text("#!/nonexistent/interpreter\n")
        (it.folder / "lost").chmod(0o755)
        yield it


class Mishap(NamedTuple):
    """A submission that fails at the worker, and how."""

    arguments: list[str]
    outcome: str
    said: str


MISHAPS = {
    "exit code": Mishap(["--", "exit 3"], "exit_nonzero", "3"),
    "command not found": Mishap(["--", "no-such-command", "x"], "not_found", "no-such-command"),
    "path not found": Mishap(["--", "./no/such"], "not_found", "./no/such"),
    "not found by the shell": Mishap(["--", "no-such-command && x"], "exit_nonzero", "127"),
    "interpreter not found": Mishap(["--input", "lost", "--", "./lost"], "not_found", "lost"),
    "not executable": Mishap(["--input", "plain", "--", "./plain", "x"], "not_executable", "plain"),
    "a folder": Mishap(["--", "/tmp", "x"], "not_executable", "/tmp"),
    "killed": Mishap(["--", "kill -9 $$"], "signal", "9"),
    "crashed": Mishap(["--", "kill -SEGV $$"], "signal", "SIGSEGV"),
    "output not made": Mishap(["--output", "never", "--", "true"], "output_missing", "never"),
    "output is a link out": Mishap(
        ["--output", "escape", "--", "ln -s /etc/passwd escape"], "output_unsafe", "escape"
    ),
}


@pytest.mark.parametrize("name", MISHAPS)
def test_each_mishap_has_its_outcome_and_a_line(desk: Desk, name: str) -> None:
    mishap = MISHAPS[name]
    job, ran = desk.submit_and_wait(*mishap.arguments)
    (task,) = desk.tasks(job)
    assert (task["state"], task["record"]["outcome"]) == ("failed", mishap.outcome)
    assert ran.returncode == 1
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith(f"task {job}.0 failed")]
    assert mishap.said in line
    assert line.endswith(f"({mishap.outcome})")
    assert "Traceback" not in ran.stderr


def test_mishaps_do_not_disturb_their_neighbours(desk: Desk) -> None:
    good = desk.submit("--array", "20", "--output", "good{}=out", "--", "echo {} > out")
    bad = [desk.submit(*mishap.arguments) for mishap in MISHAPS.values()]
    assert desk.run("wait", good).returncode == 0
    assert desk.run("wait", *bad).returncode == 1
    for number in range(20):
        assert (desk.folder / f"good{number}").read_text() == f"{number}\n"
    tasks = desk.status("-T", *bad)["tasks"]
    assert [task["state"] for task in tasks] == ["failed"] * len(bad)
    assert not (desk.folder / "never").exists()
    assert not (desk.folder / "escape").exists()


def test_an_input_that_vanished_after_submission_is_its_own_outcome(tmp_path: Path) -> None:
    with new_desk(tmp_path, workers=0) as desk:
        (tmp_path / "input").write_text("x" * 100_000)
        job = desk.submit("--input", "input", "--", "cat input")
        neighbour = desk.submit("--", "true")
        (tmp_path / "input").unlink()
        desk.site.start_worker(desk.manager)
        assert desk.run("wait", neighbour).returncode == 0
        ran = desk.run("wait", job)
        assert ran.returncode == 1
        (task,) = desk.tasks(job)
        assert task["record"]["outcome"] == "input_missing"
        assert "input" in task["record"]["text"]
        assert f"task {job}.0 failed" in ran.stderr


def test_an_input_that_was_changed_after_submission_is_never_silently_used(
    tmp_path: Path,
) -> None:
    with new_desk(tmp_path, workers=0) as desk:
        (tmp_path / "input").write_text("as submitted")
        job = desk.submit("--input", "input", "--", "cat input")
        (tmp_path / "input").write_text("changed")
        desk.site.start_worker(desk.manager)
        desk.run("wait", job)
        (task,) = desk.tasks(job)
        stdout = task["record"]["stdout"]
        assert task["record"]["outcome"] == "input_missing" or stdout["text"] == "as submitted"
