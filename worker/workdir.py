"""The folder a worker process works in: found, locked, swept of what its last owner left."""

from collections.abc import Collection, Mapping
from pathlib import Path

from msgspec import Struct


class Swept(Struct, frozen=True):
    """What a sweep found: processes that were ended and sandboxes that were removed."""

    process_count: int = 0
    sandbox_count: int = 0


class Workdir:
    """A locked folder with cache/, sandboxes/ and outbox/, all 0700."""

    path: Path
    cache: Path
    sandboxes: Path
    outbox: Path

    def sandbox(self, attempt: bytes) -> bytes:
        """Give the path of an attempt's sandbox."""
        raise NotImplementedError

    def sweep(self, keep: Collection[bytes] = ()) -> Swept:
        """End processes and remove sandboxes that an earlier worker process left here.

        `keep` are the sandboxes that results in the outbox still need (Kept.sandbox). Call it once,
        after the outbox was read and before the first task.
        """
        raise NotImplementedError

    def disk_free_mb(self) -> int:
        """Measure what is free for this user on the file system."""
        raise NotImplementedError

    def close(self) -> None:
        """Give the lock back. The folder stays: its cache serves the next worker."""


def open_workdir(
    server_id: bytes, chosen: Path | None = None, environ: Mapping[str, str] | None = None
) -> Workdir:
    """Lock `chosen`, or the first free ${TMPDIR:-/tmp}/wqueue-UID/SERVERID/N, and lay it out.

    Raises UsageError when it cannot be written, may not hold programs (noexec), is not ours, or,
    for a chosen one, when another worker has it.
    """
    raise NotImplementedError


def remove_sandbox(sandbox: bytes) -> None:
    """Remove a sandbox and the files beside it, whatever a task did to permissions in it.

    Slow for large trees, so call it from a file thread. Absent ones are fine; what cannot be
    removed is left for the next sweep.
    """
