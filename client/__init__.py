"""wqueue: distribute many tasks over many workers.

The names below are loaded when they are first used: every program of this package imports this
module, and most of them need little of it.
"""

import importlib
from typing import TYPE_CHECKING

from wqueue._version import __version__

if TYPE_CHECKING:
    from wqueue.client import Client
    from wqueue.job import Job, Summary
    from wqueue.protocol.errors import (
        LocalProtocolError,
        ManagerUnreachable,
        NoSuchTask,
        NotAuthorized,
        ProtocolError,
        Refused,
        RemoteProtocolError,
        StoreError,
        TaskError,
        UsageError,
        VersionMismatch,
        WaitTimedOut,
        WqueueError,
    )
    from wqueue.protocol.messages import STDERR, STDOUT, JobRange, Progress, TaskRecord
    from wqueue.tasks import InputBuffer, InputFile, OutputFile, Task

__all__ = [
    "STDERR",
    "STDOUT",
    "Client",
    "InputBuffer",
    "InputFile",
    "Job",
    "JobRange",
    "LocalProtocolError",
    "ManagerUnreachable",
    "NoSuchTask",
    "NotAuthorized",
    "OutputFile",
    "Progress",
    "ProtocolError",
    "Refused",
    "RemoteProtocolError",
    "StoreError",
    "Summary",
    "Task",
    "TaskError",
    "TaskRecord",
    "UsageError",
    "VersionMismatch",
    "WaitTimedOut",
    "WqueueError",
    "__version__",
]

_HOMES = {
    "Client": "wqueue.client",
    "Job": "wqueue.job",
    "Summary": "wqueue.job",
    "InputBuffer": "wqueue.tasks",
    "InputFile": "wqueue.tasks",
    "OutputFile": "wqueue.tasks",
    "Task": "wqueue.tasks",
    "JobRange": "wqueue.protocol.messages",
    "Progress": "wqueue.protocol.messages",
    "STDERR": "wqueue.protocol.messages",
    "STDOUT": "wqueue.protocol.messages",
    "TaskRecord": "wqueue.protocol.messages",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'wqueue' has no attribute {name!r}")
    value: object = getattr(
        importlib.import_module(_HOMES.get(name, "wqueue.protocol.errors")), name
    )
    globals()[name] = value
    return value
