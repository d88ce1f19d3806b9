"""Errors become a line or two and an exit code, whatever tool they come from."""

import click
import pytest

from wqueue.cli.run import exit_code_of
from wqueue.protocol import errors


def tool(error: BaseException | None = None, code: int | None = None) -> click.Command:
    @click.command()
    def command() -> int | None:
        if error is not None:
            raise error
        return code

    return command


def run(error: BaseException | None = None, *, code: int | None = None) -> int:
    return exit_code_of(tool(error, code), "wq-x", [])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.TaskError("x"), 1),
        (errors.UsageError("x"), 2),
        (errors.ManagerUnreachable("x"), 3),
        (errors.NotAuthorized("x"), 4),
        (errors.WaitTimedOut("x"), 5),
        (errors.Draining("x"), 6),
        (errors.VersionMismatch("x"), 7),
        (errors.StoreError("x"), 8),
    ],
)
def test_an_error_of_ours_is_one_line_and_its_exit_code(
    error: errors.WqueueError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(error) == code
    assert capsys.readouterr() == ("", "wq-x: x\n")


def test_success_is_zero_and_a_tool_may_say_otherwise() -> None:
    assert run() == 0
    assert run(code=5) == 5


def test_wrong_usage_is_two_and_says_where_help_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(tool(), "wq-x", ["--nonsense"]) == 2
    assert "--nonsense" in capsys.readouterr().err
    assert run(click.BadParameter("no")) == 2
    assert "Try: wq-x --help" in capsys.readouterr().err


def test_an_interrupt_is_130() -> None:
    assert run(KeyboardInterrupt()) == 130


def test_a_bug_is_one_line_and_a_traceback_only_when_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WQ_DEBUG", raising=False)
    assert run(ValueError("broken\nin two lines")) == 70
    said = capsys.readouterr().err
    assert said == "wq-x: ValueError: broken (this is a bug; WQ_DEBUG=1 shows where)\n"
    monkeypatch.setenv("WQ_DEBUG", "1")
    assert run(ValueError("broken")) == 70
    assert "Traceback" in capsys.readouterr().err
