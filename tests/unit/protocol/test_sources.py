"""Sources name a file in a Get."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wqueue.protocol.errors import RemoteProtocolError
from wqueue.protocol.sources import (
    AttemptOutput,
    Content,
    TaskOutput,
    pack_source,
    parse_source,
)

SOURCES = st.one_of(
    st.builds(Content, st.binary(min_size=32, max_size=32)),
    st.builds(AttemptOutput, st.binary(min_size=36, max_size=36), st.integers(0, 2**16 - 1)),
    st.builds(
        TaskOutput,
        st.binary(min_size=16, max_size=16),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**16 - 1),
    ),
)


@given(SOURCES)
def test_a_source_is_read_as_it_was_written(source: Content | AttemptOutput | TaskOutput) -> None:
    assert parse_source(pack_source(source)) == source


def test_sources_lie_on_the_wire_as_the_specification_says() -> None:
    assert pack_source(Content(b"x" * 32)) == b"d" + b"x" * 32
    assert pack_source(AttemptOutput(b"y" * 36, 258)) == b"o" + b"y" * 36 + b"\1\2"
    assert pack_source(TaskOutput(b"z" * 16, 1, 2)) == b"r" + b"z" * 16 + bytes(7) + b"\1\0\2"


@pytest.mark.parametrize(
    "source", [b"", b"d", b"o" + bytes(32), b"x" + bytes(32), b"r" + bytes(27)]
)
def test_anything_else_names_no_file(source: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="names no file"):
        parse_source(source)
