"""Tables and JSON from the same rows.

A view is a list of rows, each a dict of plain values (see wqueue.cli.views). As JSON the rows are
printed as they are, inside one object that names its schema. As a table a Column says which value
it shows and how. Tables fit the width of the terminal, 80 columns where there is none; what does
not fit is cut in the middle, because names differ at their ends.
"""

import json
import os
import shutil
import signal
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, TextIO

import click

from wqueue.protocol.errors import UsageError

Row = Mapping[str, Any]

STATE_COLOURS = {
    "blocked": "cyan",
    "held": "cyan",
    "ready": "cyan",
    "waiting": "cyan",
    "assigned": "cyan",
    "running": "yellow",
    "retrieving": "yellow",
    "unknown": "blue",
    "done": "green",
    "failed": "red",
    "canceled": "magenta",
    "live": "green",
    "away": "blue",
    "gone": "red",
}
"""One colour per state, everywhere."""

GAP = "  "
"""Between columns; where the width is short, half of it."""

ELLIPSIS = "..."


def plain(value: Any) -> str:
    """Show a value that needs no more; nothing for what is not known."""
    return "-" if value is None or value == "" else str(value)


class Column(NamedTuple):
    """One column: its title, the row's value it shows, and how.

    A column with `cut_to` > 0 may be cut, down to that width. `is_state` gives it its colour.
    """

    title: str
    key: str
    show: Callable[[Any], str] = plain
    is_number: bool = False
    cut_to: int = 0
    is_state: bool = False


def table(columns: Sequence[Column], rows: Sequence[Row], width: int) -> list[str]:
    """Lay out a table that is at most `width` wide, as far as its columns may be cut."""
    cells = [[one_line(column.show(row.get(column.key))) for column in columns] for row in rows]
    widths = [
        max([text_width(column.title), *(text_width(line[i]) for line in cells)])
        for i, column in enumerate(columns)
    ]
    gaps = len(columns) - 1
    _shrink(widths, columns, width - len(GAP) * gaps)
    gap = GAP if sum(widths) + len(GAP) * gaps <= width else " "
    titles = [column.title for column in columns]
    lines = [_line(columns, widths, titles, is_title=True)]
    lines += [_line(columns, widths, line) for line in cells]
    return [gap.join(line).rstrip() for line in lines]


def pairs(rows: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Lay out names and values, one pair a line; the value of State gets its colour."""
    name_width = max((text_width(name) for name, _ in rows), default=0)
    room = max(20, width - name_width - len(GAP))
    return [
        f"{name}{' ' * (name_width - text_width(name))}{GAP}"
        + coloured(cut_middle(one_line(value), room), value if name == "State" else "")
        for name, value in rows
    ]


def print_json(tool: str, values: Row) -> None:
    """Print exactly one JSON value, which says what schema it has."""
    print_lines([json.dumps({"schema": f"wqueue.{tool}/1", **values}, ensure_ascii=True, indent=1)])


def print_lines(lines: Iterable[str]) -> None:
    """Print lines to stdout, with their colours only where colours are welcome."""
    _write(sys.stdout, lines)


def tell(*lines: str) -> None:
    """Say something to a person: stderr, never stdout."""
    _write(sys.stderr, lines)


def _write(stream: TextIO | None, lines: Iterable[str]) -> None:
    if stream is None:  # closed by the caller: nobody is listening
        return
    keep_colours = may_colour(stream)
    encoding = stream.encoding or "ascii"
    try:
        for line in lines:
            text = line if keep_colours else click.unstyle(line)
            # A terminal with a narrow character set gets escapes, never a traceback.
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
    except BrokenPipeError:
        reader_gone()
    except OSError as error:
        _drop_output()
        raise UsageError(f"cannot write to {stream.name}: {error.strerror}") from error


def reader_gone() -> NoReturn:
    """End quietly, as if by SIGPIPE: whoever reads our output has seen enough (`| head`)."""
    _drop_output()
    sys.exit(128 + signal.SIGPIPE)


def _drop_output() -> None:
    # What is still buffered goes nowhere, else the interpreter would complain at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def may_colour(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether colours are welcome there: on a terminal, unless NO_COLOR is set."""
    if environ.get("NO_COLOR") or environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def coloured(text: str, state: str) -> str:
    """Give `text` the colour of a state; other words have none."""
    colour = STATE_COLOURS.get(state)
    return click.style(text, fg=colour) if colour else text


def screen_width() -> int:
    """Width to lay out for: COLUMNS, else the terminal's, else 80."""
    return max(40, shutil.get_terminal_size((80, 24)).columns)


def cut_middle(text: str, width: int) -> str:
    """Shorten `text` to `width` by taking out its middle."""
    if text_width(text) <= width:
        return text
    if width <= len(ELLIPSIS) + 1:
        return _take(text, width)
    head = (width - len(ELLIPSIS) + 1) // 2
    tail = width - len(ELLIPSIS) - head
    return _take(text, head) + ELLIPSIS + _take(text[::-1], tail)[::-1]


def one_line(text: str) -> str:
    """Show control characters as escapes, so that one row stays one line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def text_width(text: str) -> int:
    """Columns that `text` takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(_width_of(c) for c in text)


def _width_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _take(text: str, width: int) -> str:
    taken = 0
    for position, character in enumerate(text):
        taken += _width_of(character)
        if taken > width:
            return text[:position]
    return text


def _shrink(widths: list[int], columns: Sequence[Column], width: int) -> None:
    surplus = sum(widths) - width
    while surplus > 0:
        may_shrink = [i for i, c in enumerate(columns) if c.cut_to and widths[i] > c.cut_to]
        if not may_shrink:
            return
        widest = max(may_shrink, key=lambda i: widths[i])
        others = [widths[i] for i in may_shrink if widths[i] < widths[widest]]
        floor = max([columns[widest].cut_to, *others])
        less = max(1, min(surplus, widths[widest] - floor))
        widths[widest] -= less
        surplus -= less


def _line(
    columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str], is_title: bool = False
) -> list[str]:
    shown = []
    for column, width, cell in zip(columns, widths, cells, strict=True):
        text = cut_middle(cell, width)
        padding = " " * (width - text_width(text))
        if is_title:
            text = click.style(text, bold=True)
        elif column.is_state:
            text = coloured(text, cell)
        shown.append(padding + text if column.is_number else text + padding)
    return shown
