import pytest

from wqueue.cli.amounts import (
    parse_cores,
    parse_mb,
    parse_seconds,
    show_cores,
    show_mb,
    show_seconds,
)


@pytest.mark.parametrize(
    ("text", "size_mb"),
    [
        ("500", 500),
        ("500M", 500),
        ("500mb", 500),
        ("4G", 4096),
        ("4GiB", 4096),
        ("1.5g", 1536),
        ("2T", 2 * 1024 * 1024),
        ("1k", 1),
        ("0.5", 1),
        (" 10 M ", 10),
        ("0", 0),
    ],
)
def test_a_size_is_read_as_mb_and_rounded_up(text: str, size_mb: int) -> None:
    assert parse_mb(text) == size_mb


@pytest.mark.parametrize(
    "text", ["", "G", "-1", "4X", "4GG", "1e3", "four", "nan", "inf", "9" * 30]
)
def test_what_is_no_size_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|too much"):
        parse_mb(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5", 1.5),
        ("90s", 90),
        ("10m", 600),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1d 2h", 93600),
        ("0", 0),
    ],
)
def test_a_time_is_read_as_seconds(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-5", "5x", "1h30", "10:30", "nan", "1h and 2m"])
def test_what_is_no_time_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        parse_seconds(text)


def test_cores_may_be_thousandths_and_nothing_finer() -> None:
    assert parse_cores("0.125") == 0.125
    assert parse_cores("0.001") == 0.001
    with pytest.raises(ValueError, match="thousandths"):
        parse_cores("0.0005")
    with pytest.raises(ValueError, match="not a number of cores"):
        parse_cores("two")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0042, "0.004s"),
        (12.34, "12.3s"),
        (59.96, "1m00s"),
        (245, "4m05s"),
        (11520, "3h12m"),
        (86400 * 12 + 3 * 3600, "12d03h"),
    ],
)
def test_a_time_is_shown_in_at_most_seven_characters(seconds: float, text: str) -> None:
    assert show_seconds(seconds) == text
    assert len(text) <= 7


@pytest.mark.parametrize(
    ("size_mb", "text"),
    [(0, "0M"), (500, "500M"), (1023, "1023M"), (4096, "4G"), (1536, "1.5G"), (2**21, "2T")],
)
def test_a_size_is_shown_with_its_unit(size_mb: int, text: str) -> None:
    assert show_mb(size_mb) == text


def test_cores_are_shown_without_needless_zeros() -> None:
    assert [show_cores(cores) for cores in (1, 10, 0.5, 0.125)] == ["1", "10", "0.5", "0.125"]
