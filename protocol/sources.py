"""Sources: how a Get names the file it wants, as bytes that say of which kind they are.

    b"d" + digest (32)                                     content, by its BLAKE3-256 digest
    b"o" + attempt id (36) + position (u16)                an output, at the worker that made it
    b"r" + job uid (16) + index (u64) + position (u16)     an ended task's output, at the manager

Integers are big-endian.
"""

import struct

from msgspec import Struct

from wqueue.protocol.attempts import ATTEMPT_ID_BYTES
from wqueue.protocol.errors import RemoteProtocolError

_DIGEST_BYTES = 32
_output = struct.Struct(f">{ATTEMPT_ID_BYTES}sH")
_stored = struct.Struct(">16sQH")


class Content(Struct, frozen=True):
    """Content by its digest."""

    digest: bytes


class AttemptOutput(Struct, frozen=True):
    """An output of an attempt, at the worker."""

    attempt: bytes
    position: int


class TaskOutput(Struct, frozen=True):
    """An output of an ended task, at the manager."""

    job_uid: bytes
    index: int
    position: int


def pack_source(source: Content | AttemptOutput | TaskOutput) -> bytes:
    """Write a source as a Get carries it."""
    if isinstance(source, Content):
        return b"d" + source.digest
    if isinstance(source, AttemptOutput):
        return b"o" + _output.pack(source.attempt, source.position)
    return b"r" + _stored.pack(source.job_uid, source.index, source.position)


def parse_source(source: bytes) -> Content | AttemptOutput | TaskOutput:
    """Read a source. Raises RemoteProtocolError when it is none."""
    kind, rest = source[:1], source[1:]
    if kind == b"d" and len(rest) == _DIGEST_BYTES:
        return Content(rest)
    if kind == b"o" and len(rest) == _output.size:
        return AttemptOutput(*_output.unpack(rest))
    if kind == b"r" and len(rest) == _stored.size:
        return TaskOutput(*_stored.unpack(rest))
    raise RemoteProtocolError(f"{source[:8].hex()}... names no file")
