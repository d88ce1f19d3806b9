"""The demo's programs for tasks: pure functions from sources to bytes."""

import gzip
import json
from pathlib import Path

import count
import merge


def test_packing_gives_the_source_back_and_holds_no_time() -> None:
    source = b"x = 1\n" * 1000
    packed = count.pack(source)
    assert gzip.decompress(packed) == source
    assert packed[4:8] == bytes(4)


def test_counting_tells_names_from_keywords_and_text() -> None:
    counted = count.count(b"# text\nif spam:\n    spam = eggs(1)\n")
    assert counted == {
        "lines": 3,
        "tokens": 9,
        "identifiers": 3,
        "is_whole": True,
        "names": {"eggs": 1, "spam": 2},
    }


def test_a_last_line_without_an_end_counts() -> None:
    assert count.count(b"a\nb")["lines"] == 2
    assert count.count(b"")["lines"] == 0


def test_a_source_that_cannot_be_tokenized_is_counted_up_to_there() -> None:
    assert count.count(b"a = (1,\n")["is_whole"] is False
    assert count.count(b"# coding: no-such-code\n")["tokens"] == 0


def test_the_report_adds_up_and_ranks(tmp_path: Path) -> None:
    for name, source in (("b/small", b"a = b\n"), ("large", b"a = c; a = d\n")):
        path = tmp_path / "counts" / f"{name}.py.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(count.encode(count.count(source)))
    merge.main(str(tmp_path / "counts"), str(tmp_path / "report.json"))
    report = json.loads((tmp_path / "report.json").read_bytes())
    assert [row["file"] for row in report["largest_files"]] == ["large.py", "b/small.py"]
    assert report["most_used_identifiers"] == [["a", 3], ["b", 1], ["c", 1], ["d", 1]]
    assert report["totals"] == {"files": 2, "identifiers": 6, "lines": 2, "tokens": 10}
