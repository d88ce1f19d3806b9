"""Outputs of ended tasks: from the record itself, or fetched from the manager in pieces."""

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

from wqueue.hashing import READ_BYTES
from wqueue.protocol.attempts import unpack_attempt
from wqueue.protocol.errors import NoSuchTask, Refused, RemoteProtocolError, UsageError
from wqueue.protocol.messages import STDERR, STDOUT, Data, OutputResult, TaskRecord
from wqueue.protocol.sources import TaskOutput, pack_source
from wqueue.protocol.transfer import Download
from wqueue.wire import Connection

Write = Callable[[int, bytes], object]


def find_output(record: TaskRecord, position: int) -> OutputResult:
    """Find an output in a record. Raises NoSuchTask when the task has not made it."""
    for output in record.outputs:
        if output.position == position:
            return output
    if position in (STDOUT, STDERR):
        return OutputResult(position, 0, inline=b"")
    raise NoSuchTask(
        f"task {record.job}.{record.index} has no output {position}; its outcome is "
        f"{record.outcome}"
    )


def read_output(connection: Connection, record: TaskRecord, position: int) -> bytes:
    """Give an output's content, fetching what did not come with the record."""
    output = find_output(record, position)
    if output.inline is not None:
        return output.inline
    content = bytearray(output.size)

    def write(offset: int, piece: bytes) -> None:
        content[offset : offset + len(piece)] = piece

    _receive(connection, record, output, write)
    _check_digest(record, output, blake3(content).digest())
    return bytes(content)


def save_output(connection: Connection, record: TaskRecord, position: int, to: Path) -> None:
    """Write an output to a local file, whole or not at all; its folders are made."""
    output = find_output(record, position)
    draft = to.with_name(f".{to.name[:40]}.wq-{secrets.token_hex(4)}")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(_create(draft, output.mode), "wb") as file:
                if output.inline is not None:
                    file.write(output.inline)
                else:
                    handle = file.fileno()
                    _receive(connection, record, output, lambda at, p: _pwrite(handle, p, at))
            if output.inline is None:
                _check_digest(record, output, _digest_of(draft))
            draft.replace(to)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot write {to}: {error.strerror}; the manager keeps the output of task "
            f"{record.job}.{record.index}"
        ) from error


def _receive(
    connection: Connection, record: TaskRecord, output: OutputResult, write: Write
) -> None:
    job_uid = unpack_attempt(record.attempt)[0]
    source = pack_source(TaskOutput(job_uid, record.index, output.position))
    with connection.lock:
        number, fetch = connection.exchange.fetch()
    download = Download(number, source, output.size)
    try:
        while not download.is_complete:
            with connection.lock:
                if fetch.is_lost and connection.exchange.is_open:
                    download.restart()
                    fetch.is_lost = False
                if not fetch.is_lost:
                    for get in download.next_gets():
                        connection.exchange.post(get)
            connection.wake()
            connection.wait_for(
                lambda: (
                    bool(fetch.arrived)
                    or fetch.failure is not None
                    or (fetch.is_lost and connection.exchange.is_open)
                ),
                None,
            )
            if fetch.failure is not None:
                failure = fetch.failure
                raise Refused(f"{_name(record, output)}: {failure.text}", failure.code)
            with contextlib.suppress(IndexError):
                offset, piece = fetch.arrived.popleft()
                verdict = download.receive(Data(number, offset), len(piece))
                if verdict == "short":
                    raise Refused(f"{_name(record, output)}: the file has shrunk", "changed")
                if verdict == "write":
                    write(offset, piece)
                    download.wrote(offset)
    finally:
        with connection.lock:
            connection.exchange.end_fetch(number)


def _name(record: TaskRecord, output: OutputResult) -> str:
    names = {STDOUT: "stdout", STDERR: "stderr"}
    which = names.get(output.position, f"output {output.position}")
    return f"{which} of task {record.job}.{record.index}"


def _check_digest(record: TaskRecord, output: OutputResult, found: bytes) -> None:
    if output.digest and output.digest != found:
        raise RemoteProtocolError(f"{_name(record, output)} did not arrive as it was made")


def _digest_of(path: Path) -> bytes:
    hasher = blake3()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(READ_BYTES):
            hasher.update(piece)
    return hasher.digest()


def _pwrite(handle: int, piece: bytes, offset: int) -> None:
    while piece:
        count = os.pwrite(handle, piece, offset)
        piece, offset = piece[count:], offset + count


def _create(path: Path, mode: int) -> int:
    # The owner must be able to read it again, for the digest.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.open(path, flags, mode & 0o777 | 0o400)
