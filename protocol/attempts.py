"""Attempt ids: who is meant when a result, a cancel or an inventory speaks of one try of a task.

An id is 36 bytes: the job's uid (16), the task's index (u64), the manager's epoch (u32) and the
attempt's number within that epoch (u64), integers big-endian. The epoch is committed before any
socket is bound, so no two attempts can ever share an id, whatever the manager forgot in a crash.
Ids are compared and used as keys as plain bytes; only the manager takes them apart.
"""

import struct

_LAYOUT = struct.Struct(">16sQIQ")

ATTEMPT_ID_BYTES = _LAYOUT.size


def pack_attempt(job_uid: bytes, index: int, epoch: int, number: int) -> bytes:
    """Make an attempt id from its parts."""
    return _LAYOUT.pack(job_uid, index, epoch, number)


def unpack_attempt(attempt: bytes) -> tuple[bytes, int, int, int]:
    """Take an attempt id apart: job uid, index, epoch, number.

    Raises struct.error when the id has not ATTEMPT_ID_BYTES bytes.
    """
    parts: tuple[bytes, int, int, int] = _LAYOUT.unpack(attempt)
    return parts


def show_attempt(attempt: bytes) -> str:
    """Give an attempt id a readable form for logs: the uid's first bytes, index, epoch, number."""
    if len(attempt) != ATTEMPT_ID_BYTES:
        return f"malformed attempt id ({len(attempt)} bytes)"
    job_uid, index, epoch, number = unpack_attempt(attempt)
    return f"{job_uid[:4].hex()}.{index}/{epoch}-{number}"
