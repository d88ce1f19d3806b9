import click

from wqueue.cli.failure import Failure, failure_fields, failure_lines, last_lines
from wqueue.protocol.messages import TaskRecord
from wqueue.protocol.outcomes import EXIT_NONZERO


def failure(index: int, *tail: str) -> Failure:
    return Failure(TaskRecord(7, index, 1, EXIT_NONZERO, exit_code=3, host="node1"), list(tail))


def lines(failures: list[Failure], failed: int) -> list[str]:
    return [click.unstyle(line) for line in failure_lines(failures, failed)]


def test_a_failure_says_which_task_where_how_and_its_last_words() -> None:
    assert lines([failure(3, "cannot open x", "giving up")], 1) == [
        "task 7.3 failed on node1: exit code 3 (exit_nonzero)",
        "  | cannot open x",
        "  | giving up",
    ]


def test_failures_that_are_not_shown_are_counted() -> None:
    assert lines([failure(i) for i in range(5)], 12)[-1] == "12 tasks failed (5 shown)"
    assert lines([failure(1), failure(2)], 2)[-1] == "2 tasks failed"
    assert lines([], 0) == []


def test_last_lines_are_the_end_without_empty_ones_and_without_control_characters() -> None:
    content = b"1\n2\n3\n4\n\n5\n6\r\n\x1b[31m\xff7\tx\n\n"
    assert last_lines(content) == ["3", "4", "5", "6", "\\x1b[31m\\xff7      x"]
    assert last_lines(b"") == []


def test_a_huge_line_is_cut_to_its_end() -> None:
    (line,) = last_lines(b"x" * 1_000_000 + b"end")
    assert line.endswith("xend")
    assert len(line) <= 16 * 1024


def test_failures_as_values_hold_the_record_and_the_tail() -> None:
    (fields,) = failure_fields([failure(3, "last words")])
    assert fields["task"] == "7.3"
    assert fields["stderr_tail"] == ["last words"]
