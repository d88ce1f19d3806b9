"""Resources: what fits, what lacks, and that taking and giving back loses nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wqueue.protocol.resources import MILLI, Resources, Room

TOTAL = Resources(4 * MILLI, 1000, 2000, 2, {"licence": 3})

AMOUNTS = st.builds(
    Resources,
    st.integers(0, 5000),
    st.integers(0, 1200),
    st.integers(0, 2500),
    st.integers(0, 3),
    st.dictionaries(st.sampled_from(["licence", "port"]), st.integers(0, 4)),
)


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (Resources(5 * MILLI), "5 cores (there: 4)"),
        (Resources(500, 1001), "1001 MB of memory (there: 1000)"),
        (Resources(500, 0, 2001), "2001 MB of disk (there: 2000)"),
        (Resources(500, 0, 0, 3), "3 gpus (there: 2)"),
        (Resources(500, named={"licence": 4}), "4 licence (there: 3)"),
        (Resources(500, named={"port": 1}), "1 port (there: 0)"),
    ],
)
def test_what_does_not_fit_is_named(wanted: Resources, text: str) -> None:
    assert not wanted.fits_in(TOTAL)
    assert not Room(TOTAL).fits(wanted)
    assert wanted.lacking_in(TOTAL) == text


def test_everything_fits_into_itself() -> None:
    assert TOTAL.fits_in(TOTAL)
    assert Room(TOTAL).fits(TOTAL)
    assert TOTAL.lacking_in(TOTAL) == ""


def test_the_default_is_one_core() -> None:
    assert Resources() == Resources(MILLI, 0, 0, 0, {})


@given(AMOUNTS)
def test_all_ways_of_asking_agree(wanted: Resources) -> None:
    assert wanted.fits_in(TOTAL) == Room(TOTAL).fits(wanted) == (not wanted.lacking_in(TOTAL))


@given(st.lists(AMOUNTS, max_size=6))
def test_what_was_taken_comes_back(amounts: list[Resources]) -> None:
    room = Room(TOTAL)
    taken = []
    for amount in amounts:
        if room.fits(amount):
            room.take(amount)
            taken.append(amount)
            assert all(left >= 0 for left in (room.cores_milli, room.memory_mb, room.disk_mb))
    for amount in taken:
        room.give_back(amount)
    left = room.left()
    assert left.named.pop("port", 0) == 0
    assert left == TOTAL


@pytest.mark.parametrize(
    "amount", [Resources(5000), Resources(0, 1001), Resources(0, 0, 2001), Resources(0, 0, 0, 3)]
)
def test_taking_what_is_not_there_is_a_bug(amount: Resources) -> None:
    with pytest.raises(AssertionError, match="left"):
        Room(TOTAL).take(amount)


def test_giving_back_what_was_not_taken_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="given back"):
        Room(TOTAL).give_back(Resources())


def test_a_room_does_not_change_the_total() -> None:
    room = Room(TOTAL)
    room.take(Resources(1000, named={"licence": 2}))
    assert TOTAL.named == {"licence": 3}
    assert room.left() == Resources(3000, 1000, 2000, 2, {"licence": 1})
