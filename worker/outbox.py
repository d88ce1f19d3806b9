"""Results that the manager has not acknowledged yet, kept where kill -9 cannot reach them.

One append-only file. A record is a u32 length, a u32 checksum (both big-endian) and a MessagePack
array: a result, or the ids of acknowledged attempts. A batch is appended with one write and not
synced: kill -9 loses nothing of it, a crash of the host means that the task runs again. Reading
ends at the first record that is not whole; what a crash left behind it is cut off. When nothing
waits any more, or the file has grown far beyond what waits, it is written anew and renamed.
"""

import contextlib
import fcntl
import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from wqueue.protocol.errors import UsageError
from wqueue.protocol.messages import AttemptResult

COMPACT_BYTES = 4 * 1024 * 1024
"""A log below this is never rewritten while results wait; above it, when half of it is dead."""

_HEAD = struct.Struct(">II")


class Kept(Struct, frozen=True, array_like=True, tag="kept"):
    """A result in the outbox.

    `sandbox` is the folder (with its .out and .err files) to remove once the result is
    acknowledged, empty if nothing is left on disk. `files` are (position, path) of the outputs
    that do not travel inline and are fetched by the manager. `ended_wall_s` is the wall clock when
    the attempt ended, from which ended_ago_s is made anew whenever the result is sent.
    """

    result: AttemptResult
    sandbox: bytes = b""
    files: list[tuple[int, bytes]] = []
    ended_wall_s: float = 0.0


class _Acknowledged(Struct, frozen=True, array_like=True, tag="acknowledged"):
    attempts: list[bytes]


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Kept | _Acknowledged] = msgspec.msgpack.Decoder(
    Kept | _Acknowledged
)


class Outbox:
    """The log of one workdir; at any time one process has it open.

    A second one is refused with UsageError. Whoever opens it finds what earlier processes of that
    workdir could not deliver.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "results"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(folder / "lock")
        self._waiting: dict[bytes, Kept] = {}
        self._live_bytes: dict[bytes, int] = {}
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._end = self._load()

    def append(self, results: Sequence[Kept]) -> None:
        """Write results with one write. Raises OSError when the disk does not take them whole.

        After an error nothing of the batch is in the log, and the call may be repeated.
        """
        records = [_record(kept) for kept in results]
        self._write(b"".join(records))
        for kept, record in zip(results, records, strict=True):
            self._waiting[kept.result.attempt] = kept
            self._live_bytes[kept.result.attempt] = len(record)

    def acknowledge(self, attempts: Iterable[bytes]) -> list[Kept]:
        """Forget results; gives those that were there, so that their sandboxes can go.

        A disk that is full does not matter here: an acknowledgement that is not in the log costs
        one more delivery after a crash.
        """
        known = [attempt for attempt in attempts if attempt in self._waiting]
        if not known:
            return []
        forgotten = [self._waiting.pop(attempt) for attempt in known]
        for attempt in known:
            del self._live_bytes[attempt]
        with contextlib.suppress(OSError):
            if self._waiting:
                self._write(_record(_Acknowledged(known)))
                self._compact_if_worth_it()
            else:
                os.ftruncate(self._file, 0)
                self._end = 0
        return forgotten

    def pending(self) -> list[Kept]:
        """Give all results that wait, oldest first."""
        return list(self._waiting.values())

    def get(self, attempt: bytes) -> Kept | None:
        """Look up one result."""
        return self._waiting.get(attempt)

    def __len__(self) -> int:
        return len(self._waiting)

    def close(self) -> None:
        """Close the log; what waits stays in it."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    def _load(self) -> int:
        end = 0
        data = self._path.read_bytes()
        for record, start, stop in _records(data):
            end = stop
            if isinstance(record, Kept):
                self._waiting[record.result.attempt] = record
                self._live_bytes[record.result.attempt] = stop - start
            else:
                for attempt in record.attempts:
                    self._waiting.pop(attempt, None)
                    self._live_bytes.pop(attempt, None)
        if end < len(data):
            os.ftruncate(self._file, end)
        return end

    def _write(self, data: bytes) -> None:
        try:
            written = os.pwrite(self._file, data, self._end)
            while written < len(data):
                written += os.pwrite(self._file, data[written:], self._end + written)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise
        self._end += len(data)

    def _compact_if_worth_it(self) -> None:
        if self._end < COMPACT_BYTES or self._end < 2 * sum(self._live_bytes.values()):
            return
        fresh = self._path.with_suffix(".new")
        data = b"".join(_record(kept) for kept in self._waiting.values())
        fresh.unlink(missing_ok=True)
        file = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        old, old_end = self._file, self._end
        self._file, self._end = file, 0
        try:
            self._write(data)
            fresh.rename(self._path)
        except OSError:
            self._file, self._end = old, old_end
            os.close(file)
            raise
        os.close(old)


def _record(value: Kept | _Acknowledged) -> bytes:
    body = _encoder.encode(value)
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def _records(data: bytes) -> Iterable[tuple[Kept | _Acknowledged, int, int]]:
    start = 0
    while start + _HEAD.size <= len(data):
        length, checksum = _HEAD.unpack_from(data, start)
        stop = start + _HEAD.size + length
        body = data[start + _HEAD.size : stop]
        if len(body) < length or length == 0 or zlib.crc32(body) != checksum:
            return
        try:
            record = _decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return
        yield record, start, stop
        start = stop


def _lock(path: Path) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise UsageError(f"{path.parent} is in use by another worker") from None
    return lock
