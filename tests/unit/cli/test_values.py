import io
import sys
from pathlib import Path

import pytest

from wqueue.cli.values import Values, environment, file_lines, read_values, split_lines, with_value
from wqueue.protocol.errors import UsageError


def test_each_line_of_a_file_is_a_value(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_bytes(b"a b\n\n'c'\r\n\xff\n\nlast")
    values = read_values(str(file), None, is_null=False)
    assert values == Values([b"a b", b"'c'", b"\xff", b"last"])


def test_null_separated_values_may_hold_newlines() -> None:
    assert split_lines(b"a\nb\0c\r\0", b"\0") == [b"a\nb", b"c\r"]


def test_values_come_from_stdin_for_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x\ny\n")))
    assert file_lines("-", "--each-line") == [b"x", b"y"]


def test_an_array_is_a_range_that_is_not_written_out() -> None:
    values = read_values(None, "1-10:3", is_null=False)
    assert values is not None
    assert values.arguments() == {"count": 4, "start": 1, "step": 3}


def test_without_either_there_is_one_task() -> None:
    assert read_values(None, None, is_null=False) is None


def test_a_file_that_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n\n")
    with pytest.raises(UsageError, match=r"cannot read .*No such file"):
        file_lines(str(tmp_path / "none"), "--each-line")
    with pytest.raises(UsageError, match=r"cannot read .*directory"):
        file_lines(str(tmp_path), "--each-line")
    with pytest.raises(UsageError, match="no lines in"):
        file_lines(str(tmp_path / "empty"), "--each-line")


def test_options_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="not both"):
        read_values("f", "0-9", is_null=False)
    with pytest.raises(UsageError, match="--null"):
        read_values(None, "0-9", is_null=True)


def test_the_environment_takes_values_given_and_values_from_here() -> None:
    assert environment(["A=1", "B=x=y", "C="], {}) == {"A": "1", "B": "x=y", "C": ""}
    assert environment(["HOME"], {"HOME": "/h"}) == {"HOME": "/h"}
    with pytest.raises(UsageError, match="--env NONE: it is not set here"):
        environment(["NONE"], {})


@pytest.mark.parametrize(
    ("words", "templates", "expected"),
    [
        (["wc -l"], [], ["wc -l {}"]),
        (["wc", "-l"], [], ["wc", "-l", "{}"]),
        (["wc -l {/}"], [], ["wc -l {/}"]),
        (["wc", "{}"], [], ["wc", "{}"]),
        (["./all"], ["{}=data"], ["./all"]),
        (["awk {print}"], [], ["awk {print} {}"]),
    ],
)
def test_a_value_without_a_place_goes_to_the_end(
    words: list[str], templates: list[str], expected: list[str]
) -> None:
    assert with_value(words, templates) == expected
