"""Merge the counts of many sources into one report: merge.py COUNTS_FOLDER REPORT.

A task's program like count.py: all COUNTS files are its inputs.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TOP = 10
"""Rows in each list of the report."""


def merge(counts: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Add up (name of the source, its counts)."""
    totals: Counter[str] = Counter()
    names: Counter[str] = Counter()
    files = []
    for file, counted in counts:
        files.append({"file": file} | {k: counted[k] for k in ("lines", "tokens", "identifiers")})
        totals.update(lines=counted["lines"], tokens=counted["tokens"], files=1)
        totals.update(identifiers=counted["identifiers"])
        names.update(counted["names"])
    files.sort(key=lambda row: (-row["tokens"], row["file"]))
    most_used = sorted(names.items(), key=lambda item: (-item[1], item[0]))
    return {
        "totals": dict(sorted(totals.items())),
        "distinct_identifiers": len(names),
        "largest_files": files[:TOP],
        "most_used_identifiers": most_used[:TOP],
    }


def encode(report: dict[str, Any]) -> bytes:
    """Give a report as JSON, the same bytes for the same counts."""
    return json.dumps(report, indent=1, sort_keys=True).encode() + b"\n"


def main(folder: str, report: str) -> None:
    """Read all COUNTS below the folder and write REPORT."""
    root = Path(folder)
    found = sorted(root.rglob("*.json"), key=lambda path: path.as_posix())
    counts = (
        (path.relative_to(root).as_posix().removesuffix(".json"), json.loads(path.read_bytes()))
        for path in found
    )
    Path(report).write_bytes(encode(merge(counts)))


if __name__ == "__main__":
    main(*sys.argv[1:])
