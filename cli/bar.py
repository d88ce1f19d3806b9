"""The progress bar of a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from wqueue.cli.tally import Standing, Tally
from wqueue.protocol.messages import Progress

REFRESH_PER_S = 5.0
"""Redraws a second: enough to look alive, little to compute."""


class Bar:
    """Shows news of jobs in a bar that has been drawn."""

    def __init__(self, drawn: RichProgress) -> None:
        self.drawn = drawn
        self.tally = Tally()
        self.row = drawn.add_task("tasks", total=None, news="")

    def __call__(self, news: Progress) -> None:
        """Move the bar."""
        standing = self.tally.add(news)
        self.drawn.update(
            self.row, total=standing.total, completed=standing.ended, news=_rest(standing)
        )


@contextmanager
def shown_bar() -> Iterator[Bar]:
    """Draw a bar on stderr while the block runs."""
    drawn = RichProgress(
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[news]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        refresh_per_second=REFRESH_PER_S,
    )
    with drawn:
        yield Bar(drawn)


def _rest(standing: Standing) -> str:
    at_workers = f"{standing.at_workers} at workers" if standing.at_workers else ""
    failed = f"[red]{standing.failed} failed[/red]" if standing.failed else ""
    return ", ".join(part for part in (at_workers, failed) if part)
