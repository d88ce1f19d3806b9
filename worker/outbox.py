"""Results that the manager has not acknowledged yet, kept where kill -9 cannot reach them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec import Struct

from wqueue.protocol.messages import AttemptResult


class Kept(Struct, frozen=True, array_like=True):
    """A result in the outbox.

    `sandbox` is the folder (with its .out and .err files) to remove once the result is
    acknowledged, empty if nothing is left on disk. `files` are (position, path) of the outputs
    that do not travel inline and are fetched by the manager. `ended_wall_s` is the wall clock when
    the attempt ended, from which ended_ago_s is made anew whenever the result is sent.
    """

    result: AttemptResult
    sandbox: bytes = b""
    files: list[tuple[int, bytes]] = []
    ended_wall_s: float = 0.0


class Outbox:
    """The log of one workdir; at any time one process has it open.

    The workdir's lock guards it: whoever holds the Workdir may open its outbox, and finds there
    what earlier processes of that workdir could not deliver.
    """

    def __init__(self, folder: Path) -> None: ...

    def append(self, results: Sequence[Kept]) -> None:
        """Write results with one write. Raises OSError when the disk does not take them whole.

        After an error nothing of the batch is in the log, and the call may be repeated.
        """

    def acknowledge(self, attempts: Iterable[bytes]) -> list[Kept]:
        """Forget results; gives those that were there, so that their sandboxes can go."""
        raise NotImplementedError

    def pending(self) -> list[Kept]:
        """Give all results that wait, oldest first."""
        raise NotImplementedError

    def get(self, attempt: bytes) -> Kept | None:
        """Look up one result."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def close(self) -> None:
        """Close the log; what waits stays in it."""
