"""Outputs on the disk: where they wait, how they get their names, and what is swept.

An output waits beside its destination, in a file named after its attempt, so that giving it its
name is one rename on one file system; what is kept for fetching waits in the state directory. Only
the winner's files are renamed. Names are never followed where they are links: a link at the
destination is replaced, not written through.

A folder of destinations is noted in the state directory before the first output waits in it; the
next start looks into the noted folders for what was left.
"""

import contextlib
import os
import struct
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from wqueue.manager.core.events import StagedOutput
from wqueue.manager.inflow import digest_of, is_temporary, write_new
from wqueue.protocol.attempts import unpack_attempt
from wqueue.protocol.names import show

STAGED_PREFIX = ".wq-"
"""How names of waiting outputs begin; the attempt in hexadecimal and the position follow."""

_READ_BYTES = 1024 * 1024


class OutputError(NamedTuple):
    """Why outputs could not be written. `is_worker_at_fault`: it sent something else."""

    text: str
    is_temporary: bool = False
    is_worker_at_fault: bool = False


class OutputPaths:
    """Where the outputs of attempts wait and where they end."""

    def __init__(self, state_dir: Path) -> None:
        self.staging = state_dir / "staging"
        self.kept = state_dir / "outputs"
        self.noted = self.staging / "folders"

    def final(self, job: int, index: int, position: int, destination: bytes) -> Path:
        """Give the place of a finished output."""
        if destination:
            return Path(os.fsdecode(destination))
        return self.kept / str(job) / f"{index}.{position}"

    def staged(self, attempt: bytes, output: StagedOutput) -> Path:
        """Give the place where an output waits."""
        folder = self.staging
        if output.destination:
            folder = Path(os.fsdecode(output.destination)).parent
        return folder / f"{STAGED_PREFIX}{attempt.hex()}.{output.position}"

    def note_folder(self, folder: Path) -> None:
        """Note a folder where outputs will wait, for the next start's sweep."""
        with self.noted.open("ab") as noted:
            noted.write(os.fsencode(folder) + b"\0")


def why_not_a_destination(destination: bytes) -> str:
    """Say why no output may be written there; an empty string means that it may be tried."""
    if not destination:
        return ""
    if not destination.startswith(b"/") or b"\0" in destination:
        return f"the output's destination {show(destination)} is not an absolute path"
    if destination.endswith((b"/", b"/.", b"/..")):
        return f"the output's destination {show(destination)} is a folder"
    return ""


def stage(
    paths: OutputPaths,
    attempt: bytes,
    job: int,
    index: int,
    outputs: Sequence[StagedOutput],
    folders: Iterable[Path],
) -> OutputError | None:
    """Prepare folders for all outputs and write those whose content is at hand."""
    output = None
    try:
        for folder in folders:
            paths.note_folder(folder)
            folder.mkdir(parents=True, exist_ok=True)
        for output in outputs:
            final = paths.final(job, index, output.position, output.destination)
            why = _why_not_to_replace(final) if output.destination else ""
            if why:
                return OutputError(f"the output's destination {show_path(final)} is {why}")
            content = content_at_hand(output)
            if content is None:
                continue
            if output.digest and digest_of(content) != output.digest:
                return OutputError(
                    f"output {output.position} is not what its digest says",
                    is_worker_at_fault=True,
                )
            write_new(paths.staged(attempt, output), content, output.mode)
    except OSError as error:
        where = output.destination if output is not None else b""
        return _error_of(error, where)
    return None


def _why_not_to_replace(final: Path) -> str:
    # Renaming onto /dev/null would take it from the whole machine, onto a fifo from its reader.
    if final.is_dir():
        return "" if final.is_symlink() else "a folder"
    return "not a regular file" if final.exists() and not final.is_file() else ""


def content_at_hand(output: StagedOutput) -> bytes | None:
    """Give the content that need not be fetched: what came along, or nothing of an empty file."""
    if output.inline is None and not output.size:
        return b""
    return output.inline


def publish(
    paths: OutputPaths, attempt: bytes, job: int, index: int, outputs: Sequence[StagedOutput]
) -> OutputError | None:
    """Give staged outputs their names. What has its name already, by its content, is done."""
    for output in outputs:
        final = paths.final(job, index, output.position, output.destination)
        try:
            error = _publish(paths.staged(attempt, output), final, output)
        except OSError as raised:
            error = _error_of(raised, output.destination)
        if error is not None:
            if not error.is_temporary:
                discard(paths, attempt, outputs)
            return error
    return None


def discard(paths: OutputPaths, attempt: bytes, outputs: Sequence[StagedOutput]) -> None:
    """Remove what an attempt has staged."""
    for output in outputs:
        with contextlib.suppress(OSError, ValueError):
            paths.staged(attempt, output).unlink()


def sweep(paths: OutputPaths, job_uids: Container[bytes], publishing: Container[bytes]) -> int:
    """Remove what earlier processes left in staging; give the number of files removed.

    Outputs of attempts in `publishing` stay. In folders of destinations another manager's outputs
    may wait, so only those of our own jobs are touched.
    """
    try:
        noted = sorted(set(paths.noted.read_bytes().split(b"\0")[:-1]))
    except OSError:
        noted = []
    removed = kept = 0
    for folder in noted:
        path = Path(os.fsdecode(folder))
        for name, attempt in _staged_in(path):
            if attempt in publishing:
                kept += 1
            elif unpack_attempt(attempt)[0] in job_uids:
                removed += _unlink(path / name)
    for path in paths.staging.iterdir():
        if path != paths.noted and attempt_of(path.name) not in publishing:
            removed += _unlink(path)
    paths.noted.write_bytes(b"".join(folder + b"\0" for folder in noted) if kept else b"")
    return removed


def attempt_of(name: str) -> bytes | None:
    """Read the attempt id from the name of a waiting output; None when it is something else."""
    if not name.startswith(STAGED_PREFIX):
        return None
    try:
        attempt = bytes.fromhex(name[len(STAGED_PREFIX) :].partition(".")[0])
        unpack_attempt(attempt)
    except (ValueError, struct.error):
        return None
    return attempt


def show_path(path: Path) -> str:
    """Show a path that need not be UTF-8."""
    return show(os.fsencode(path))


def _publish(staged: Path, final: Path, output: StagedOutput) -> OutputError | None:
    try:
        staged.replace(final)
    except FileNotFoundError:
        if os.path.lexists(staged):
            final.parent.mkdir(parents=True, exist_ok=True)
            staged.replace(final)
        elif not _has_content(final, output):
            return OutputError(
                f"output {output.position} was staged and is gone; {show_path(final)} is not it"
            )
    return None


def _has_content(path: Path, output: StagedOutput) -> bool:
    """Tell whether the file at `path` is the output already."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_size != output.size:
            return False
        if not output.digest:
            return output.inline is None or file.read() == output.inline
        return _digest_of_file(file.read) == output.digest


def _digest_of_file(read: Callable[[int], bytes]) -> bytes:
    hasher = blake3()
    while chunk := read(_READ_BYTES):
        hasher.update(chunk)
    return hasher.digest()


def _staged_in(folder: Path) -> list[tuple[str, bytes]]:
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return []
    pairs = [(name, attempt_of(name)) for name in names]
    return [(name, attempt) for name, attempt in pairs if attempt is not None]


def _unlink(path: Path) -> int:
    try:
        path.unlink()
    except OSError:
        return 0
    return 1


def _error_of(error: OSError, destination: bytes) -> OutputError:
    where = f" to {show(destination)}" if destination else ""
    reason = error.strerror or str(error)
    return OutputError(f"the output cannot be written{where}: {reason}", is_temporary(error))
