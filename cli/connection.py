"""How a tool gets its Client, and what selectors mean at its manager."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wqueue.cli.options import Place
from wqueue.cli.output import tell
from wqueue.cli.selection import Selector, resolve
from wqueue.protocol.errors import NoSuchTask
from wqueue.protocol.messages import JobRange

if TYPE_CHECKING:
    from wqueue.client import Client


def connect(place: Place, program: str, *, is_watched: bool = False) -> "Client":
    """Connect to the manager that is meant; `is_watched` tells people when the link comes and goes.

    Raises WqueueError.
    """
    # The sockets and the encryption take most of a tool's start: --help and usage errors do
    # without them.
    from wqueue.client import Client

    return Client(
        place.manager,
        name=place.name,
        info_file=place.info_file,
        state_dir=place.state_dir,
        password_file=place.password_file,
        program=program,
        on_connection=_Teller() if is_watched else None,
    )


def ranges_of(
    client: "Client", selectors: Sequence[Selector], *, active_only: bool = False
) -> list[JobRange]:
    """Say which tasks the selectors mean, asking the manager where that is needed.

    With `active_only`, "all" and ranges of jobs mean those that have not ended.
    """
    if not any(selector.needs_listing for selector in selectors):
        return resolve(selectors)
    is_last_asked = any(selector.jobs is None for selector in selectors)
    rows = client.jobs(active_only=active_only and not is_last_asked)
    return resolve(selectors, [row.job for row in rows])


def job_numbers(client: "Client", selectors: Sequence[Selector]) -> list[int]:
    """Say which jobs the selectors mean, each once."""
    return list(dict.fromkeys(r.job for r in ranges_of(client, selectors)))


def check_tasks(client: "Client", ranges: Sequence[JobRange]) -> None:
    """See that each range has a task in its job. Raises NoSuchTask."""
    inner = [wanted for wanted in ranges if wanted.first > 0]
    if not inner:
        return
    jobs = dict.fromkeys(wanted.job for wanted in inner)
    counts = {row.job: row.count for row in client.jobs([JobRange(job) for job in jobs])}
    for wanted in inner:
        if wanted.first >= counts.get(wanted.job, wanted.first + 1):
            count = counts[wanted.job]
            raise NoSuchTask(
                f"there is no task {wanted.job}.{wanted.first}: "
                f"job {wanted.job} has the tasks 0 to {count - 1}"
            )


class _Teller:
    """Says when the connection is lost, and when it is back."""

    def __init__(self) -> None:
        self.is_lost = False

    def __call__(self, news: str) -> None:
        was_lost, self.is_lost = self.is_lost, news.startswith("lost")
        if was_lost or self.is_lost:
            tell(f"connection to the manager: {news}")
