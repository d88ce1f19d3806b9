"""Following jobs: whose end is waited for, and their results in order, each record once.

The manager tells how far each watched job is; records are pulled by cursor when it has more. Only
what was asked for is in memory, however many tasks have ended.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator

from wqueue.exchange import STREAM_TASKS_MIN, Follower, Group, Request
from wqueue.pace import Pace
from wqueue.protocol.errors import RemoteProtocolError, WaitTimedOut
from wqueue.protocol.messages import GetResults, Progress, Results, TaskRecord
from wqueue.wire import Connection

RECORDS_MAX = 1000
"""Records asked for at once; the manager gives fewer when they are large."""

GATHER_S = 0.01
"""Rest between looks at news in a steady stream of ended tasks."""

ASKED_MAX = 200
"""Jobs whose records may be under way at once."""


def wait_for_end(
    connection: Connection,
    jobs: Iterable[int],
    timeout_s: float | None,
    on_progress: Callable[[Progress], None],
) -> dict[int, Progress]:
    """Wait until all jobs have ended; give the last Progress of each. Raises WaitTimedOut."""
    wanted = list(dict.fromkeys(jobs))
    ended: dict[int, Progress] = {}
    news = _News(connection, wanted, timeout_s)
    try:
        while len(ended) < len(wanted):
            for progress in news.wait():
                if progress.is_ended:
                    ended[progress.job] = progress
                on_progress(progress)
            if news.is_over:
                left = len(wanted) - len(ended)
                raise WaitTimedOut(
                    f"{left} of {len(wanted)} jobs had not ended after {timeout_s:g} s; "
                    "the work goes on"
                )
    finally:
        news.close()
    return ended


def ask_progress(connection: Connection, job: int) -> Progress:
    """Ask the manager how far a job is. Raises NoSuchTask."""
    news = _News(connection, [job], None, asks_anew=True)
    try:
        return next(iter(news.wait()))
    finally:
        news.close()


class _News:
    """What the manager tells of some jobs, as an iterable that sleeps."""

    def __init__(
        self,
        connection: Connection,
        jobs: list[int],
        timeout_s: float | None,
        *,
        asks_anew: bool = False,
    ) -> None:
        self._connection = connection
        self._jobs = jobs
        self._deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        self._follower = Follower()
        self._pace = Pace(GATHER_S)
        with connection.lock:
            connection.exchange.follow(jobs, self._follower, asks_anew=asks_anew)
        connection.wake()

    @property
    def is_over(self) -> bool:
        """Tell whether the time is over."""
        return self._deadline_s is not None and time.monotonic() >= self._deadline_s

    def wait(self) -> Iterable[Progress]:
        """Sleep until there is news or the time is over; raises what the watch was refused for."""
        follower = self._follower
        if self._connection.exchange.unfinished >= STREAM_TASKS_MIN:
            self._rest()
        self._connection.wait_for(
            lambda: bool(follower.news) or follower.error is not None, self._deadline_s
        )
        return self.take()

    def _rest(self) -> None:
        now_s = time.monotonic()
        rest_s = self._pace.rest_s(now_s)
        left_s = rest_s if self._deadline_s is None else max(0.0, self._deadline_s - now_s)
        if rest_s:
            time.sleep(min(rest_s, left_s))

    def take(self) -> Iterable[Progress]:
        """Give the news there is, without waiting."""
        with self._connection.lock:
            news, self._follower.news = self._follower.news, {}
        if self._follower.error is not None:
            raise self._follower.error
        return news.values()

    def wait_for_answers(self, group: Group) -> None:
        """Sleep until all requests of a group are answered. Raises WaitTimedOut."""
        if not self._connection.wait_for(lambda: group.open == 0, self._deadline_s):
            raise WaitTimedOut("the records did not come in time; ask again")

    def close(self) -> None:
        """Listen no more."""
        with self._connection.lock:
            self._connection.exchange.unfollow(self._jobs, self._follower)


class ResultStream:
    """The records of some jobs as they end, for one pass.

    Without `follow` it ends with what has ended at the first look at each job.
    """

    def __init__(
        self,
        connection: Connection,
        cursors: dict[int, int],
        *,
        follow: bool,
        timeout_s: float | None,
    ) -> None:
        self._connection = connection
        self._follow = follow
        self._timeout_s = timeout_s
        # Per job: the last event taken, and how many there are as far as is known.
        self._cursors = cursors
        self._events: dict[int, int] = {}
        # Jobs of which nothing more will be heard: all events are known.
        self._told: set[int] = set()
        self._open = dict.fromkeys(cursors)
        self._behind: dict[int, None] = {}

    def __iter__(self) -> Iterator[TaskRecord]:
        jobs = list(self._cursors)
        news = _News(self._connection, jobs, self._timeout_s, asks_anew=not self._follow)
        try:
            while self._open:
                self._note(news.take() if self._behind else news.wait())
                if not self._behind and self._open and news.is_over:
                    raise WaitTimedOut(
                        f"{len(self._open)} jobs had not ended after {self._timeout_s:g} s; "
                        "the work goes on"
                    )
                for job, records in self._round(news):
                    self._cursors[job] = records[-1].event
                    self._look(job)
                    yield from records
        finally:
            news.close()

    def _note(self, news: Iterable[Progress]) -> None:
        for progress in news:
            job = progress.job
            if job in self._told or job not in self._open:
                continue
            self._events[job] = progress.events
            if progress.is_ended or not self._follow:
                self._told.add(job)
            self._look(job)

    def _look(self, job: int) -> None:
        if self._cursors[job] < self._events[job]:
            self._behind[job] = None
        elif job in self._told:
            self._open.pop(job, None)

    def _round(self, news: _News) -> Iterator[tuple[int, list[TaskRecord]]]:
        # Asks for more of all jobs that have more, and waits for all answers in one go.
        jobs = list(itertools.islice(self._behind, ASKED_MAX))
        if not jobs:
            return
        group = Group()
        requests = {}
        limit = -(-RECORDS_MAX // len(jobs))
        for job in jobs:
            del self._behind[job]
            number = self._connection.exchange.next_number()
            message = GetResults(number, job, self._cursors[job], limit)
            requests[number] = Request(message, group)
        self._connection.ask(requests.items())
        news.wait_for_answers(group)
        for job, request in zip(jobs, requests.values(), strict=True):
            yield job, _records_of(request)


def pull(connection: Connection, job: int, cursor: int, events: int) -> Iterator[TaskRecord]:
    """Give the records of a job after event `cursor`, up to its event `events`, which is known."""
    while cursor < events:
        number = connection.exchange.next_number()
        request = Request(GetResults(number, job, cursor, RECORDS_MAX))
        connection.ask([(number, request)])
        connection.answer_of(request)
        records = _records_of(request)
        cursor = records[-1].event
        yield from records


def _records_of(request: Request) -> list[TaskRecord]:
    if request.error is not None:
        raise request.error
    reply = request.reply
    if not isinstance(reply, Results) or not reply.records:
        # Records are only asked for where a Progress has said that there are some.
        raise RemoteProtocolError(f"the manager does not give the results it has: {reply!r:.200}")
    return reply.records
