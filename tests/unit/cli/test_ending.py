import click
import pytest

from wqueue.cli.ending import check_single, ending_lines, exit_code_of, passed_exit_code
from wqueue.cli.options import Place
from wqueue.job import Summary
from wqueue.protocol.errors import UsageError
from wqueue.protocol.messages import TaskRecord
from wqueue.protocol.outcomes import (
    CANCELED,
    EXIT_NONZERO,
    NOT_EXECUTABLE,
    NOT_FOUND,
    OUTPUT_MISSING,
    SIGNAL,
    SUCCEEDED,
)


def ended(count: int, **how: int) -> Summary:
    return Summary(7, count, **how, is_ended=True)


def test_the_exit_code_is_0_only_when_every_task_succeeded() -> None:
    assert exit_code_of([ended(2, succeeded=2), ended(1, succeeded=1)]) == 0
    assert exit_code_of([ended(2, succeeded=2), ended(1, failed=1)]) == 1
    assert exit_code_of([ended(2, succeeded=1, canceled=1)]) == 1
    assert exit_code_of([Summary(7, 2, succeeded=2, is_ended=False)]) == 1
    assert exit_code_of([]) == 0


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (TaskRecord(7, 0, 1, SUCCEEDED, 0), 0),
        (TaskRecord(7, 0, 1, EXIT_NONZERO, 42), 42),
        (TaskRecord(7, 0, 1, SIGNAL, signal=9), 137),
        (TaskRecord(7, 0, 1, NOT_FOUND), 127),
        (TaskRecord(7, 0, 1, NOT_EXECUTABLE), 126),
        (TaskRecord(7, 0, 1, OUTPUT_MISSING, 0), 1),
        (TaskRecord(7, 0, 1, CANCELED), 1),
    ],
)
def test_a_task_s_own_exit_code_is_passed_on_as_a_shell_would(
    record: TaskRecord, code: int
) -> None:
    assert passed_exit_code(record) == code


def test_only_a_single_task_has_an_exit_code_to_pass_on() -> None:
    check_single([1])
    with pytest.raises(UsageError, match="2 of them"):
        check_single([1, 1])


def test_the_end_says_how_many_and_where_to_look() -> None:
    place = Place(state_dir="/tmp/a b")
    lines = [click.unstyle(line) for line in ending_lines([ended(1, succeeded=1)], [], place)]
    assert lines == [
        "job 7: 1 task: 1 succeeded",
        "what it printed: wq-status --state-dir '/tmp/a b' 7.0",
    ]
    many = ending_lines([ended(5, succeeded=3, canceled=2)], [], Place())
    assert many == ["job 7: 5 tasks: 3 succeeded, 2 canceled"]
