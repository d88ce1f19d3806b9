"""Attempt ids: packed, taken apart, shown."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wqueue.protocol.attempts import ATTEMPT_ID_BYTES, pack_attempt, show_attempt, unpack_attempt


@given(
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
)
def test_an_id_gives_its_parts_back(uid: bytes, index: int, epoch: int, number: int) -> None:
    attempt = pack_attempt(uid, index, epoch, number)
    assert len(attempt) == ATTEMPT_ID_BYTES == 36
    assert unpack_attempt(attempt) == (uid, index, epoch, number)


def test_an_id_lies_on_the_wire_as_the_specification_says() -> None:
    attempt = pack_attempt(b"u" * 16, 1, 2, 3)
    assert attempt == b"u" * 16 + bytes(7) + b"\1" + bytes(3) + b"\2" + bytes(7) + b"\3"


def test_an_id_is_shown_on_one_line() -> None:
    assert show_attempt(pack_attempt(b"\xab" * 16, 5, 2, 9)) == "abababab.5/2-9"
    assert show_attempt(b"short") == "malformed attempt id (5 bytes)"


def test_what_has_another_length_is_no_id() -> None:
    with pytest.raises(struct.error):
        unpack_attempt(b"short")
