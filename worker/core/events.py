"""What can happen to a worker's core, and what it can want.

Events are past participles, effects imperatives; effects are carried out in order. All times are
monotonic seconds as the caller counts them. A session is one connection to a manager: the core
numbers them, and what belongs to an older one is ignored.
"""

from msgspec import Struct

from wqueue.protocol.messages import (
    Announcement,
    AttemptResult,
    OutputResult,
    ResultFromManager,
    TaskFromManager,
    TaskToManager,
)

# --- events -----------------------------------------------------------------------------------


class Restored(Struct, frozen=True):
    """The work folder was read: always the first event.

    `results` wait in the outbox from an earlier process, `cached` are keys and sizes of files.
    """

    results: list[AttemptResult] = []
    cached: list[tuple[bytes, int]] = []


class Connected(Struct, frozen=True):
    """The proof is done and the task link is up; `address` is for people."""

    session: int
    epoch: int
    address: str = ""


class ConnectFailed(Struct, frozen=True):
    """No connection came about. `code` is a WqueueError's code, `exit_code` its exit code."""

    session: int
    code: str
    text: str
    exit_code: int


class ResultsOpened(Struct, frozen=True):
    """The result link of this session is up and attached."""

    session: int


class LinkLost(Struct, frozen=True):
    """A link of this session is gone."""

    session: int
    reason: str


class Heard(Struct, frozen=True):
    """A batch arrived. `door` is "task", "result" or "announce", `sequence` counts from 1 on each.

    Frames of files need not be shown here; a batch without messages still is a sign of life.
    """

    session: int
    door: str
    sequence: int
    messages: "list[TaskFromManager | ResultFromManager | Announcement]"


class FilesCached(Struct, frozen=True):
    """These inputs have arrived, were verified, and are in the cache: key and size of each."""

    files: list[tuple[bytes, int]]


class FileFailed(Struct, frozen=True):
    """An input could not be had. `is_own_fault` says that the fault is this machine's."""

    key: bytes
    text: str
    is_own_fault: bool = False


class FileSpoiled(Struct, frozen=True):
    """A cached file is not what it was when it was verified, or gone: some task has changed it."""

    key: bytes


class NotStarted(Struct, frozen=True):
    """A Start was not carried out, because an input was spoiled; its FileSpoiled came before."""

    attempt: bytes


class Began(Struct, frozen=True):
    """The process of an attempt runs."""

    attempt: bytes


class OutputFound(Struct, frozen=True):
    """What was found of a declared output. `kind`: "ok", "missing" or "unsafe".

    `inline` holds a small one whole; a larger one is to be collected.
    """

    position: int
    kind: str
    size: int = 0
    mode: int = 0o644
    inline: bytes | None = None


class Ended(Struct, frozen=True):
    """An attempt is over and no process of it is left, or it could not be started.

    `how`: "exited", "signaled", or the outcome of a failed start; `text` explains that one.
    `stdout` and `stderr` are None when they are too long to travel inside a result.
    `has_sandbox` says that something of it is left on disk.
    """

    attempt: bytes
    how: str
    exit_code: int = -1
    signal: int = 0
    text: str = ""
    wall_s: float = 0.0
    user_s: float | None = None
    system_s: float | None = None
    memory_peak_mb: float | None = None
    stdout_size: int = 0
    stdout: bytes | None = b""
    stderr_size: int = 0
    stderr: bytes | None = b""
    outputs: list[OutputFound] = []
    has_sandbox: bool = False


class Reported(Struct, frozen=True):
    """What the processes did, in order."""

    reports: list[Began | Ended]


class Collected(Struct, frozen=True):
    """The larger outputs of an attempt were hashed; `text` says what went wrong, if anything."""

    attempt: bytes
    outputs: list[OutputResult]
    text: str = ""


class Measured(Struct, frozen=True):
    """How busy this machine is and how much room its disk has."""

    load: float
    disk_free_mb: int


class Ticked(Struct, frozen=True):
    """Time has passed; sent when `deadline()` is reached."""


class Resumed(Struct, frozen=True):
    """The loop had stood still; the manager's silence is counted anew."""


class StopRequested(Struct, frozen=True):
    """The process was asked to end; asked a second time it ends at once."""

    reason: str


Event = (
    Restored
    | Connected
    | ConnectFailed
    | ResultsOpened
    | LinkLost
    | Heard
    | FilesCached
    | FileFailed
    | FileSpoiled
    | NotStarted
    | Reported
    | Collected
    | Measured
    | Ticked
    | Resumed
    | StopRequested
)


# --- effects ----------------------------------------------------------------------------------


class Connect(Struct, frozen=True):
    """Begin session `session` after `delay_s` and a random part of `spread_s`.

    Answer: Connected or ConnectFailed.
    """

    session: int
    delay_s: float
    spread_s: float


class Disconnect(Struct, frozen=True):
    """Close the links of a session and forget its transfers; no LinkLost follows."""

    session: int


class OpenResults(Struct, frozen=True):
    """Open the result link and send Attach. Answer: ResultsOpened or LinkLost."""

    session: int


class SendTask(Struct, frozen=True):
    """Send on the task door."""

    session: int
    message: TaskToManager


class SendResults(Struct, frozen=True):
    """Send on the result door, split into batches as needed."""

    session: int
    results: list[AttemptResult]


class Fetch(Struct, frozen=True):
    """Bring a file into the cache: verify what is there, else get it from the manager.

    Answer: FilesCached or FileFailed. A Fetch of what is being fetched is no second transfer.
    """

    key: bytes
    size: int


class DropFetch(Struct, frozen=True):
    """Nobody wants this file any more; no answer."""

    key: bytes


class Evict(Struct, frozen=True):
    """Remove these files from the cache; what still runs with one has its own link to it."""

    keys: list[bytes]


class Start(Struct, frozen=True):
    """Make the sandbox and start the command. Answer: NotStarted; or Began, and always Ended.

    `links` are key in the cache, name in the sandbox, permission bits; `environment` is added to
    the worker's own.
    """

    attempt: bytes
    command: list[bytes]
    is_shell: bool
    environment: list[tuple[bytes, bytes]]
    links: list[tuple[bytes, bytes, int]]
    outputs: list[bytes]


class Kill(Struct, frozen=True):
    """End an attempt's processes: SIGTERM, and SIGKILL after `grace_s`. Answer: its Ended."""

    attempt: bytes
    grace_s: float


class Collect(Struct, frozen=True):
    """Hash outputs that lie in the sandbox. Answer: Collected.

    `outputs` are position, name in the sandbox (b"" for STDOUT and STDERR), permission bits.
    """

    attempt: bytes
    outputs: list[tuple[int, bytes, int]]


class Finished(Struct, frozen=True):
    """A result and what of it stays on disk: `files` are position and name in the sandbox."""

    result: AttemptResult
    has_sandbox: bool = False
    files: list[tuple[int, bytes]] = []


class Append(Struct, frozen=True):
    """Write results to the outbox before they are sent; one write for all."""

    finished: list[Finished]


class Acknowledge(Struct, frozen=True):
    """Take results out of the outbox and remove what of them lies on disk."""

    attempts: list[bytes]


class Remove(Struct, frozen=True):
    """Remove the sandboxes of these attempts."""

    attempts: list[bytes]


class Note(Struct, frozen=True):
    """One line for people. `level`: "info", "warning", "error"."""

    level: str
    text: str


class Exit(Struct, frozen=True):
    """End this process with `code`, when what was sent is out. Nothing follows."""

    code: int
    text: str


Effect = (
    Connect
    | Disconnect
    | OpenResults
    | SendTask
    | SendResults
    | Fetch
    | DropFetch
    | Evict
    | Start
    | Kill
    | Collect
    | Append
    | Acknowledge
    | Remove
    | Note
    | Exit
)
