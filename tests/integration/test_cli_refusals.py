"""What cannot be: one or two lines, the right exit code, and nothing changed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli_desk import Desk, Ran, new_desk
from support.processes import Site

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with new_desk(tmp_path_factory.mktemp("desk"), workers=0) as it:
        for name in ("a", "b"):
            (it.folder / name).write_text(name)
        (it.folder / "folder").mkdir()
        (it.folder / "lines").write_text("/abs\nrel\n")
        (it.folder / "clash").write_text("x/same\ny/same\n")
        (it.folder / "empty").write_text("")
        it.submit("--", "true")
        yield it
        # Nothing that was refused here has changed anything.
        assert it.jobs_ever() == 1


def assert_refused(ran: Ran, tool: str, code: int, said: str = "") -> None:
    """See one or two lines on stderr, the exit code, and nothing on stdout."""
    assert ran.returncode == code, ran.stderr
    assert ran.stdout == ""
    lines = ran.stderr.splitlines()
    assert 1 <= len(lines) <= 2, ran.stderr
    assert lines[0].startswith(f"wq-{tool}")
    assert "Traceback" not in ran.stderr
    assert said in ran.stderr


BAD = [
    ("submit", [], "COMMAND"),
    ("submit", ["--"], "COMMAND"),
    ("submit", ["--", ""], "empty"),
    ("submit", ["--", "", "x"], "empty"),
    ("submit", ["--no-such-option", "--", "x"], "no-such-option"),
    ("submit", ["--cores", "-1", "--", "x"], "cores"),
    ("submit", ["--cores", "1e99", "--", "x"], "cores"),
    ("submit", ["--memory", "lots", "--", "x"], "not a size"),
    ("submit", ["--memory", "9" * 40, "--", "x"], "too much"),
    ("submit", ["--gpus", "1.5", "--", "x"], "gpus"),
    ("submit", ["--priority", "inf", "--", "x"], "priority"),
    ("submit", ["--max-retries", "99999999999", "--", "x"], "max_retries"),
    ("submit", ["--name", "n" * 300, "--", "x"], "300 characters"),
    ("submit", ["--array", "5-1", "--", "x"], "backwards"),
    ("submit", ["--array", "0-99999999999", "--", "x"], "a job may have"),
    ("submit", ["--array", "", "--", "x"], "no array"),
    ("submit", ["--each-line", "empty", "--", "x"], "no lines"),
    ("submit", ["--each-line", "folder", "--", "x"], "cannot read folder"),
    ("submit", ["--each-line", "none", "--", "x"], "No such file"),
    ("submit", ["--env", "NOT_SET_HERE", "--", "x"], "not set here"),
    ("submit", ["--env", "=v", "--", "x"], "environment"),
    ("submit", ["--input", "none", "--", "x"], "none"),
    ("submit", ["--input", "a=../b", "--", "x"], "leaves the sandbox"),
    ("submit", ["--input", "a=/etc/passwd", "--", "x"], "absolute"),
    ("submit", ["--input", "../b", "--", "x"], "LOCAL=NAME"),
    ("submit", ["--output", "o=../b", "--", "x"], "leaves the sandbox"),
    ("submit", ["--output", "o=/tmp/b", "--", "x"], "absolute"),
    ("submit", ["--output", "folder/", "--", "x"], "is a folder"),
    ("submit", ["--input", "a=c", "--input", "b=c", "--", "x"], "called c"),
    ("submit", ["--input", "a", "--output", "x=a", "--", "x"], "both an input and an output"),
    ("submit", ["--array", "3", "--output", "o", "--", "x"], "every task"),
    ("submit", ["--each-line", "clash", "--output", "{/}", "--", "x"], "same"),
    ("submit", ["--each-line", "lines", "--input", "{}", "--", "x"], "absolute"),
    ("submit", ["--array", "3", "--pass-exit-code", "--", "x"], "single task"),
    ("wait", [], "JOB"),
    ("wait", ["x"], "names no job"),
    ("wait", ["1.0"], "whole jobs"),
    ("wait", ["--timeout", "soon", "1"], "not a time"),
    ("status", ["x"], "names no job"),
    ("status", ["--limit", "0"], "limit"),
    ("cancel", [], "SELECTOR"),
    ("cancel", ["1-"], "names no job"),
    ("control", [], ""),
    ("control", ["no-such-order"], "no-such-order"),
]


@pytest.mark.parametrize(("tool", "arguments", "said"), BAD, ids=lambda value: str(value)[:50])
def test_bad_usage_is_refused(desk: Desk, tool: str, arguments: list[str], said: str) -> None:
    ran = desk.run(tool, *arguments)
    if (tool, arguments) == ("control", []):
        assert (ran.returncode, "Traceback" in ran.stderr) == (2, False)
    else:
        assert_refused(ran, tool, 2, said)


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("status", ["999"], "999"),
        ("status", ["1.5"], "1.5"),
        ("status", ["800-900"], "no jobs 800 to 900"),
        ("wait", ["999"], "999"),
        ("cancel", ["999"], "999"),
        ("cancel", ["1.5"], "1.5"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(
    desk: Desk, tool: str, arguments: list[str], said: str
) -> None:
    assert_refused(desk.run(tool, *arguments), tool, 6, said)


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("submit", ["--", "true"]),
        ("wait", ["1"]),
        ("status", []),
        ("cancel", ["1"]),
        ("control", ["shutdown"]),
    ],
)
def test_without_a_manager_each_tool_says_so(site: Site, tool: str, arguments: list[str]) -> None:
    ran = site.run(tool, *arguments)
    assert_refused(ran, tool, 3, "wq-manager")


def test_a_manager_that_is_gone_is_unreachable(desk: Desk, site: Site) -> None:
    ran = desk.run("status", "--manager", "127.0.0.1:1", env={"WQ_INFO_FILE": ""})
    assert_refused(ran, "status", ran.returncode)
    assert ran.returncode in (3, 4)


def test_a_wrong_secret_is_not_authorized(desk: Desk, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a human password\n")
    secret.chmod(0o600)
    ran = desk.run("submit", "--password-file", secret, "--", "true")
    assert_refused(ran, "submit", 4)


@pytest.mark.parametrize("tool", ["submit", "worker"])
def test_no_password_is_not_authorized(desk: Desk, tmp_path: Path, tool: str) -> None:
    place = ["--manager", f"127.0.0.1:{desk.manager.port}"]
    words = ["--", "true"] if tool == "submit" else []
    ran = desk.site.run(tool, *place, *words, env={"XDG_STATE_HOME": str(tmp_path)})
    assert_refused(ran, tool, 4, "no password for the manager at")


def test_a_workers_secret_cannot_submit(desk: Desk) -> None:
    secret = desk.manager.state_dir / "secrets" / "worker"
    ran = desk.run("submit", "--password-file", secret, "--", "true")
    assert_refused(ran, "submit", 4, "a worker's secret")


def test_a_file_that_cannot_be_read_is_refused(desk: Desk) -> None:
    if os.getuid() == 0:
        pytest.skip("root reads everything")
    (desk.folder / "secret").write_text("x")
    (desk.folder / "secret").chmod(0)
    assert_refused(desk.run("submit", "--input", "secret", "--", "true"), "submit", 2, "secret")
