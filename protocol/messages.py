"""Every message of the wire, one Struct each, and the unions per door and direction.

Mirror of protocol/SPEC.md, where life cycles and replies are told. Structs are array-like and
tagged: on the wire a message is a MessagePack array, tag first, then the fields in this order.
A minor version only appends fields with defaults; nothing is ever reordered, retyped or reused.
Names of files and values are bytes, because file names need not be UTF-8. Durations, never
instants, except where a field says wall time.
"""

from typing import Annotated

from msgspec import Meta, Struct

from wqueue.protocol.attempts import ATTEMPT_ID_BYTES
from wqueue.protocol.limits import INLINE_BYTES, NAME_MAX_BYTES
from wqueue.protocol.resources import Resources

U16 = Annotated[int, Meta(ge=0, le=2**16 - 1)]
U32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
U63 = Annotated[int, Meta(ge=0, le=2**63 - 1)]
I64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
I32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Seconds = Annotated[float, Meta(ge=0.0, le=1e12)]
Text = Annotated[str, Meta(max_length=4096)]
Word = Annotated[str, Meta(max_length=256)]
Name = Annotated[bytes, Meta(max_length=NAME_MAX_BYTES)]
Id16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
Secret32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
AttemptId = Annotated[bytes, Meta(min_length=ATTEMPT_ID_BYTES, max_length=ATTEMPT_ID_BYTES)]
Inline = Annotated[bytes, Meta(max_length=INLINE_BYTES)]

STDOUT = 65534
"""Output position that means what the task wrote to its standard output."""

STDERR = 65535
"""Output position that means what the task wrote to its standard error."""

NO_EXIT_CODE = -1
"""exit_code of an attempt whose process did not exit by itself or never ran."""


# --- values inside messages ------------------------------------------------------------------


class FileIdentity(Struct, frozen=True, array_like=True):
    """How a file or folder looks to the client: the proof that the manager sees the same one."""

    path: Name
    size: U63
    mtime_ns: I64
    inode: U63
    boot_id: Word = ""


class FileRef(Struct, frozen=True, array_like=True):
    """One input file by content: BLAKE3-256 digest, size in bytes, permission bits.

    `in_place` names the file on the manager's side, where the manager reads it itself; without it
    the content has been uploaded.
    """

    digest: Digest
    size: U63
    mode: U16 = 0o644
    in_place: FileIdentity | None = None


class InputSpec(Struct, frozen=True, array_like=True):
    """One input of a task: its name in the sandbox (a template) and which file it is.

    `file` >= 0 is a position in the job's `files`; -1 - k means the k-th entry of `columns`, where
    each task has its own position.
    """

    remote: Name
    file: I32


class OutputSpec(Struct, frozen=True, array_like=True):
    """One output: its name in the sandbox and its destination on the manager's side (templates).

    An empty destination keeps it in the manager's store until it is fetched. `flags` is reserved
    (watch, on failure only, on success only).
    """

    remote: Name
    destination: Name = b""
    flags: U16 = 0


class TaskTemplate(Struct, frozen=True, array_like=True):
    """What a worker must know of a job to run any of its tasks.

    `command` is an argument vector, or with `is_shell` one shell line in a list of one. In an
    array the placeholders of command, env and remote names are filled per task.
    """

    command: list[bytes]
    is_shell: bool = False
    is_array: bool = False
    env: list[tuple[bytes, bytes]] = []
    resources: Resources = Resources()
    inputs: list[InputSpec] = []
    outputs: list[OutputSpec] = []
    running_time_max_s: Seconds = 0.0


class JobSpec(Struct, frozen=True, array_like=True):
    """A submission: one task, or an array of `count` tasks from one description.

    The value of task i is items[i], or without items the decimal text of start + i * step.
    `directory` is the client's working folder, which must be shared with the manager before a
    destination is granted. `max_retries` -1 means the default rule: a task's own failure is final,
    a lost worker costs up to five further attempts.
    """

    template: TaskTemplate
    count: Annotated[int, Meta(ge=1, le=100_000_000)] = 1
    start: I64 = 0
    step: I64 = 1
    items: list[Name] = []
    files: list[FileRef] = []
    columns: list[list[U32]] = []
    name: Word = ""
    tag: Word = ""
    category: Word = "default"
    priority: float = 0.0
    max_retries: I32 = -1
    features: list[Word] = []
    directory: FileIdentity | None = None


class Assignment(Struct, frozen=True, array_like=True):
    """One attempt for a worker: which task, its value, and the files of the job's columns."""

    attempt: AttemptId
    value: bytes = b""
    column_files: list[FileRef] = []


class OutputResult(Struct, frozen=True, array_like=True):
    """One output of an attempt: position among the outputs (or STDOUT, STDERR) and its content.

    Content of up to INLINE_BYTES comes with it, larger is fetched by Get. `size` is of the whole.
    """

    position: U16
    size: U63
    mode: U16 = 0o644
    digest: bytes = b""
    inline: Inline | None = None


class Usage(Struct, frozen=True, array_like=True):
    """What an attempt used, as far as the worker could measure it (None: it could not)."""

    wall_s: Seconds = 0.0
    user_s: Seconds | None = None
    system_s: Seconds | None = None
    memory_peak_mb: float | None = None
    stage_in_s: Seconds = 0.0
    queued_s: Seconds = 0.0


class AttemptResult(Struct, frozen=True, array_like=True):
    """How an attempt ended: the record a worker keeps in its outbox until it is acknowledged.

    `outcome` is one of wqueue.protocol.outcomes; `exit_code` is NO_EXIT_CODE unless the process
    exited, `signal` 0 unless one ended it; `text` is one line for a person.
    """

    attempt: AttemptId
    outcome: Word
    exit_code: I32 = NO_EXIT_CODE
    signal: U16 = 0
    text: Text = ""
    usage: Usage = Usage()
    outputs: list[OutputResult] = []
    ended_ago_s: Seconds = 0.0


class HeldAttempt(Struct, frozen=True, array_like=True):
    """One line of a worker's inventory: an attempt it still has.

    `phase` is "queued", "running" or "finished" (its result waits in the outbox).
    """

    attempt: AttemptId
    phase: Word
    running_s: Seconds = 0.0


# --- doors task: worker -> manager --------------------------------------------------------------


class Register(Struct, frozen=True, array_like=True, tag="register"):
    """Worker to manager, first message of a session: who I am, what I offer, what I still have.

    `resume_secret` names the worker process for its whole life (worker_id = first 16 bytes of its
    SHA-256); `session` rises by one with each new connection; `epoch_seen` is the highest epoch
    any manager of this server id has shown.
    """

    resume_secret: Secret32
    session: U32
    resources: Resources
    host: Word
    pid: U32
    software: Word = ""
    features: list[Word] = []
    inventory: list[HeldAttempt] = []
    epoch_seen: U32 = 0
    workdir: Name = b""
    cached_bytes: U63 = 0
    wall_time_left_s: Seconds | None = None
    quarantined: list[AttemptId] = []
    python: Word = ""


class WorkerHeartbeat(Struct, frozen=True, array_like=True, tag="worker_heartbeat"):
    """Worker to manager: alive; what is queued, runs, and waits to be acknowledged."""

    queued: U32 = 0
    running: U32 = 0
    unacknowledged: U32 = 0
    load: float = 0.0
    disk_free_mb: U63 = 0
    resources: Resources | None = None


class Started(Struct, frozen=True, array_like=True, tag="started"):
    """Worker to manager: these attempts run. Not sent for those that end within moments."""

    attempts: list[AttemptId]


class Returned(Struct, frozen=True, array_like=True, tag="returned"):
    """Worker to manager: these attempts are given back unfinished and will not report.

    `reason`: "taken_back" (answer to TakeBack), "leaving", "unknown_job", "does_not_fit".
    """

    attempts: list[AttemptId]
    reason: Word


class Bye(Struct, frozen=True, array_like=True, tag="bye"):
    """Worker to manager: I leave; whatever I had has been returned or reported."""

    reason: Word


# --- doors task: manager -> worker --------------------------------------------------------------


class Registered(Struct, frozen=True, array_like=True, tag="registered"):
    """Manager to worker: admitted as worker `number`; sent after the admission is committed.

    `adopted` and `unwanted` answer the inventory: go on with the first, stop and forget the second
    (nothing of them is wanted any more, results in the outbox included).
    """

    number: U32
    heartbeat_s: Seconds
    silence_max_s: Seconds
    adopted: list[AttemptId] = []
    unwanted: list[AttemptId] = []
    manager_grace_s: Seconds | None = None


class Describe(Struct, frozen=True, array_like=True, tag="describe"):
    """Manager to worker: the description of a job, once per session before its first assignment."""

    job_uid: Id16
    job: U63
    template: TaskTemplate
    files: list[FileRef] = []


class Forget(Struct, frozen=True, array_like=True, tag="forget"):
    """Manager to worker: no more tasks of these jobs will come; drop their descriptions."""

    job_uids: list[Id16]


class Dispatch(Struct, frozen=True, array_like=True, tag="dispatch"):
    """Manager to worker: run these, in this order as room allows. A repeated one is ignored."""

    assignments: list[Assignment]


class Cancel(Struct, frozen=True, array_like=True, tag="cancel"):
    """Manager to worker: stop and forget these attempts. No answer; unknown ones are ignored."""

    attempts: list[AttemptId]


class TakeBack(Struct, frozen=True, array_like=True, tag="take_back"):
    """Manager to worker: return these if they have not begun. Answer: Returned for those only."""

    attempts: list[AttemptId]


class ManagerHeartbeat(Struct, frozen=True, array_like=True, tag="manager_heartbeat"):
    """Manager to all, on announce: alive. `beat` rises by one."""

    beat: U63


class Reattach(Struct, frozen=True, array_like=True, tag="reattach"):
    """Manager to a sender it does not know: begin again at hello."""


class Leave(Struct, frozen=True, array_like=True, tag="leave"):
    """Manager to worker: end. With `finish_running` only after what runs; else return it first."""

    reason: Word
    finish_running: bool = False


class Refusal(Struct, frozen=True, array_like=True, tag="refusal"):
    """Manager to any peer: no. `request` is 0 where no request is answered; fatal ones close."""

    code: Word
    text: Text
    request: U63 = 0
    is_fatal: bool = False


# --- door announce ----------------------------------------------------------------------------


class Stopping(Struct, frozen=True, array_like=True, tag="stopping"):
    """Manager to all, on announce: this process ends.

    With `is_final` workers return what they run and end; without it they carry on alone and look
    for the next manager process until the manager grace is over.
    """

    is_final: bool
    reason: Word = ""


# --- door result: both ways -------------------------------------------------------------------


class Attach(Struct, frozen=True, array_like=True, tag="attach"):
    """Worker to manager, first message on the result door: this link belongs to my session."""

    session: U32


class Result(Struct, frozen=True, array_like=True, tag="result"):
    """Worker to manager: attempts ended. Repeated after each new session until acknowledged."""

    results: list[AttemptResult]


class ResultAck(Struct, frozen=True, array_like=True, tag="result_ack"):
    """Manager to worker: these results are committed, or will never be wanted; forget them.

    `verdict`: "recorded", "superseded" (another attempt won, or canceled), "unknown" (no such job
    here: the worker keeps it in quarantine).
    """

    attempts: list[AttemptId]
    verdict: Word = "recorded"


class Get(Struct, frozen=True, array_like=True, tag="get"):
    """Receiver of a file to its holder: send `length` bytes from `offset`.

    `source` says which file, by its first byte: b"d" + digest (content), b"o" + attempt id +
    position as big-endian u16 (an output at the worker that made it), b"r" + job uid + index as
    u64 + position as u16 (a finished task's output at the manager). `transfer` is the receiver's
    own number; `length` is at most CHUNK_BYTES. To ask is to give credit: a receiver asks only for
    what it can write.
    """

    transfer: U32
    source: Annotated[bytes, Meta(max_length=64)]
    offset: U63
    length: U32


class Data(Struct, frozen=True, array_like=True, tag="data"):
    """Holder to receiver: the bytes are the message's second frame. Empty at or past the end."""

    transfer: U32
    offset: U63


class GetFailed(Struct, frozen=True, array_like=True, tag="get_failed"):
    """Holder to receiver: that file cannot be had. `code`: "missing", "changed", "unreadable"."""

    transfer: U32
    code: Word
    text: Text = ""


# --- door client: client -> manager -------------------------------------------------------------


class Open(Struct, frozen=True, array_like=True, tag="open"):
    """Client to manager, first message: who I am. `resume_secret` as for workers."""

    resume_secret: Secret32
    session: U32
    host: Word = ""
    pid: U32 = 0
    program: Word = ""
    boot_id: Word = ""
    uid: U32 = 0


class Declare(Struct, frozen=True, array_like=True, tag="declare"):
    """Client to manager: I shall submit with these files; which must be uploaded?

    Each names its place at the client in `in_place`. `directory` asks whether that folder is
    shared, so that outputs may be written below it.
    """

    request: U63
    files: list[FileRef] = []
    directory: FileIdentity | None = None


class Submit(Struct, frozen=True, array_like=True, tag="submit"):
    """Client to manager: take this job. Answer: Submitted (committed) or Refusal.

    `submission` is made by the client (a UUIDv7): a repeat with the same encoded `spec` is the
    same job, with another one a conflict. A large spec is uploaded and named by `spec_digest`.
    """

    request: U63
    submission: Id16
    spec: bytes = b""
    spec_digest: bytes = b""
    watch: bool = False


class JobRange(Struct, frozen=True, array_like=True):
    """Some tasks of a job: those with first <= index <= last. The default is all."""

    job: U63
    first: U63 = 0
    last: U63 = 2**63 - 1


class Watch(Struct, frozen=True, array_like=True, tag="watch"):
    """Client to manager: tell me of progress in these jobs. Answer: Progress for each, at once."""

    request: U63
    jobs: list[U63]


class GetResults(Struct, frozen=True, array_like=True, tag="get_results"):
    """Client to manager: the ended tasks of a job after event `cursor`, at most `limit`.

    Events count from 1 within a job, in the order in which tasks ended. Answer: Results.
    """

    request: U63
    job: U63
    cursor: U63 = 0
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1000


class CancelTasks(Struct, frozen=True, array_like=True, tag="cancel_tasks"):
    """Client to manager: cancel these tasks. Answer: Done with the number of tasks canceled."""

    request: U63
    ranges: list[JobRange]


class Query(Struct, frozen=True, array_like=True, tag="query"):
    """Client to manager: a view. `what`: "queue", "jobs", "tasks", "workers", "explain".

    `ranges` selects (none: all). Listings start at `offset` and hold at most `limit` rows.
    """

    request: U63
    what: Word
    ranges: list[JobRange] = []
    offset: U63 = 0
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1000
    active_only: bool = False


class Control(Struct, frozen=True, array_like=True, tag="control"):
    """Client to manager: an order of the owner. `action`: "shutdown". Answer: Done."""

    request: U63
    action: Word
    arguments: list[Text] = []


# --- door client: manager -> client -------------------------------------------------------------


class Opened(Struct, frozen=True, array_like=True, tag="opened"):
    """Manager to client: at your service."""

    software: Word
    silence_max_s: Seconds = 0.0


class Declared(Struct, frozen=True, array_like=True, tag="declared"):
    """Manager to client: positions of the files it reads in place, and of those it lacks.

    Those it lacks it will fetch by Get as soon as it can; FileStored follows for each.
    """

    request: U63
    in_place: list[U32] = []
    wanted: list[U32] = []
    is_directory_shared: bool = False


class FileStored(Struct, frozen=True, array_like=True, tag="file_stored"):
    """Manager to client: this content is stored (or `error` says why not)."""

    digest: Digest
    error: Text = ""


class Submitted(Struct, frozen=True, array_like=True, tag="submitted"):
    """Manager to client: the job is committed and will be done."""

    request: U63
    job: U63
    job_uid: Id16
    is_repeat: bool = False


class Counts(Struct, frozen=True, array_like=True):
    """How many tasks of a job, or of the queue, are in each state."""

    blocked: U63 = 0
    held: U63 = 0
    ready: U63 = 0
    assigned: U63 = 0
    running: U63 = 0
    retrieving: U63 = 0
    unknown: U63 = 0
    done: U63 = 0
    failed: U63 = 0
    canceled: U63 = 0


class Progress(Struct, frozen=True, array_like=True, tag="progress"):
    """Manager to client: how far a watched job is. State shown here is committed.

    `events` is the number of ended tasks that GetResults can list; `failed` of `counts` is the
    part of `done` whose outcome is not succeeded.
    """

    job: U63
    events: U63
    counts: Counts
    is_ended: bool = False


class TaskRecord(Struct, frozen=True, array_like=True):
    """One ended task: the record that the store keeps and clients get.

    `ended_wall_s` is wall time (seconds since 1970). `tries` counts all attempts. `outputs` holds
    what stayed inline (STDOUT and STDERR) or says where it can be had.
    """

    job: U63
    index: U63
    event: U63
    outcome: Word
    exit_code: I32 = NO_EXIT_CODE
    signal: U16 = 0
    text: Text = ""
    worker: U32 = 0
    host: Word = ""
    tries: U32 = 0
    usage: Usage = Usage()
    outputs: list[OutputResult] = []
    ended_wall_s: float = 0.0
    attempt: bytes = b""


class Results(Struct, frozen=True, array_like=True, tag="results"):
    """Manager to client: ended tasks in order of their events; ask again from the last one's."""

    request: U63
    job: U63
    records: list[TaskRecord]


class Done(Struct, frozen=True, array_like=True, tag="done"):
    """Manager to client: the request was carried out; `count` says on how many."""

    request: U63
    count: U63 = 0


class QueueRow(Struct, frozen=True, array_like=True):
    """The manager at a glance. Times in seconds; resources of all live workers together."""

    name: Word
    server_id: bytes
    epoch: U32
    host: Word
    port: U16
    software: Word
    up_s: Seconds
    counts: Counts
    jobs: U63
    jobs_active: U63
    workers: U32
    workers_away: U32
    workers_busy: U32
    total: Resources
    committed: Resources
    store_error: Text = ""
    state_dir: Name = b""


class JobRow(Struct, frozen=True, array_like=True):
    """One job in a listing. `state`: "waiting", "running", "done", "failed", "canceled"."""

    job: U63
    name: Word
    tag: Word
    category: Word
    priority: float
    state: Word
    count: U63
    counts: Counts
    command: bytes
    submitted_wall_s: float
    ended_wall_s: float = 0.0
    resources: Resources = Resources()
    directory: Name = b""


class TaskRow(Struct, frozen=True, array_like=True):
    """One task in a listing; `record` is there when it has ended, `reason` while it waits."""

    job: U63
    index: U63
    state: Word
    command: bytes
    worker: U32 = 0
    host: Word = ""
    running_s: Seconds | None = None
    tries: U32 = 0
    resources: Resources = Resources()
    record: TaskRecord | None = None
    reason: Text = ""
    priority: float = 0.0


class WorkerRow(Struct, frozen=True, array_like=True):
    """One worker in a listing. `state`: "live", "away", "gone"."""

    number: U32
    state: Word
    host: Word
    address: Word
    pid: U32
    total: Resources
    committed: Resources
    queued: U32
    running: U32
    done: U63
    failed: U63
    heard_ago_s: Seconds
    software: Word = ""
    features: list[Word] = []
    workdir: Name = b""


class Answer(Struct, frozen=True, array_like=True, tag="answer"):
    """Manager to client: the rows of a Query; only the list asked for is filled.

    `total` is the number of rows there are in all.
    """

    request: U63
    total: U63 = 0
    queue: QueueRow | None = None
    jobs: list[JobRow] = []
    tasks: list[TaskRow] = []
    workers: list[WorkerRow] = []


# --- unions per door and direction --------------------------------------------------------------

TaskToManager = Register | WorkerHeartbeat | Started | Returned | Bye
TaskFromManager = (
    Registered | Describe | Forget | Dispatch | Cancel | TakeBack | Leave | Reattach | Refusal
)
ResultToManager = Attach | Result | Get | Data | GetFailed
ResultFromManager = ResultAck | Get | Data | GetFailed | Reattach | Refusal
ClientToManager = (
    Open
    | Declare
    | Submit
    | Watch
    | GetResults
    | CancelTasks
    | Query
    | Control
    | Get
    | Data
    | GetFailed
)
ClientFromManager = (
    Opened
    | Declared
    | FileStored
    | Submitted
    | Progress
    | Results
    | Done
    | Answer
    | Get
    | Data
    | GetFailed
    | Reattach
    | Refusal
)
Announcement = ManagerHeartbeat | Stopping

FromWorker = TaskToManager | ResultToManager
ToWorker = TaskFromManager | ResultFromManager


# --- batches: what a frame holds ----------------------------------------------------------------


class ToManagerBatch(Struct, frozen=True, array_like=True):
    """Header of each frame from a peer: first 8 bytes of the session token, sequence from 1.

    The messages follow in the same frame, as an array of the door's union.
    """

    token_tag: Annotated[bytes, Meta(min_length=8, max_length=8)]
    sequence: U63


class FromManagerBatch(Struct, frozen=True, array_like=True):
    """Header of each frame from the manager.

    Epoch, the peer's session, sequence from 1 per door, highest sequence seen from the peer.
    """

    epoch: U32
    session: U32
    sequence: U63
    seen: U63
