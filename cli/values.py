"""What the tasks of `--each-line` and `--array` differ in, and lists of files: reading them."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from wqueue.cli.indexes import parse_array
from wqueue.protocol.errors import UsageError
from wqueue.protocol.template import has_placeholder

STDIN = "-"


class Values(NamedTuple):
    """The values of an array: `items`, or without items `length` numbers from `start` by `step`."""

    items: list[bytes] | None = None
    length: int = 0
    start: int = 0
    step: int = 1

    def arguments(self) -> dict[str, Any]:
        """Give them as Client.submit_array takes them."""
        if self.items is not None:
            return {"values": self.items}
        return {"count": self.length, "start": self.start, "step": self.step}


def read_values(each_line: str | None, array: str | None, *, is_null: bool) -> Values | None:
    """Say what tasks differ in, or None for a single task."""
    if is_null and each_line is None:
        raise UsageError("--null says how --each-line is to be read; give both")
    if each_line is not None and array is not None:
        raise UsageError("give --each-line or --array, not both")
    if each_line is not None:
        return Values(file_lines(each_line, "--each-line", b"\0" if is_null else b"\n"))
    if array is None:
        return None
    start, step, length = parse_array(array)
    return Values(None, length, start, step)


def file_lines(name: str, option: str, end: bytes = b"\n") -> list[bytes]:
    """Read the lines of a file, or of stdin for "-"; empty ones are left out.

    Lines of text may end as on Windows. Raises UsageError, also when there are none.
    """
    try:
        content = sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {name} for {option}: {error.strerror}") from None
    lines = split_lines(content, end)
    if not lines:
        where = "stdin" if name == STDIN else name
        raise UsageError(f"{option}: there are no lines in {where}")
    return lines


def split_lines(content: bytes, end: bytes = b"\n") -> list[bytes]:
    """Split content into its lines; empty ones are left out."""
    lines = content.split(end)
    if end == b"\n":
        lines = [line.removesuffix(b"\r") for line in lines]
    return [line for line in lines if line]


def environment(given: Sequence[str], environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Read NAME=VALUE, or NAME for the value that it has here."""
    chosen = {}
    for entry in given:
        name, equals, value = entry.partition("=")
        if not equals:
            if name not in environ:
                raise UsageError(f"--env {name}: it is not set here; write --env {name}=VALUE")
            value = environ[name]
        chosen[name] = value
    return chosen


def with_value(words: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Add the value to a command of --each-line that nowhere says where it belongs.

    `templates` are the other places where a placeholder may stand.
    """
    if any(has_placeholder(os.fsencode(text)) for text in (*words, *templates)):
        return list(words)
    if len(words) == 1:
        return [f"{words[0]} {{}}"]
    return [*words, "{}"]
