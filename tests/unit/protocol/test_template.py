"""Placeholders are those of GNU parallel, and no value can leave its word of a shell line."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wqueue.protocol.template import expand, has_placeholder, quote_bytes


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        (b"{}", b"dir/a.tar.gz"),
        (b"{1}", b"dir/a.tar.gz"),
        (b"{.}", b"dir/a.tar"),
        (b"{/}", b"a.tar.gz"),
        (b"{//}", b"dir"),
        (b"{/.}", b"a.tar"),
        (b"{#}", b"12"),
        (b"{} {#} {}", b"dir/a.tar.gz 12 dir/a.tar.gz"),
        (b"no braces", b"no braces"),
        (b"{2} {x} {", b"{2} {x} {"),
        (b"{{}}", b"{dir/a.tar.gz}"),
    ],
)
def test_placeholders_are_filled(template: bytes, filled: bytes) -> None:
    assert expand(template, b"dir/a.tar.gz", 12) == filled
    assert has_placeholder(template) == (template != filled)


@pytest.mark.parametrize(
    ("value", "folder", "base", "without"),
    [
        (b"a", b".", b"a", b"a"),
        (b"/a", b"/", b"a", b"/a"),
        (b"d.x/a", b"d.x", b"a", b"d.x/a"),
        (b".profile", b".", b".profile", b".profile"),
        (b"d/.profile", b"d", b".profile", b"d/.profile"),
        (b"d/", b"d", b"", b"d/"),
        (b"", b".", b"", b""),
    ],
)
def test_parts_of_values_at_the_edge(
    value: bytes, folder: bytes, base: bytes, without: bytes
) -> None:
    assert expand(b"{//}|{/}|{.}", value, 0) == b"|".join((folder, base, without))


def test_a_value_is_not_filled_in_again() -> None:
    assert expand(b"{}", b"{#}", 7) == b"{#}"


@given(st.binary(max_size=30).filter(lambda value: b"\0" not in value))
def test_a_quoted_value_is_one_word(value: bytes) -> None:
    line = expand(b"echo {}", value, 0, quote=True).decode("utf-8", "surrogateescape")
    assert shlex.split(line) == ["echo", value.decode("utf-8", "surrogateescape")]


def test_quoting_keeps_bytes_that_are_no_text() -> None:
    assert quote_bytes(b"a \xff") == b"'a \xff'"
