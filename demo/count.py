"""Pack one Python source and count its lines, tokens and identifiers: count.py SOURCE GZIP COUNTS.

A task's program: it sees nothing but its sandbox. Equal sources give equal bytes, so that whoever
wants to can check the outputs. It does without pathlib, which would be a tenth of its start.
"""

import gzip
import io
import json
import keyword
import os
import sys
import tokenize
from collections import Counter
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
    with open(source, "rb") as file:
        content = file.read()
    write(packed, pack(content))
    write(counted, encode(count(content)))


def write(name: str, content: bytes) -> None:
    """Write a file, and the folders above it."""
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    with open(name, "wb") as file:
        file.write(content)


if __name__ == "__main__":
    main(*sys.argv[1:])
