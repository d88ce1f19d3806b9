"""A download asks within its window, takes chunks in any order, and ends when all is written."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wqueue.protocol.limits import CHUNK_BYTES, WINDOW_BYTES
from wqueue.protocol.messages import Data, Get
from wqueue.protocol.transfer import Download, readable

SOURCE = b"d" + bytes(32)
CHUNKS = WINDOW_BYTES // CHUNK_BYTES


def test_an_empty_file_is_complete_from_the_start() -> None:
    download = Download(1, SOURCE, 0)
    assert download.is_complete
    assert download.next_gets() == []


def test_a_small_file_takes_one_request() -> None:
    download = Download(1, SOURCE, 10)
    assert download.next_gets() == [Get(1, SOURCE, 0, 10)]
    assert download.next_gets() == []
    assert download.receive(Data(1, 0), 10) == "write"
    assert not download.is_complete
    download.wrote(0)
    assert download.is_complete


def test_credit_comes_back_when_a_chunk_is_written_not_when_it_arrives() -> None:
    download = Download(1, SOURCE, 10 * WINDOW_BYTES)
    assert len(download.next_gets()) == CHUNKS
    assert download.receive(Data(1, 0), CHUNK_BYTES) == "write"
    assert download.next_gets() == []
    assert download.outstanding == WINDOW_BYTES
    download.wrote(0)
    assert download.outstanding == WINDOW_BYTES - CHUNK_BYTES
    assert download.next_gets() == [Get(1, SOURCE, WINDOW_BYTES, CHUNK_BYTES)]


def test_the_pool_bounds_what_is_asked_for() -> None:
    download = Download(1, SOURCE, WINDOW_BYTES)
    assert download.next_gets(credit=CHUNK_BYTES - 1) == []
    assert len(download.next_gets(credit=2 * CHUNK_BYTES + 5)) == 2


def test_a_chunk_that_was_not_asked_for_or_came_before_is_ignored() -> None:
    download = Download(1, SOURCE, 10)
    assert download.receive(Data(1, 0), 10) == "ignore"
    download.next_gets()
    assert download.receive(Data(1, 5), 5) == "ignore"
    assert download.receive(Data(1, 0), 11) == "ignore"
    assert download.receive(Data(1, 0), 10) == "write"
    assert download.receive(Data(1, 0), 10) == "ignore"
    download.wrote(0)
    assert download.receive(Data(1, 0), 10) == "ignore"


@pytest.mark.parametrize("count", [0, 9])
def test_a_file_shorter_than_promised_is_noticed(count: int) -> None:
    download = Download(1, SOURCE, 10)
    download.next_gets()
    assert download.receive(Data(1, 0), count) == "short"
    assert not download.is_complete


def test_after_a_lost_link_only_what_did_not_come_is_asked_for_again() -> None:
    download = Download(1, SOURCE, WINDOW_BYTES + 1)
    gets = download.next_gets()
    assert download.receive(Data(1, CHUNK_BYTES), CHUNK_BYTES) == "write"
    download.restart()
    again = download.next_gets()
    assert again == [get for get in gets if get.offset != CHUNK_BYTES]
    download.wrote(CHUNK_BYTES)
    assert download.next_gets() == [Get(1, SOURCE, WINDOW_BYTES, 1)]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 3 * WINDOW_BYTES), st.randoms(use_true_random=False))
def test_any_order_and_any_loss_of_links_ends_with_the_whole_file(
    size: int, dice: random.Random
) -> None:
    download = Download(1, SOURCE, size)
    held: list[Get] = []
    arrived: list[int] = []
    covered: dict[int, int] = {}
    for _ in range(1000):
        if download.is_complete:
            break
        held += download.next_gets()
        assert download.outstanding <= WINDOW_BYTES
        step = dice.random()
        if step < 0.05:
            held.clear()
            download.restart()
        elif held and step < 0.6:
            get = held.pop(dice.randrange(len(held)))
            if download.receive(Data(1, get.offset), readable(get, size)) == "write":
                assert get.offset not in covered
                covered[get.offset] = get.length
                arrived.append(get.offset)
        elif arrived:
            download.wrote(arrived.pop())
    assert download.is_complete
    assert sum(covered.values()) == size
    assert download.outstanding == 0


@pytest.mark.parametrize(
    ("offset", "length", "size", "count"),
    [
        (0, 10, 100, 10),
        (95, 10, 100, 5),
        (100, 10, 100, 0),
        (500, 10, 100, 0),
        (0, 2**32 - 1, 2**30, CHUNK_BYTES),
    ],
)
def test_a_holder_sends_what_there_is_and_no_more_than_a_chunk(
    offset: int, length: int, size: int, count: int
) -> None:
    assert readable(Get(1, SOURCE, offset, length), size) == count
