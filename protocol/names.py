"""Remote names: which paths a task may name inside its sandbox."""

from wqueue.protocol.limits import NAME_MAX_BYTES


def why_unsafe(remote: bytes) -> str:
    """Say why `remote` may not name a file in a sandbox; an empty string means that it may.

    The rule is the same at the client, the manager and the worker: relative, no "..", no NUL,
    not the sandbox itself.
    """
    if not remote:
        return "the name is empty"
    if len(remote) > NAME_MAX_BYTES:
        return f"the name has {len(remote)} bytes; {NAME_MAX_BYTES} are allowed"
    if b"\0" in remote:
        return "the name holds a NUL byte"
    if remote.startswith(b"/"):
        return "the name is absolute; names in the sandbox are relative"
    parts = remote.split(b"/")
    if b".." in parts:
        return 'the name leaves the sandbox through ".."'
    if not normalized(remote):
        return "the name is the sandbox itself"
    return ""


def normalized(remote: bytes) -> bytes:
    """Take empty and "." parts out of a safe name, so that equal files have equal names."""
    return b"/".join(part for part in remote.split(b"/") if part not in (b"", b"."))


def show(name: bytes) -> str:
    """Show a name that need not be UTF-8 on one line."""
    text = name.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
