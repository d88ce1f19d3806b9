"""One file on its way to the disk: written beside its place, hashed as it comes, then checked."""

import contextlib
import errno
import os
from pathlib import Path

from blake3 import blake3

FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that go away by themselves or by somebody's help: worth trying again later."""


def is_temporary(error: OSError) -> bool:
    """Tell whether the same may succeed later, when there is room again."""
    return error.errno in FULL_ERRNOS


def digest_of(content: bytes) -> bytes:
    """Give the BLAKE3-256 digest of some bytes."""
    return blake3(content).digest()


def write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that must not be there; one that an earlier try left is replaced."""
    descriptor = create_new(path)
    try:
        write_all(descriptor, content)
        os.fchmod(descriptor, mode & 0o777)
    finally:
        os.close(descriptor)


def create_new(path: Path) -> int:
    """Create a file for writing, never through a link; its folder is made if it is missing."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        path.unlink()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, flags, 0o600)


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of it, however many calls that takes."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


class Inflow:
    """A file that comes in chunks, under a name of its own until it is whole and right.

    Any thread may call, one at a time; `is_unwanted` may be set by another.
    """

    def __init__(self, path: Path, part: str) -> None:
        self.is_unwanted = False
        self._path = path
        self._part = path.with_name(f"{path.name}.{part}")
        self._descriptor = -1
        self._hasher: blake3 | None = None

    def write(self, chunks: list[bytes]) -> None:
        """Append chunks; raises OSError."""
        if self._hasher is None:
            self._descriptor = create_new(self._part)
            self._hasher = blake3()
        for chunk in chunks:
            self._hasher.update(chunk)
            write_all(self._descriptor, chunk)

    def finish(self, digest: bytes, mode: int) -> bool:
        """Give the file its name; False when its content is not that of `digest`.

        Raises OSError.
        """
        assert self._hasher is not None, f"{self._part} ends before it began"
        if self._hasher.digest() != digest:
            return False
        os.fchmod(self._descriptor, mode & 0o777)
        self._close()
        if not self.is_unwanted:
            self._part.replace(self._path)
        return True

    def abandon(self) -> None:
        """Close and remove what is not finished."""
        self._close()
        with contextlib.suppress(OSError):
            self._part.unlink()

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):
                os.close(descriptor)
