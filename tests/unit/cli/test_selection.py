from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wqueue.cli.selection import NUMBER_MAX, parse_selector, resolve
from wqueue.protocol.errors import NoSuchTask, UsageError
from wqueue.protocol.messages import JobRange

JOBS = [3, 5, 7, 9]


def ranges(*texts: str) -> list[tuple[int, int, int]]:
    found = resolve([parse_selector(text) for text in texts], JOBS)
    return [(r.job, r.first, r.last) for r in found]


def test_a_job_means_all_its_tasks() -> None:
    assert resolve([parse_selector("7")]) == [JobRange(7)]


def test_a_task_and_ranges_of_tasks_name_their_indexes() -> None:
    assert ranges("7.3") == [(7, 3, 3)]
    assert ranges("7.0-99") == [(7, 0, 99)]
    assert ranges("7.0-3,9") == [(7, 0, 3), (7, 9, 9)]


def test_a_range_of_jobs_means_those_that_exist() -> None:
    assert [r[0] for r in ranges("4-8")] == [5, 7]


def test_last_is_the_newest_job() -> None:
    assert ranges("last") == [(9, 0, NUMBER_MAX)]
    assert ranges("last.2") == [(9, 2, 2)]


def test_all_is_every_job_and_may_be_none() -> None:
    assert [r[0] for r in ranges("all")] == JOBS
    assert resolve([parse_selector("all")], []) == []


def test_what_is_named_twice_is_meant_once() -> None:
    assert ranges("7", "7", "7-7") == [(7, 0, NUMBER_MAX)]


def test_a_range_without_jobs_and_the_last_of_none_say_so() -> None:
    with pytest.raises(NoSuchTask, match="no jobs 100 to 200"):
        resolve([parse_selector("100-200")], JOBS)
    with pytest.raises(NoSuchTask, match="no last job"):
        resolve([parse_selector("last")], [])


@pytest.mark.parametrize(
    "text",
    ["", "x", "7.", ".3", "7.x", "-1", "7-", "7.1-", "7.-1", "3-5.1", "7..3", "7,8", "all.3"],
)
def test_what_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="names no job or task"):
        parse_selector(text)


@pytest.mark.parametrize("text", ["LAST", "7.3 ", "\u0667", "9" * 20, str(2**63), "7\n"])
def test_what_only_looks_like_a_selector_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="names no job or task"):
        parse_selector(text)


def test_a_backward_range_is_refused_with_the_right_order() -> None:
    with pytest.raises(UsageError, match="write 3-5"):
        parse_selector("5-3")
    with pytest.raises(UsageError, match="write 0-9"):
        parse_selector("7.9-0")


def test_a_selector_knows_what_kind_of_thing_it_names() -> None:
    assert parse_selector("7").is_one_job
    assert parse_selector("last").is_one_job
    assert not parse_selector("3-5").is_one_job
    assert parse_selector("7.3").is_one_task
    assert not parse_selector("7.3-4").is_one_task
    assert not parse_selector("7.3").is_whole_jobs
    assert parse_selector("all").needs_listing
    assert not parse_selector("7.3").needs_listing


@given(st.text(max_size=30))
def test_any_text_is_a_selector_or_a_usage_error(text: str) -> None:
    with suppress(UsageError):
        assert parse_selector(text).text == text
