import io
import json
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wqueue.cli.output import (
    Column,
    cut_middle,
    may_colour,
    pairs,
    print_json,
    print_lines,
    table,
    text_width,
)
from wqueue.cli.views import JOB_COLUMNS, QUEUE_COLUMNS, TASK_COLUMNS, WORKER_COLUMNS, with_use

COLUMNS = (
    Column("JOB", "job", is_number=True),
    Column("NAME", "name", cut_to=8),
    Column("STATE", "state", is_state=True),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def plain_table(*rows: dict[str, Any], width: int = 80) -> list[str]:
    return [click.unstyle(line) for line in table(COLUMNS, rows, width)]


def test_numbers_are_aligned_right_and_words_left() -> None:
    rows = {"job": 7, "name": "a", "state": "done"}, {"job": 1234, "name": "long", "state": "gone"}
    assert plain_table(*rows) == [
        " JOB  NAME  STATE",
        "   7  a     done",
        "1234  long  gone",
    ]


def test_what_is_not_known_is_a_dash() -> None:
    assert plain_table({"job": None, "name": "", "state": "done"})[1] == "  -  -     done"


def test_a_table_without_rows_has_its_titles() -> None:
    assert plain_table() == ["JOB  NAME  STATE"]


def test_a_long_name_is_cut_in_the_middle_to_fit() -> None:
    lines = plain_table({"job": 1, "name": "first" + "x" * 100 + "last", "state": "done"}, width=30)
    assert max(map(len, lines)) == 30
    assert lines[1].split()[1].startswith("first")
    assert lines[1].split()[1].endswith("last")


def test_a_row_stays_one_line_whatever_its_name_holds() -> None:
    lines = plain_table({"job": 1, "name": "a\nb\x1b[31m", "state": "done"})
    assert len(lines) == 2
    assert r"a\nb\x1b[31m" in lines[1]


def test_wide_characters_count_as_two_columns() -> None:
    assert text_width("日本") == 4
    assert text_width("e\u0301") == 1
    first, second = plain_table(
        {"job": 1, "name": "日本", "state": "done"}, {"job": 1, "name": "abcd", "state": "done"}
    )[1:]
    assert text_width(first) == text_width(second)


def test_a_state_has_its_colour_and_the_title_is_bold() -> None:
    title, line = table(COLUMNS, [{"job": 1, "name": "a", "state": "failed"}], 80)
    assert click.style("failed", fg="red") in line
    assert click.style("NAME", bold=True) in title


@given(st.text(max_size=60), st.integers(1, 40))
def test_a_cut_text_never_takes_more_than_its_width(text: str, width: int) -> None:
    assert text_width(cut_middle(text, width)) <= max(width, 0)
    if text_width(text) <= width:
        assert cut_middle(text, width) == text


BIG = {
    "project": "a-project-with-a-long-name" * 3,
    "host": "node1234.cluster.example.org",
    "port": 65535,
    "job": 12345,
    "state": "retrieving",
    "name": "a name that goes on and on and on",
    "tasks": 1_000_000,
    "waiting": 999_999,
    "running": 99_999,
    "complete": 1_000_000,
    "completed": 1_000_000,
    "workers": 5000,
    "failed": 1000,
    "command": "python3 simulate.py --with a --long list --of options",
    "task": "12345.999999",
    "priority": 10.0,
    "cores": 0.125,
    "memory_mb": 100_000,
    "disk_mb": 100_000,
    "gpus": 8,
    "worker": 4321,
    "address": "tcp://[2001:db8:85a3::8a2e:370:7334]:65535",
    "committed": {"cores": 127.5, "memory_mb": 500_000, "disk_mb": 500_000, "gpus": 8},
    "total": {"cores": 128, "memory_mb": 600_000, "disk_mb": 9_000_000, "gpus": 8},
}


@pytest.mark.parametrize(
    "columns",
    [QUEUE_COLUMNS, JOB_COLUMNS, TASK_COLUMNS, WORKER_COLUMNS],
    ids=["queue", "jobs", "tasks", "workers"],
)
def test_every_listing_fits_80_columns_with_large_numbers(columns: tuple[Column, ...]) -> None:
    lines = [click.unstyle(line) for line in table(columns, [with_use(BIG)], 80)]
    assert max(map(len, lines)) <= 80


def test_pairs_are_aligned_and_cut() -> None:
    lines = pairs([("Job", "7"), ("Command", "x" * 200)], 40)
    assert lines[0] == "Job      7"
    assert len(lines[1]) == 40


def test_colours_are_for_terminals_without_no_color() -> None:
    assert may_colour(Terminal(), {})
    assert may_colour(Terminal(), {"NO_COLOR": ""})
    assert not may_colour(Terminal(), {"NO_COLOR": "1"})
    assert not may_colour(Terminal(), {"TERM": "dumb"})
    assert not may_colour(io.StringIO(), {})


def test_piped_lines_hold_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    print_lines([click.style("done", fg="green")])
    assert capsys.readouterr().out == "done\n"


def test_json_is_one_value_that_names_its_schema(capsys: pytest.CaptureFixture[str]) -> None:
    print_json("status", {"jobs": [], "text": "\udc80é"})
    value = json.loads(capsys.readouterr().out)
    assert value["schema"] == "wqueue.status/1"


def test_a_narrow_character_set_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    print_lines(["é"])
    assert raw.getvalue() == b"\\xe9\n"
