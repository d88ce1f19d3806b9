"""What the rooms that move files need from the loop, and how they name the other side."""

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from wqueue.manager.core.events import OutputsPublished, OutputsStaged
from wqueue.protocol.messages import Data, Declared, FileStored, Get, GetFailed


class Peer(NamedTuple):
    """Whom a file comes from or goes to: the core's number of the worker's session or client."""

    kind: Literal["worker", "client"]
    number: int


class FinishedOutput(NamedTuple):
    """Where an output of an ended task lies: the file, or with b"" the manager's own store."""

    job: int
    destination: bytes


class Shell(Protocol):
    """What Files needs from the loop. `post` alone is called from other threads."""

    def post(self, call: Callable[[], None], /) -> None:
        """Have `call` run in the loop's thread soon, in order; must not block."""

    def send(
        self,
        peer: Peer,
        message: Get | Data | GetFailed | Declared | FileStored,
        data: bytes | None = None,
        /,
    ) -> None:
        """Send to a peer: Get, Data and GetFailed on a worker's result door or a client's door.

        A peer that is gone is no error.
        """

    def emit(self, event: OutputsStaged | OutputsPublished, /) -> None:
        """Hand an event to the core, in the loop's thread."""

    def find_output(self, job_uid: bytes, index: int, position: int, /) -> FinishedOutput | None:
        """Say where an ended task's output lies; None when there is none (yet)."""
