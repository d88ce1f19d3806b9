"""What can happen to the manager's core, and what it can want.

Events are past participles, effects imperatives. Effects are carried out in order. Each Record has
a number, rising by one; an effect with `after` > 0 waits until the record of that number is
committed, and what is addressed to the same peer behind it waits too, so that a peer never sees
things out of order. Nothing else connects deciding and doing.
"""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from wqueue.protocol.messages import (
    AttemptResult,
    ClientFromManager,
    ClientToManager,
    FromWorker,
    JobSpec,
    Register,
    TaskRecord,
    ToWorker,
)


class Now(NamedTuple):
    """The two clocks: intervals use the first, stored instants the second."""

    monotonic_s: float
    wall_s: float


# --- events -----------------------------------------------------------------------------------


class Restored(Struct, frozen=True):
    """The store was read: always the first event. `epoch` is committed already."""

    epoch: int
    next_job: int
    next_worker: int
    jobs: "list[StoredJob]"
    attempts: "list[AttemptStarted]"
    publishing: "list[TaskPublishing]"
    workers: "list[WorkerAdmitted]"


class StoredJob(Struct, frozen=True):
    """One job as the store has it: its acceptance and which of its tasks have ended.

    `ended` holds the indexes in the order of their events; of these `failed_indexes` did not
    succeed (`failed` is their number) and `canceled` were canceled one by one: parts of `ended`
    that have nothing in common. `lost` and `failures` count, per index of unfinished tasks,
    earlier attempts that ended by a lost worker or by the task's own failure. `last_event` is the
    highest event number in use; it is above len(ended) where events were left out.
    """

    added: "JobAdded"
    ended: Sequence[int]
    failed: int = 0
    canceled: Sequence[int] = ()
    is_canceled: bool = False
    ended_wall_s: float = 0.0
    lost: dict[int, int] = {}
    failures: dict[int, int] = {}
    failed_indexes: Sequence[int] = ()
    last_event: int = 0


class WorkerRegistered(Struct, frozen=True):
    """A proven worker opened a session; `session` numbers the connections of this process."""

    session: int
    worker_id: bytes
    address: str
    register: Register


class WorkerHeard(Struct, frozen=True):
    """A message of a registered worker (any door)."""

    session: int
    message: FromWorker


class WorkerLost(Struct, frozen=True):
    """A worker's link is gone."""

    session: int


class ClientHeard(Struct, frozen=True):
    """A message of a proven client. `client` numbers its connection, `credential` names its key."""

    client: int
    role: str
    credential: bytes
    message: ClientToManager


class JobSubmitted(Struct, frozen=True):
    """A submission whose description was decoded and whose files were checked by the shell.

    `may_write` says that its destinations are granted. `spec_bytes` is the description verbatim.
    """

    client: int
    credential: bytes
    request: int
    submission: bytes
    spec: JobSpec
    spec_bytes: bytes
    may_write: bool
    watch: bool = False


class ClientGone(Struct, frozen=True):
    """A client's link is gone."""

    client: int


class OutputsStaged(Struct, frozen=True):
    """All outputs of an attempt lie in staging, or could not be brought there.

    `is_worker_at_fault`: the worker's link was lost, or what it sent is not what it reported.
    `is_temporary`: it may go better later (the disk is full).
    """

    attempt: bytes
    error: str = ""
    is_worker_at_fault: bool = False
    is_temporary: bool = False


class OutputsPublished(Struct, frozen=True):
    """The staged outputs have their final names, or `error` says why not."""

    attempt: bytes
    error: str = ""
    is_temporary: bool = False


class StoreBlocked(Struct, frozen=True):
    """Commits fail (full disk, I/O error); the records wait and will be tried again."""

    reason: str


class StoreOpened(Struct, frozen=True):
    """Commits go through again."""


class Ticked(Struct, frozen=True):
    """Time has passed; sent when `deadline()` is reached."""


class Resumed(Struct, frozen=True):
    """The loop had stood still; every liveness limit begins anew."""


class StopRequested(Struct, frozen=True):
    """The daemon was asked to end: `is_final` sends the workers home."""

    is_final: bool


Event = (
    Restored
    | WorkerRegistered
    | WorkerHeard
    | WorkerLost
    | ClientHeard
    | JobSubmitted
    | ClientGone
    | OutputsStaged
    | OutputsPublished
    | StoreBlocked
    | StoreOpened
    | Ticked
    | Resumed
    | StopRequested
)


# --- records: what the store keeps -------------------------------------------------------------


class JobAdded(Struct, frozen=True):
    """A job was accepted."""

    record: int
    job: int
    job_uid: bytes
    credential: bytes
    submission: bytes
    spec_bytes: bytes
    submitted_wall_s: float
    may_write: bool


class JobEnded(Struct, frozen=True):
    """The last task of a job has ended (or the whole job was canceled)."""

    record: int
    job: int
    wall_s: float
    is_canceled: bool = False


class WorkerAdmitted(Struct, frozen=True):
    """A worker was admitted under this number."""

    record: int
    worker_id: bytes
    number: int
    host: str
    wall_s: float


class WorkerLeft(Struct, frozen=True):
    """A worker is gone; nobody waits for it after a restart."""

    record: int
    worker_id: bytes


class AttemptStarted(Struct, frozen=True):
    """An attempt was given to a worker. Trails: nothing waits for it."""

    record: int
    attempt: bytes
    job: int
    index: int
    worker_id: bytes
    worker: int
    wall_s: float


class AttemptFailed(Struct, frozen=True):
    """An attempt ended without ending its task: it is kept as history, the task is ready again.

    `counts_as`: "lost" (worker lost), "failure" (the task's own), "" (given back: not counted).
    """

    record: int
    attempt: bytes
    job: int
    index: int
    counts_as: str
    result: AttemptResult


class TaskPublishing(Struct, frozen=True):
    """An attempt has won; its staged outputs are being given their final names."""

    record: int
    attempt: bytes
    job: int
    index: int
    task: TaskRecord


class TaskEnded(Struct, frozen=True):
    """A task has ended: `task` is final. Removes its attempt and publishing rows."""

    record: int
    attempt: bytes
    job: int
    index: int
    task: TaskRecord


Record = (
    JobAdded
    | JobEnded
    | WorkerAdmitted
    | WorkerLeft
    | AttemptStarted
    | AttemptFailed
    | TaskPublishing
    | TaskEnded
)


# --- effects ----------------------------------------------------------------------------------


class Send(Struct, frozen=True):
    """Send to a worker's session; the door follows from the message."""

    session: int
    message: ToWorker
    after: int = 0


class Reply(Struct, frozen=True):
    """Send to a client. Of Progress for the same job only the newest need be sent."""

    client: int
    message: ClientFromManager
    after: int = 0


class DropWorker(Struct, frozen=True):
    """Cut a worker's links and forget its key, once what was sent before is out."""

    session: int
    reason: str


class StageOutputs(Struct, frozen=True):
    """Bring the outputs of a result into staging, from the result itself or from the worker.

    Each has its final path, or b"" for the manager's own store. Answer: OutputsStaged.
    """

    session: int
    job: int
    index: int
    attempt: bytes
    outputs: "list[StagedOutput]"


class StagedOutput(Struct, frozen=True):
    """One output on its way to its final place; `inline` is its content if it came along."""

    position: int
    size: int
    mode: int
    digest: bytes
    destination: bytes
    inline: bytes | None = None


class PublishOutputs(Struct, frozen=True):
    """Give the staged outputs their final names. Repeatable. Answer: OutputsPublished."""

    job: int
    index: int
    attempt: bytes
    outputs: list[StagedOutput]
    after: int = 0


class DiscardOutputs(Struct, frozen=True):
    """Stop staging for this attempt and remove what it has staged."""

    job: int
    index: int
    attempt: bytes


class Note(Struct, frozen=True):
    """One line for the log."""

    level: str
    text: str


class Announce(Struct, frozen=True):
    """Tell all workers on the announce door."""

    is_final: bool
    reason: str


class Stop(Struct, frozen=True):
    """End the daemon when all records are committed and all effects before this one are out."""

    is_final: bool


Effect = (
    Record
    | Send
    | Reply
    | DropWorker
    | StageOutputs
    | PublishOutputs
    | DiscardOutputs
    | Note
    | Announce
    | Stop
)
