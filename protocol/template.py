"""Placeholders: how one description stands for a million tasks.

The manager stores an array as it was submitted; the worker, and whoever needs a file name, fills
in the placeholders for one task when its turn has come. The rules are those of GNU parallel:

    {}    the value            {/}   without its folders        {//}  its folder ("." if none)
    {.}   without its suffix   {/.}  without folders and suffix {#}   the task's index, from 0
    {1}   the value (first and, so far, only list)

Anything else in braces stays as it is. In a shell line each value is quoted, so that a name with
blanks or quotes stays one word and cannot run anything.
"""

import re
import shlex

_PLACEHOLDER = re.compile(rb"\{(?:|\.|/|//|/\.|#|1)\}")


def expand(template: bytes, value: bytes, index: int, *, quote: bool = False) -> bytes:
    """Fill the placeholders of `template` for the task that has `value` and `index`."""
    if b"{" not in template:
        return template

    def fill(found: "re.Match[bytes]") -> bytes:
        text = _part(found.group()[1:-1], value, index)
        return quote_bytes(text) if quote else text

    return _PLACEHOLDER.sub(fill, template)


def has_placeholder(template: bytes) -> bool:
    """Tell whether filling in would change anything."""
    return _PLACEHOLDER.search(template) is not None


def quote_bytes(text: bytes) -> bytes:
    """Quote `text` as one word of a shell line; it need not be valid UTF-8."""
    return shlex.quote(text.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def _part(which: bytes, value: bytes, index: int) -> bytes:
    if which == b"#":
        return str(index).encode()
    if which in (b"", b"1"):
        return value
    folder, _, base = value.rpartition(b"/")
    if which == b"//":
        return folder or (b"/" if value.startswith(b"/") else b".")
    if which == b"/":
        return base
    stem = _without_suffix(base)
    if which == b"/.":
        return stem
    return value[: len(value) - (len(base) - len(stem))]


def _without_suffix(base: bytes) -> bytes:
    stem, dot, _ = base.rpartition(b".")
    return stem if dot and stem else base
