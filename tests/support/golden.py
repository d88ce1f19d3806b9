"""Golden encodings: how each message lies on the wire, one file each, never edited, only added.

Run as a program it writes what is missing: PYTHONPATH=tests python tests/support/golden.py
"""

import json
from pathlib import Path
from typing import Any

import msgspec
from support.structs import message_types, sample, tag_of

from wqueue.protocol import codec
from wqueue.protocol.messages import FromManagerBatch, JobSpec, TaskRecord, ToManagerBatch

FOLDER = Path(__file__).parent.parent / "unit" / "protocol" / "golden"

VERSION = "1.0"
"""The minor version whose encodings a run of this program adds."""


def subjects() -> dict[str, type[msgspec.Struct]]:
    """Give what has a golden file: each message, the headers, and what is kept on disk."""
    named = {tag_of(message): message for message in message_types()}
    kept: list[type[msgspec.Struct]] = [ToManagerBatch, FromManagerBatch, JobSpec, TaskRecord]
    return named | {each.__name__: each for each in kept}


def path_of(name: str, version: str = VERSION) -> Path:
    """Name the golden file of a message."""
    return FOLDER / f"{version}-{name}.json"


def readable(value: Any) -> Any:
    """Write MessagePack's own view of a message as JSON; bytes become 0x and hex digits."""
    match value:
        case bytes():
            return "0x" + value.hex()
        case list() | tuple():
            return [readable(each) for each in value]
        case dict():
            return {str(key): readable(each) for key, each in value.items()}
        case _:
            return value


def main() -> None:
    """Write the missing files."""
    FOLDER.mkdir(exist_ok=True)
    for name, kind in subjects().items():
        path = path_of(name)
        if not path.exists():
            encoded = codec.encode(sample(kind))
            view = readable(msgspec.msgpack.decode(encoded))
            path.write_text(json.dumps({"value": view, "encoded": encoded.hex()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
