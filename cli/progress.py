"""Progress on stderr: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from wqueue.cli.output import tell
from wqueue.cli.views import under_way
from wqueue.protocol.messages import Counts, Progress

LINE_INTERVAL_S = 10.0
"""At most this often is a line written where there is no terminal: logs are to stay short."""


class Standing(NamedTuple):
    """How far all watched jobs are together."""

    total: int = 0
    ended: int = 0
    failed: int = 0
    running: int = 0

    def sentence(self) -> str:
        """Say it in one line."""
        percent = 100 * self.ended // self.total if self.total else 0
        text = f"{self.ended} of {self.total} tasks ended ({percent} %)"
        if self.running:
            text += f", {self.running} running"
        if self.failed:
            text += f", {self.failed} failed"
        return text


class Tally:
    """The newest news of each watched job, added up."""

    def __init__(self) -> None:
        self.counts_of: dict[int, Counts] = {}

    def add(self, news: Progress) -> Standing:
        """Note the news of one job and give the sum over all."""
        self.counts_of[news.job] = news.counts
        return self.standing()

    def standing(self) -> Standing:
        """Add up what is known."""
        total = ended = failed = running = 0
        for counts in self.counts_of.values():
            ended_here = counts.done + counts.canceled
            waiting = counts.blocked + counts.held + counts.ready
            ended += ended_here
            failed += counts.failed
            running += under_way(counts)
            total += ended_here + waiting + under_way(counts)
        return Standing(total, ended, failed, running)


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
