"""Is the file that a client names the one the manager sees? A client's word alone opens nothing."""

import os
import stat
from functools import lru_cache
from pathlib import Path

from wqueue.protocol.messages import FileIdentity
from wqueue.protocol.names import show

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@lru_cache(maxsize=1)
def read_boot_id() -> str:
    """Give this boot's id; empty where the system has none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def why_not_same_file(identity: FileIdentity, found: os.stat_result) -> str:
    """Say what tells a file from the one that was declared; an empty string means nothing does."""
    if not stat.S_ISREG(found.st_mode):
        return "it is not a regular file"
    if found.st_size != identity.size:
        return f"it has {found.st_size} bytes, not {identity.size}"
    if found.st_mtime_ns != identity.mtime_ns:
        return "it was modified"
    if found.st_ino != identity.inode:
        return "it was replaced"
    return ""


def why_not_same_folder(identity: FileIdentity, found: os.stat_result, boot_id: str) -> str:
    """Say why a folder is not the one a client sees; an empty string means that it is.

    On the same host the inode proves it; across hosts the time of the last change must agree too,
    since inodes of two file systems may be equal by chance.
    """
    if not stat.S_ISDIR(found.st_mode):
        return "it is not a folder"
    if found.st_ino != identity.inode:
        return "it is another folder"
    is_same_host = bool(boot_id) and identity.boot_id == boot_id
    if not is_same_host and found.st_mtime_ns != identity.mtime_ns:
        return "it was modified, or is another folder"
    return ""


def why_not_in_place(identity: FileIdentity) -> str:
    """Look at a declared file; an empty string means that it can be read where it lies."""
    return _look(identity, is_folder=False)


def why_not_shared(identity: FileIdentity) -> str:
    """Look at a client's folder; an empty string means that outputs may go below it."""
    return _look(identity, is_folder=True)


def _look(identity: FileIdentity, *, is_folder: bool) -> str:
    if not identity.path.startswith(b"/"):
        return f"{show(identity.path)}: the path is not absolute"
    try:
        found = Path(os.fsdecode(identity.path)).stat()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return f"{show(identity.path)}: {reason}"
    if is_folder:
        why = why_not_same_folder(identity, found, read_boot_id())
    else:
        why = why_not_same_file(identity, found)
    return f"{show(identity.path)}: {why}" if why else ""
