"""Files in and out of the manager: uploads, what workers read, staging and publishing of outputs.

One object stands between the loop and the disk. The loop tells it what it heard and carries its
messages; all disk work is done by a few I/O threads, whose results come back by `post`. Every
method is called in the loop's thread and returns at once. The receiver of a file always asks (Get)
and to ask is to give credit; so memory here is bounded by the pool of credit, not by file sizes.

    uploads   Declare -> Declared, Get b"d"+digest to the client -> STATE_DIR/files -> FileStored
    inputs    Get b"d"+digest of a worker <- the file in place, or STATE_DIR/files
    outputs   StageOutputs -> Get b"o"+... to the worker -> staging -> OutputsStaged;
              PublishOutputs -> rename -> OutputsPublished; DiscardOutputs -> removed
    fetches   Get b"r"+uid+index+position of a client <- STATE_DIR/outputs or the destination
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from msgspec import Struct

from wqueue.manager.core.events import (
    DiscardOutputs,
    OutputsPublished,
    OutputsStaged,
    PublishOutputs,
    Restored,
    StageOutputs,
)
from wqueue.protocol.messages import (
    Data,
    Declare,
    Declared,
    FileIdentity,
    FileRef,
    FileStored,
    Get,
    GetFailed,
)


class Peer(NamedTuple):
    """Whom a file comes from or goes to: the core's number of the worker's session or client."""

    kind: Literal["worker", "client"]
    number: int


class Verdict(Struct, frozen=True):
    """Whether a submission's files are all there. `code` "" means yes, else it is the refusal's.

    Codes: "unknown_file" (neither uploaded nor granted in place), "changed" (in place, but not the
    file that was declared), "not_shared" (in place, but this client's word is not enough).
    `may_write` says that the destinations are granted.
    """

    code: str = ""
    text: str = ""
    may_write: bool = False


class FinishedOutput(NamedTuple):
    """Where an output of an ended task lies: the file, or with b"" the manager's own store."""

    job: int
    destination: bytes


class Shell(Protocol):
    """What Files needs from the loop. `post` alone is called from other threads."""

    def post(self, call: Callable[[], None]) -> None:
        """Have `call` run in the loop's thread soon, in order; must not block."""

    def send(
        self,
        peer: Peer,
        message: Get | Data | GetFailed | Declared | FileStored,
        data: bytes | None,
    ) -> None:
        """Send to a peer: Get, Data and GetFailed on a worker's result door or a client's door.

        A peer that is gone is no error.
        """

    def emit(self, event: OutputsStaged | OutputsPublished) -> None:
        """Hand an event to the core, in the loop's thread."""

    def find_output(self, job_uid: bytes, index: int, position: int) -> FinishedOutput | None:
        """Say where an ended task's output lies; None when there is none (yet)."""


class Files:
    """All file traffic of the manager."""

    def __init__(self, state_dir: Path, shell: Shell) -> None:
        """Name the state directory; its folders are made if missing (mode 0700)."""
        raise NotImplementedError

    def start(self, restored: Restored) -> None:
        """Remove what earlier processes staged for attempts that are not being published.

        Call it once with the store's first event, before any other method. Blocks (before the loop
        runs); starts the I/O threads.
        """
        raise NotImplementedError

    def add_job(self, files: Iterable[FileRef]) -> None:
        """Let workers read these files: call it for each accepted or restored unfinished job."""
        raise NotImplementedError

    def forget_job(self, files: Iterable[FileRef]) -> None:
        """Take back one `add_job`; files of other jobs stay."""
        raise NotImplementedError

    def declare(self, client: int, message: Declare, is_trusted: bool) -> None:
        """Answer a Declare by Declared, then fetch what is wanted and tell by FileStored.

        `is_trusted`: the client has proven the owner's role and runs under the manager's uid.
        """
        raise NotImplementedError

    def check_submission(
        self,
        files: list[FileRef],
        directory: FileIdentity | None,
        is_trusted: bool,
        then: Callable[[Verdict], None],
    ) -> None:
        """Check that all files of a decoded JobSpec can be served; `then` hears in the loop."""
        raise NotImplementedError

    def read_stored(self, digest: bytes, then: Callable[[bytes | None], None]) -> None:
        """Read uploaded content whole (a large job description); None when it is not here."""
        raise NotImplementedError

    def carry_out(self, effect: StageOutputs | PublishOutputs | DiscardOutputs) -> None:
        """Begin to carry out an effect of the core (PublishOutputs once its record is committed).

        StageOutputs is answered by exactly one OutputsStaged unless DiscardOutputs comes first or
        the same attempt is staged again; PublishOutputs by exactly one OutputsPublished.
        DiscardOutputs of an unknown attempt is harmless. When the worker's link is lost in the
        middle, the answer is an OutputsStaged with an error and is_worker_at_fault False.
        """
        raise NotImplementedError

    def heard(self, peer: Peer, message: Get | Data | GetFailed, data: bytes | None = None) -> None:
        """Take a file message of a peer whose role allows it; `data` is Data's second frame."""
        raise NotImplementedError

    def lost(self, peer: Peer) -> None:
        """Forget a peer whose link is gone (WorkerLost, ClientGone)."""
        raise NotImplementedError

    def pump(self) -> bool:
        """Send file content that has been read, at most 4 chunks: call it once per loop turn.

        Call it after all control. True means that more waits: the loop should not block.
        """
        raise NotImplementedError

    def tick(self, monotonic_s: float) -> None:
        """Give up transfers without progress: call it about once a second."""
        raise NotImplementedError

    def close(self) -> None:
        """End the I/O threads after what they have begun."""
        raise NotImplementedError
