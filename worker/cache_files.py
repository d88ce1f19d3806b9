"""The cache folder: input files under the name of their content.

A file with digest HEX lies as HEX (mode 0444) or, where a task needs to execute it, as HEX.x
(0555): hard links share their mode with the file, so the two cannot be one. Files become visible
by rename, whole and verified. All functions may be called from file threads, the same digest from
several at once.
"""

from pathlib import Path

from msgspec import Struct


class CacheEntry(Struct, frozen=True):
    """One file of the cache."""

    digest: bytes
    is_executable: bool
    size: int


class CacheFiles:
    """The files of one cache folder; decides nothing about which to keep."""

    def __init__(self, folder: Path) -> None: ...

    def index(self) -> list[CacheEntry]:
        """List what an earlier worker process left, by size only; unfinished files are removed."""
        raise NotImplementedError

    def path(self, digest: bytes, is_executable: bool) -> bytes:
        """Give the place of a file, whether it is there or not. Touches no disk."""
        raise NotImplementedError

    def receive(self, digest: bytes, size: int, is_executable: bool) -> "Incoming":
        """Begin a new file. Raises OSError when the disk is full."""
        raise NotImplementedError

    def verify(self, digest: bytes, is_executable: bool, size: int) -> bool:
        """Read a file that was indexed, before its first use; a wrong one is removed (False)."""
        raise NotImplementedError

    def derive(self, digest: bytes, is_executable: bool) -> bool:
        """Make the wanted form of a file from the other one; False when that is not there."""
        raise NotImplementedError

    def remove(self, digest: bytes, is_executable: bool) -> None:
        """Remove a file; sandboxes that have it linked keep it. Absent ones are fine."""


class Incoming:
    """A file on its way into the cache."""

    def write(self, offset: int, data: bytes) -> None:
        """Write a piece; pieces may come in any order. Raises OSError."""

    def finish(self) -> bool:
        """Verify and publish; False when the content is not what was promised (then it is gone)."""
        raise NotImplementedError

    def abort(self) -> None:
        """Give up; leaves nothing behind."""
