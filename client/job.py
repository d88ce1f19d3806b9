"""A submitted job as its submitter holds it, and what became of it in numbers."""

from collections.abc import Iterator
from typing import Protocol

from msgspec import Struct, structs

from wqueue.protocol.messages import Progress, TaskRecord


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
        return self.is_ended and self.succeeded == self.count


def summarize(progress: Progress) -> Summary:
    """Put a Progress in the words of a summary."""
    counts = progress.counts
    return Summary(
        job=progress.job,
        count=sum(structs.astuple(counts)) - counts.failed,
        succeeded=counts.done - counts.failed,
        failed=counts.failed,
        canceled=counts.canceled,
        is_ended=progress.is_ended,
    )


class Handles(Protocol):
    """What a Job needs of its Client."""

    def wait(self, jobs: "Job", timeout_s: float | None = None) -> list[Summary]:
        """See Client."""

    def results(
        self, jobs: "Job", cursor: int = 0, *, follow: bool = True, timeout_s: float | None = None
    ) -> Iterator[TaskRecord]:
        """See Client."""

    def progress(self, job: "Job") -> Progress:
        """See Client."""

    def cancel(self, ranges: "Job") -> int:
        """See Client."""


class Job:
    """One submission at the manager: `id` is its number there, `uid` its 16 random bytes.

    `uid` is empty when the handle was made from a number.
    """

    __slots__ = ("_client", "count", "id", "uid")

    def __init__(self, client: Handles, job_id: int, uid: bytes, count: int) -> None:
        self._client = client
        self.id = job_id
        self.uid = uid
        self.count = count

    def __repr__(self) -> str:
        return f"<Job {self.id}: {self.count} tasks>"

    def wait(self, timeout_s: float | None = None) -> Summary:
        """Wait until every task has ended; WaitTimedOut when the time is over first."""
        return self._client.wait(self, timeout_s)[0]

    def results(
        self, cursor: int = 0, *, follow: bool = True, timeout_s: float | None = None
    ) -> Iterator[TaskRecord]:
        """Give each task's record once, as they end, until all have; see Client.results."""
        return self._client.results(self, cursor, follow=follow, timeout_s=timeout_s)

    def progress(self) -> Progress:
        """Say how far it is, as committed at the manager."""
        return self._client.progress(self)

    def summary(self) -> Summary:
        """Say in numbers what has become of it so far."""
        return summarize(self.progress())

    def cancel(self) -> int:
        """Cancel whatever of it has not ended; give the number of tasks canceled."""
        return self._client.cancel(self)
