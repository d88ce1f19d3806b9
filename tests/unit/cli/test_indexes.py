import pytest
from hypothesis import given
from hypothesis import strategies as st

from wqueue.cli.indexes import IndexRange, compress, parse_array
from wqueue.protocol.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0-99", IndexRange(0, 1, 100)),
        ("1-10:3", IndexRange(1, 3, 4)),
        ("1-9:3", IndexRange(1, 3, 3)),
        ("5-5", IndexRange(5, 1, 1)),
        ("7", IndexRange(0, 1, 7)),
        ("0-999999", IndexRange(0, 1, 1_000_000)),
    ],
)
def test_an_array_is_read(text: str, expected: IndexRange) -> None:
    assert parse_array(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no array"),
        ("a-b", "is no array"),
        ("1,2", "is no array"),
        ("-3", "is no array"),
        ("1-10%2", "is no array"),
        ("1-10:", "is no array"),
        ("0", "has no tasks"),
        ("9-1", "write 1-9"),
        ("1-9:0", "step 0"),
        ("0-100000000", "100000001 tasks"),
        ("1-9999999999999999999", "is no array"),
    ],
)
def test_a_bad_array_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_array(text)


def test_indexes_are_compressed_to_ranges() -> None:
    assert compress([]) == ""
    assert compress([3]) == "3"
    assert compress([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"
    assert compress([8, 7, 7]) == "7-8"


def test_what_does_not_fit_is_counted() -> None:
    assert compress([0, 2, 4, 6, 7, 8], parts_max=2) == "0,2 and 4 more"


@given(st.sets(st.integers(0, 200)))
def test_compressed_indexes_can_be_read_back(indexes: set[int]) -> None:
    text = compress(indexes, parts_max=1000)
    back: set[int] = set()
    for part in text.split(",") if text else []:
        first, _, last = part.partition("-")
        back |= set(range(int(first), int(last or first) + 1))
    assert back == indexes
