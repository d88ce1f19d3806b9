"""A submitted job as its submitter holds it, and what became of it in numbers."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

from wqueue.protocol.messages import Progress, TaskRecord

if TYPE_CHECKING:
    from wqueue.client import Client


class Summary(Struct, frozen=True):
    """What became of a job: how many of its tasks ended how."""

    job: int
    count: int
    succeeded: int = 0
    failed: int = 0
    canceled: int = 0
    is_ended: bool = False

    @property
    def all_succeeded(self) -> bool:
        """Tell whether every task has ended well."""
        return self.succeeded == self.count


class Job:
    """One submission at the manager: `id` is its number there, `uid` its 16 random bytes.

    `uid` is empty and `count` 0 until they are known, when the handle was made from a number.
    """

    def __init__(self, client: "Client", job_id: int, uid: bytes = b"", count: int = 0) -> None:
        self.client = client
        self.id = job_id
        self.uid = uid
        self.count = count

    def wait(self, timeout_s: float | None = None) -> Summary:
        """Wait until every task has ended; WaitTimedOut when the time is over first."""
        raise NotImplementedError

    def results(self, cursor: int = 0) -> Iterator[TaskRecord]:
        """Give each task's record once, as they end, until all have; see Client.results."""
        raise NotImplementedError

    def progress(self) -> Progress:
        """Say how far it is, as committed at the manager."""
        raise NotImplementedError

    def summary(self) -> Summary:
        """Say in numbers what has become of it so far."""
        raise NotImplementedError

    def cancel(self) -> int:
        """Cancel whatever of it has not ended; give the number of tasks canceled."""
        raise NotImplementedError
