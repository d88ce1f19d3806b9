"""Names of files on both sides, for one task or as templates for all tasks of an array.

Pure. A template that begins with a placeholder is absolute when its values are; an array whose
values are absolute for some tasks and relative for others must say what it means.
"""

import re
from collections import Counter

from wqueue.protocol.errors import UsageError
from wqueue.protocol.names import normalized, show
from wqueue.protocol.template import expand, has_placeholder
from wqueue.task_array import Array

_WORD = re.compile(rb"\{(?://|/\.|[/.#1]?)\}|/")
_MAY_BE_ABSOLUTE = (b"{}", b"{1}", b"{.}", b"{//}")
_WITHOUT_FOLDERS = {b"{}": b"{/}", b"{1}": b"{/}", b"{.}": b"{/.}"}


def is_varied(template: bytes, array: Array | None) -> bool:
    """Tell whether the name differs from task to task."""
    return array is not None and has_placeholder(template)


def absolute(local: bytes, folder: bytes, array: Array | None) -> bytes:
    """Make a local name (or template) absolute; relative ones start at `folder`."""
    if not is_absolute(local, array):
        return folder.rstrip(b"/") + b"/" + local
    return local


def is_absolute(local: bytes, array: Array | None) -> bool:
    """Tell whether a local name, or what a template becomes, is absolute. Raises UsageError."""
    if array is None or not local.startswith(_MAY_BE_ABSOLUTE):
        return local.startswith(b"/")
    # Only behind an empty value does the rest of the template decide; to fill it in costs more.
    kinds = {
        (value or expand(local, value, index)).startswith(b"/") for index, value in array.checked()
    }
    if len(kinds) > 1:
        raise UsageError(
            f"{show(local)} is an absolute path for some values and a relative one for others; "
            "use one kind"
        )
    return kinds.pop()


def default_remote(local: bytes, array: Array | None) -> bytes:
    """Give the name in the sandbox of a local file that was given without one.

    It is the relative path as given; of an absolute path it is the last part. Raises UsageError
    when no template says that for every task.
    """
    if not is_absolute(local, array):
        return local if is_varied(local, array) else _plain(local)
    if not is_varied(local, array):
        return _plain(_last_part(local))
    remote = _last_part_of_template(local)
    assert array is not None
    for index, value in array.checked():
        if expand(remote, value, index) != _last_part(expand(local, value, index)):
            raise UsageError(
                f"it is not clear what {show(local)} should be called in the sandbox; "
                f"say {show(local)}=NAME"
            )
    return remote


def check_sandbox(inputs: list[bytes], outputs: list[bytes]) -> None:
    """Check that the files of one task can lie in one sandbox. Raises UsageError."""
    for what, names in (("different inputs", inputs), ("outputs", outputs)):
        if len(set(names)) < len(names):
            twice = next(name for name, count in Counter(names).items() if count > 1)
            raise UsageError(f"two {what} are called {show(twice)} in the sandbox")
    taken = {*inputs, *outputs}
    if len(taken) < len(inputs) + len(outputs):
        both = next(name for name in outputs if name in set(inputs))
        raise UsageError(f"{show(both)} is the name of both an input and an output")
    for name in sorted(taken):
        folder = name.rpartition(b"/")[0]
        while folder:
            if folder in taken:
                raise UsageError(f"{show(folder)} is a file and cannot hold {show(name)}")
            folder = folder.rpartition(b"/")[0]


def _plain(name: bytes) -> bytes:
    # An unsafe name is kept as it is, for the error that will name it.
    return name if b".." in name.split(b"/") else normalized(name)


def _last_part(path: bytes) -> bytes:
    return path.rstrip(b"/").rpartition(b"/")[2]


def _last_part_of_template(template: bytes) -> bytes:
    tail = 0
    for found in _WORD.finditer(template):
        if found.group() == b"/":
            tail = found.end()
    name = template[tail:]
    for placeholder, without_folders in _WITHOUT_FOLDERS.items():
        if name.startswith(placeholder):
            return without_folders + name[len(placeholder) :]
    return name
