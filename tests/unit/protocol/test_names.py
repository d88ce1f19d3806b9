"""Remote names: which may be used in a sandbox, and how names are shown."""

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wqueue.protocol.limits import NAME_MAX_BYTES
from wqueue.protocol.names import normalized, show, why_unsafe


@pytest.mark.parametrize("name", [b"a", b"a/b", b"./a", b"a//b", b"..a", b"a..", b"\xff", b"a/."])
def test_relative_names_are_safe(name: bytes) -> None:
    assert why_unsafe(name) == ""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"", "empty"),
        (b"/etc/passwd", "absolute"),
        (b"../a", "leaves"),
        (b"a/../../b", "leaves"),
        (b"a/..", "leaves"),
        (b"..", "leaves"),
        (b"a\0b", "NUL"),
        (b".", "itself"),
        (b"./.", "itself"),
        (b"a" * (NAME_MAX_BYTES + 1), "4096 are allowed"),
    ],
)
def test_names_that_leave_the_sandbox_are_not(name: bytes, reason: str) -> None:
    assert reason in why_unsafe(name)


@given(st.lists(st.sampled_from([b"a", b".", b"..", b"", b"b\xff"]), max_size=6).map(b"/".join))
def test_a_safe_name_stays_inside(name: bytes) -> None:
    if not why_unsafe(name):
        inside = posixpath.normpath(posixpath.join(b"/box", name))
        assert inside == b"/box/" + normalized(name)


def test_names_are_shown_on_one_line() -> None:
    assert show("a-\u00e9.txt".encode()) == "a-\u00e9.txt"
    assert show(b"a\nb\xff\x1b") == "a\\nb\\xff\\x1b"
