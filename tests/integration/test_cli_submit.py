"""wq-submit with a real manager and a real worker: every option, and what tasks see of it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli_desk import Desk, new_desk

pytestmark = pytest.mark.slow

NASTY = [
    "a b",
    "it's",
    'say "x"',
    "new\nline",
    "été",
    "日本",
    "$HOME",
    "`id`",
    "-n",
    "a;b&c|d",
    "*",
    "\\",
]
"""Values that a shell, a terminal or a careless program would break."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with new_desk(tmp_path_factory.mktemp("desk")) as it:
        yield it


@pytest.fixture
def here(desk: Desk, tmp_path: Path) -> Path:
    """A fresh folder for the files of one test."""
    return tmp_path


def test_stdout_is_the_number_alone_and_stderr_says_the_rest(desk: Desk) -> None:
    ran = desk.run("submit", "--array", "3", "--", "true")
    job = int(ran.stdout)
    assert ran.stdout == f"{job}\n"
    assert ran.stderr == (
        f"submitted job {job}: 3 tasks (1 core each); watch: wq-status {job}, wait: wq-wait {job}\n"
    )


def test_quiet_says_nothing_but_the_number(desk: Desk) -> None:
    ran = desk.run("submit", "--quiet", "--wait", "--", "false")
    assert (ran.stderr, ran.returncode) == ("", 1)


def test_one_word_is_a_shell_line_and_several_are_run_as_they_are(desk: Desk) -> None:
    shell, _ = desk.submit_and_wait("--env", "X=1", "--", "echo $X | tr 1 2")
    vector, _ = desk.submit_and_wait("--env", "X=1", "--", "printf", "%s|", "$X", "a b", "{}")
    assert desk.printed(shell) == ["2\n"]
    assert desk.printed(vector) == ["$X|a b|{}|"]


def test_options_end_at_the_first_word_of_the_command(desk: Desk) -> None:
    job, _ = desk.submit_and_wait("printf", "%s", "--wait")
    assert desk.printed(job) == ["--wait"]


@pytest.mark.parametrize("command", [["printf %s {}"], ["printf", "%s", "{}"]], ids=["sh", "argv"])
def test_any_value_reaches_the_task_unchanged(desk: Desk, command: list[str]) -> None:
    job, ran = desk.submit_and_wait(
        "--each-line", "-", "--null", "--", *command, stdin="\0".join(NASTY)
    )
    assert ran.returncode == 0, ran.stderr
    # printf of some shells takes -n for an option.
    assert [text or "-n" for text in desk.printed(job)] == NASTY


def test_files_with_any_name_go_in_and_come_out(desk: Desk, here: Path) -> None:
    names = [name for name in NASTY if "/" not in name]
    for name in names:
        (here / name).write_text(f"content of {name}")
    ran = desk.run(
        *("submit", "--wait", "--each-line", "-", "-0", "--input", "{}", "--output", "{}.out"),
        *("--", "tr a-z A-Z < ./{} > ./{}.out"),
        stdin="\0".join(names),
        cwd=here,
    )
    assert ran.returncode == 0, ran.stderr
    for name in names:
        expected = f"content of {name}".translate({c: c - 32 for c in range(97, 123)})
        assert (here / f"{name}.out").read_text() == expected


def test_names_that_are_not_utf8_go_in_and_come_out(desk: Desk, here: Path) -> None:
    (here / "caf\udce9").write_bytes(b"x")
    ran = desk.run(
        *("submit", "--wait", "--input", "caf\udce9", "--output", "out\udce9"),
        *("--", "cat caf* > out\udce9"),
        cwd=here,
    )
    assert ran.returncode == 0, ran.stderr
    assert (here / "out\udce9").read_bytes() == b"x"
    assert "cat caf* > out\\xe9" in desk.run("status", int(ran.stdout)).stdout


def test_the_lines_of_a_file_are_values_and_empty_ones_are_left_out(desk: Desk, here: Path) -> None:
    (here / "lines").write_text("x/one.txt\n\ntwo.txt\r\n")
    job, _ = desk.submit_and_wait(
        "--each-line", here / "lines", "--", "echo {} {.} {/} {//} {/.} {#} {1}"
    )
    assert desk.printed(job) == [
        "x/one.txt x/one one.txt x one 0 x/one.txt\n",
        "two.txt two two.txt . two 1 two.txt\n",
    ]


def test_a_value_without_a_place_goes_to_the_end(desk: Desk) -> None:
    job, _ = desk.submit_and_wait("--each-line", "-", "--", "echo value:", stdin="a b\nc\n")
    assert desk.printed(job) == ["value: a b\n", "value: c\n"]


def test_an_array_counts_as_it_was_told(desk: Desk) -> None:
    job, _ = desk.submit_and_wait("--array", "1-10:3", "--", "echo", "{}", "{#}")
    assert desk.printed(job) == ["1 0\n", "4 1\n", "7 2\n", "10 3\n"]


def test_placeholders_stand_in_files_and_environment_too(desk: Desk, here: Path) -> None:
    for number in (5, 6):
        (here / f"in{number}").write_text(str(number))
    ran = desk.run(
        *("submit", "--wait", "--array", "5-6", "--env", "N={}"),
        *("--input", "in{}=in", "--output", "sub/out{}.{#}=out"),
        *("--", "cat in > out; echo $N >> out"),
        cwd=here,
    )
    assert ran.returncode == 0, ran.stderr
    assert (here / "sub/out5.0").read_text() == "55\n"
    assert (here / "sub/out6.1").read_text() == "66\n"


def test_inputs_keep_relative_names_and_lose_absolute_folders(desk: Desk, here: Path) -> None:
    (here / "deep").mkdir()
    (here / "deep/a").write_text("a")
    (here / "b").write_text("b")
    ran = desk.run(
        *("submit", "--wait", "--input", "deep/a", "--input", here / "b", "--input", "b=c/d"),
        *("--output", "deep/result", "--", "cat deep/a b c/d > deep/result"),
        cwd=here,
    )
    assert ran.returncode == 0, ran.stderr
    assert (here / "deep/result").read_text() == "abb"


def test_inputs_may_be_listed_in_a_file(desk: Desk, here: Path) -> None:
    (here / "x y").write_text("1")
    (here / "z").write_text("2")
    (here / "list").write_text("x y\n\nz=renamed\n")
    ran = desk.run(
        *("submit", "--wait", "--input-list", "list", "--output", "out"),
        *("--", "cat 'x y' renamed > out"),
        cwd=here,
    )
    assert ran.returncode == 0, ran.stderr
    assert (here / "out").read_text() == "12"


def test_a_variable_is_given_or_passed_from_here(desk: Desk) -> None:
    ran = desk.run(
        *("submit", "--wait", "--env", "GIVEN=a b", "--env", "PASSED", "--env", "EMPTY="),
        *("--", 'printf "%s|" "$GIVEN" "$PASSED" "${EMPTY-unset}" "${OTHER-unset}"'),
        env={"PASSED": "from here", "OTHER": "stays here"},
    )
    assert desk.printed(int(ran.stdout)) == ["a b|from here||unset|"]


def test_needs_and_names_are_those_that_were_given(desk: Desk) -> None:
    job = desk.submit(
        *("--cores", "0.5", "--memory", "1G", "--disk", "100M", "--gpus", "0"),
        *("--name", "a name", "--tag", "a tag", "--category", "kind", "--priority", "2.5"),
        *("--", "true"),
    )
    shown = desk.status(job)["job"]
    assert (shown["name"], shown["tag"], shown["category"]) == ("a name", "a tag", "kind")
    assert shown["priority"] == 2.5
    assert shown["resources"] == {
        "cores": 0.5,
        "memory_mb": 1024,
        "disk_mb": 100,
        "gpus": 0,
        "named": {},
    }


def test_a_task_asks_for_one_core_unless_told_otherwise(desk: Desk) -> None:
    assert desk.status(desk.submit("--", "true"))["job"]["resources"]["cores"] == 1


def test_a_failed_task_is_run_again_as_often_as_allowed(desk: Desk, here: Path) -> None:
    job, ran = desk.submit_and_wait("--max-retries", "2", "--", "exit 3")
    assert ran.returncode == 1
    assert desk.tasks(job)[0]["attempts"] == 3
    once, _ = desk.submit_and_wait("--", "exit 3")
    assert desk.tasks(once)[0]["attempts"] == 1


def test_waiting_lists_the_first_failures_and_counts_the_others(desk: Desk) -> None:
    job, ran = desk.submit_and_wait(
        "--array", "9", "--", "echo task {} complains >&2; test {} -ge 7"
    )
    assert ran.returncode == 1
    lines = ran.stderr.splitlines()
    assert sum(line.startswith(f"task {job}.") for line in lines) == 5
    assert sum(line.startswith("  | task ") for line in lines) == 5
    assert "7 tasks failed (5 shown)" in lines
    assert lines[-1] == f"job {job}: 9 tasks: 2 succeeded, 7 failed"


def test_after_a_single_task_the_way_to_its_output_is_told(desk: Desk) -> None:
    job, ran = desk.submit_and_wait("--", "echo hello")
    assert ran.returncode == 0
    assert f"what it printed: wq-status {job}.0" in ran.stderr
    assert "  | hello" in desk.run("status", f"{job}.0").stdout


@pytest.mark.parametrize(
    ("command", "code"),
    [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137), ("/nonexistent/program", 127)],
)
def test_the_exit_code_of_a_single_task_can_be_passed_on(
    desk: Desk, command: str, code: int
) -> None:
    ran = desk.run("submit", "--pass-exit-code", "--", command)
    assert ran.returncode == code


def test_json_is_one_value_with_everything(desk: Desk) -> None:
    at_once = json.loads(desk.run("submit", "--json", "--array", "2", "--", "true").stdout)
    assert at_once == {"schema": "wqueue.submit/1", "job": at_once["job"], "tasks": 2}
    ran = desk.run("submit", "--json", "--wait", "--array", "2", "--", "exit {}")
    waited = json.loads(ran.stdout)
    assert ran.returncode == 1
    assert waited["jobs"][0]["succeeded"] == 1
    assert [failure["task"] for failure in waited["failures"]] == [f"{waited['job']}.1"]


def test_progress_is_lines_where_there_is_no_terminal(desk: Desk) -> None:
    ran = desk.run("submit", "--progress", "--array", "4", "--", "true")
    assert ran.returncode == 0
    assert "4 of 4 tasks ended (100 %)" in ran.stderr
    assert "\x1b" not in ran.stderr


def test_progress_is_a_bar_on_a_terminal(desk: Desk) -> None:
    drawn = desk.on_terminal("submit", "--progress", "--array", "4", "--", "true")
    assert "4/4" in drawn
    assert "100%" in drawn


def test_a_large_output_of_a_task_is_shown_by_its_end(desk: Desk) -> None:
    job, _ = desk.submit_and_wait("--", "seq 100000 >&2; exit 1")
    shown = desk.run("status", f"{job}.0").stdout
    assert shown.rstrip().endswith("  | 99999\n  | 100000")
