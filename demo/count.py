"""Pack one Python source and count its lines, tokens and identifiers: count.py SOURCE GZIP COUNTS.

A task's program: it sees nothing but its sandbox. Equal sources give equal bytes, so that whoever
wants to can check the outputs.
"""

import gzip
import io
import json
import keyword
import sys
import tokenize
from collections import Counter
from pathlib import Path
from typing import Any

NOT_TEXT = {
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.NEWLINE,
    tokenize.NL,
    tokenize.COMMENT,
}
"""Tokens that only say how the text is laid out."""


def pack(source: bytes) -> bytes:
    """Give the gzip of a source, without a time in it."""
    return gzip.compress(source, mtime=0)


def count(source: bytes) -> dict[str, Any]:
    """Count lines, tokens and identifiers; what cannot be tokenized ends the count."""
    tokens = 0
    names: Counter[str] = Counter()
    is_whole = True
    try:
        for token in tokenize.tokenize(io.BytesIO(source).readline):
            if token.type in NOT_TEXT:
                continue
            tokens += 1
            if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
                names[token.string] += 1
    except (SyntaxError, tokenize.TokenError, UnicodeDecodeError):
        is_whole = False
    return {
        "lines": source.count(b"\n") + (not source.endswith(b"\n") and source != b""),
        "tokens": tokens,
        "identifiers": names.total(),
        "is_whole": is_whole,
        "names": dict(sorted(names.items())),
    }


def encode(counts: dict[str, Any]) -> bytes:
    """Give counts as JSON, the same bytes for the same counts."""
    return json.dumps(counts, sort_keys=True).encode() + b"\n"


def main(source: str, packed: str, counted: str) -> None:
    """Read SOURCE, write GZIP and COUNTS."""
    content = Path(source).read_bytes()
    for name in (packed, counted):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(packed).write_bytes(pack(content))
    Path(counted).write_bytes(encode(count(content)))


if __name__ == "__main__":
    main(*sys.argv[1:])
