"""What views need of all jobs together, without walking those that have ended each time. Pure.

A job that has ended never changes again and none is ever taken away, so its counts are added up
once; asking costs what is new and what is unfinished, not what has ever been.
"""

from itertools import islice

from wqueue.manager.core.core import Core
from wqueue.manager.core.job import Job
from wqueue.manager.core.task import TaskState


class Overview:
    """The sums over a core's jobs, kept between questions."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self._seen = 0
        self._active: list[Job] = []
        self._ended_sums = [0] * len(TaskState)

    def active_jobs(self) -> list[Job]:
        """Give the jobs that have not ended, in the order of their submission."""
        self._look()
        return self._active

    def sums(self) -> tuple[list[int], int]:
        """Give how many tasks are in each state, and how many jobs have not ended."""
        self._look()
        counts = [job.counts for job in self._active]
        return [sum(column) for column in zip(self._ended_sums, *counts, strict=True)], len(counts)

    def _look(self) -> None:
        jobs = self.core.state.jobs
        new = list(islice(reversed(jobs.values()), len(jobs) - self._seen))
        self._seen = len(jobs)
        looked_at, self._active = self._active, []
        for job in (*looked_at, *reversed(new)):
            if job.is_ended:
                for state, count in enumerate(job.counts):
                    self._ended_sums[state] += count
            else:
                self._active.append(job)
