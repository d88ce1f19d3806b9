"""Selectors: how people name jobs and tasks on a command line.

    7        a job              last       the newest job
    3-5      the jobs 3 to 5    all        every job
    7.3      a task             last.3     a task of the newest job
    7.0-99   some tasks         7.0-3,9    the same, with gaps

A range of jobs means those of them that exist; a single job that does not exist is an error of
the manager's.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from wqueue.protocol.errors import NoSuchTask, UsageError
from wqueue.protocol.messages import JobRange

NUMBER_MAX = 2**63 - 1
"""Largest number of a job or task: the wire's bound."""

_JOBS = re.compile(r"(last)|(\d+)(?:-(\d+))?", re.ASCII)
_INDEXES = re.compile(r"(\d+)(?:-(\d+))?", re.ASCII)


class Span(NamedTuple):
    """The numbers from first to last, both included."""

    first: int
    last: int


EVERYTHING = Span(0, NUMBER_MAX)


class Selector(NamedTuple):
    """Which tasks of which jobs; `jobs` None means the newest job."""

    text: str
    jobs: Span | None
    tasks: tuple[Span, ...] = (EVERYTHING,)

    @property
    def is_whole_jobs(self) -> bool:
        """Whether it names whole jobs, not some tasks of them."""
        return self.tasks == (EVERYTHING,)

    @property
    def is_one_job(self) -> bool:
        """Whether it names one whole job."""
        return self.is_of_one_job and self.is_whole_jobs

    @property
    def is_one_task(self) -> bool:
        """Whether it names exactly one task."""
        return self.is_of_one_job and len(self.tasks) == 1 and self.tasks[0][0] == self.tasks[0][1]

    @property
    def is_of_one_job(self) -> bool:
        """Whether all it names belongs to one job."""
        return self.jobs is None or self.jobs.first == self.jobs.last

    @property
    def needs_listing(self) -> bool:
        """Whether one must know which jobs there are to say what it means."""
        return self.jobs is None or self.jobs.first != self.jobs.last


def parse_selector(text: str) -> Selector:
    """Read one selector. Raises UsageError with a sentence."""
    if text == "all":
        return Selector(text, EVERYTHING)
    jobs_text, dot, tasks_text = text.partition(".")
    found = _JOBS.fullmatch(jobs_text)
    if found is None or (dot and found.group(3)):
        raise _not_a_selector(text)
    jobs = None if found.group(1) else _span(found.group(2), found.group(3), text)
    if not dot:
        return Selector(text, jobs)
    return Selector(text, jobs, tuple(_index_spans(tasks_text, text)))


def resolve(selectors: Sequence[Selector], jobs: Iterable[int] = ()) -> list[JobRange]:
    """Turn selectors into ranges of tasks, given the numbers of the jobs there are.

    `jobs` may be empty when no selector needs it. Raises NoSuchTask where a selector names none.
    """
    known = sorted(jobs)
    ranges: dict[JobRange, None] = {}
    for selector in selectors:
        for job in _jobs_of(selector, known):
            for span in selector.tasks:
                ranges[JobRange(job, span.first, span.last)] = None
    return list(ranges)


def _jobs_of(selector: Selector, known: list[int]) -> list[int]:
    if selector.jobs is None:
        if not known:
            raise NoSuchTask("there is no last job: this queue has had none")
        return known[-1:]
    first, last = selector.jobs
    if first == last:
        return [first]
    chosen = [job for job in known if first <= job <= last]
    if not chosen and selector.jobs != EVERYTHING:
        raise NoSuchTask(f"there are no jobs {first} to {last}; see: wq-status -J --all")
    return chosen


def _index_spans(tasks_text: str, text: str) -> Iterable[Span]:
    for part in tasks_text.split(","):
        found = _INDEXES.fullmatch(part)
        if found is None:
            raise _not_a_selector(text)
        yield _span(found.group(1), found.group(2), text)


def _span(first_text: str, last_text: str | None, text: str) -> Span:
    if len(first_text) > 19 or len(last_text or "") > 19:
        raise _not_a_selector(text)
    first = int(first_text)
    last = int(last_text) if last_text is not None else first
    if last < first:
        raise UsageError(f"{text!r} runs backwards; write {last}-{first}")
    if last > NUMBER_MAX:
        raise _not_a_selector(text)
    return Span(first, last)


def _not_a_selector(text: str) -> UsageError:
    return UsageError(
        f"{text!r} names no job or task; write 7, 3-5, last or all for jobs, "
        "7.3 or 7.0-99 for tasks"
    )
