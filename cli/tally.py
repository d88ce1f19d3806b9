"""How far several jobs are together, from the news of each."""

from typing import NamedTuple

from wqueue.cli.views import under_way, waiting
from wqueue.protocol.messages import Counts, Progress


class Standing(NamedTuple):
    """How far all watched jobs are together."""

    total: int = 0
    ended: int = 0
    failed: int = 0
    at_workers: int = 0

    def sentence(self) -> str:
        """Say it in one line."""
        percent = 100 * self.ended // self.total if self.total else 0
        text = f"{self.ended} of {self.total} tasks ended ({percent} %)"
        if self.at_workers:
            text += f", {self.at_workers} at workers"
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
        total = ended = failed = at_workers = 0
        for counts in self.counts_of.values():
            ended_here = counts.done + counts.canceled
            ended += ended_here
            failed += counts.failed
            at_workers += under_way(counts)
            total += ended_here + waiting(counts) + under_way(counts)
        return Standing(total, ended, failed, at_workers)
