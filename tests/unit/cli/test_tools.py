"""What every tool does before it talks to a manager: help, versions, and refusals."""

import pytest
from click.testing import CliRunner

from wqueue._version import __version__
from wqueue.cli import cancel, control, status, submit, wait
from wqueue.cli.options import Place
from wqueue.cli.task_options import Described, task_from
from wqueue.protocol.errors import UsageError
from wqueue.tasks import InputFile, OutputFile

TOOLS = {
    "wq-submit": submit.command,
    "wq-wait": wait.command,
    "wq-status": status.command,
    "wq-cancel": cancel.command,
    "wq-control": control.command,
}


@pytest.mark.parametrize("name", TOOLS)
def test_help_is_there_and_fits_80_columns(name: str) -> None:
    result = CliRunner().invoke(TOOLS[name], ["--help"], terminal_width=80)
    assert result.exit_code == 0
    assert max(len(line) for line in result.output.splitlines()) <= 80


@pytest.mark.parametrize("name", [name for name in TOOLS if name != "wq-control"])
def test_help_ends_with_examples_that_name_the_tool(name: str) -> None:
    result = CliRunner().invoke(TOOLS[name], ["--help"])
    _, _, examples = result.output.partition("\nExamples:\n")
    assert examples.count(name) >= 2


@pytest.mark.parametrize("name", TOOLS)
def test_the_version_is_that_of_the_distribution(name: str) -> None:
    result = CliRunner().invoke(TOOLS[name], ["--version"], prog_name=name)
    assert result.output == f"{name} (wqueue) {__version__}\n"


def test_one_word_is_a_shell_line_and_several_are_an_argument_vector() -> None:
    assert task_from(["a | b"], Described()).command == "a | b"
    assert task_from(["a", "|", "b"], Described()).command == ["a", "|", "b"]


def test_options_become_the_task() -> None:
    described = Described(
        inputs=["a", "b=c"], outputs=["d=e"], env=["A=1"], cores=0.5, memory=10, max_retries=2
    )
    task = task_from(["x"], described)
    assert task.input_list() == [InputFile(b"a", None), InputFile(b"b", b"c")]
    assert task.output_list() == [OutputFile(b"e", b"d")]
    assert (task.env, task.cores, task.memory_mb, task.max_retries) == ({"A": "1"}, 0.5, 10, 2)


def test_the_next_command_names_the_same_manager() -> None:
    assert Place().command("wq-wait", 7) == "wq-wait 7"
    assert Place(name="a b").command("wq-wait", 7) == "wq-wait -M 'a b' 7"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--"],
        ["--cores", "two", "--", "x"],
        ["--memory", "4X", "--", "x"],
        ["--gpus", "-1", "--", "x"],
        ["--max-retries", "-1", "--", "x"],
        ["--priority", "high", "--", "x"],
        ["--nonsense", "--", "x"],
        ["--name", "\udc80", "--", "x"],
    ],
)
def test_what_click_refuses_has_exit_code_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(submit.command, arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--array", "9-1", "--", "x"], "backwards"),
        (["--array", "x", "--", "x"], "no array"),
        (["--array", "3", "--each-line", "f", "--", "x"], "not both"),
        (["--null", "--", "x"], "--each-line"),
        (["--each-line", "/nonexistent", "--", "x"], "cannot read"),
        (["--input-list", "/nonexistent", "--", "x"], "cannot read"),
        (["--each-line", "-", "--input-list", "-", "--", "x"], "both read stdin"),
        (["--env", "WQ_TEST_NOT_SET", "--", "x"], "not set here"),
        (["--env", "=x", "--", "x"], "environment variable"),
        (["--input", "=x", "--", "x"], "LOCAL"),
        (["--output", "x=", "--", "x"], "LOCAL"),
        (["--priority", "nan", "--", "x"], "finite"),
        (["--array", "3", "--pass-exit-code", "--", "x"], "single task"),
        (["--", " "], "empty"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_manager_hears_of_it(
    arguments: list[str], why: str
) -> None:
    result = CliRunner().invoke(submit.command, arguments)
    assert isinstance(result.exception, UsageError)
    assert why in str(result.exception)


@pytest.mark.parametrize("name", ["wq-wait", "wq-cancel", "wq-status"])
def test_a_bad_selector_is_refused_before_the_manager_hears_of_it(name: str) -> None:
    result = CliRunner().invoke(TOOLS[name], ["7.x"])
    assert isinstance(result.exception, UsageError)


def test_wait_is_for_whole_jobs() -> None:
    result = CliRunner().invoke(wait.command, ["7.3"])
    assert "whole jobs" in str(result.exception)
