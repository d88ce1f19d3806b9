"""Progress on stderr: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from wqueue.cli.output import tell
from wqueue.cli.tally import Standing, Tally
from wqueue.protocol.messages import Progress

LINE_INTERVAL_S = 10.0
"""At most this often is a line written where there is no terminal: logs are to stay short."""


class Pace:
    """Decides when the next line is due, so that a long job fills no log."""

    def __init__(self, interval_s: float = LINE_INTERVAL_S) -> None:
        self.interval_s = interval_s
        self.said: Standing | None = None
        self.said_at_s = float("-inf")

    def is_due(self, standing: Standing, now_s: float) -> bool:
        """Tell whether to say it now, and take it as said if so."""
        is_over = standing.ended == standing.total
        if standing == self.said or not (is_over or now_s - self.said_at_s >= self.interval_s):
            return False
        self.said, self.said_at_s = standing, now_s
        return True


class Shown(Protocol):
    """Whatever takes news of jobs and shows it."""

    def __call__(self, news: Progress) -> None:
        """Show the news."""


class Lines:
    """Progress as lines on stderr."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.pace = Pace()

    def __call__(self, news: Progress) -> None:
        """Write a line if one is due."""
        standing = self.tally.add(news)
        if self.pace.is_due(standing, time.monotonic()):
            tell(standing.sentence())


@contextmanager
def shown_progress(is_wanted: bool) -> Iterator[Shown | None]:
    """Show progress while the block runs, in the way that suits stderr."""
    if not is_wanted:
        yield None
    elif not sys.stderr.isatty():
        yield Lines()
    else:
        # rich takes longer to import than the rest of the tool, and only a bar needs it.
        from wqueue.cli.bar import shown_bar

        with shown_bar() as bar:
            yield bar
