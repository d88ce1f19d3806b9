"""What is under way between a client and its manager: requests, watches, files on the move.

Pure bookkeeping, without socket, clock or thread; the Connection calls it under its lock. The law:
whatever the client wants is kept here until it has been answered, and `opened` gives all of it
again for a new session. So a link may be lost at any time; nothing depends on what was in it.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator

from wqueue.protocol.errors import LocalProtocolError, WqueueError, error_from_wire
from wqueue.protocol.messages import (
    Answer,
    ClientFromManager,
    ClientToManager,
    Data,
    Declare,
    Declared,
    Done,
    FileStored,
    GetFailed,
    Progress,
    Refusal,
    Results,
    Submit,
    Submitted,
    Watch,
)

Reply = Declared | Submitted | Results | Done | Answer

WATCH_JOBS_MAX = 1000
"""Jobs named in one Watch, so that it stays small."""

PROGRESS_KEPT_MAX = 100_000
"""Ended jobs whose last Progress is remembered, so that waiting for them again asks nobody."""


STREAM_TASKS_MIN = 50
"""With fewer tasks to wait for, each news is taken at once: somebody may wait for just that one."""


class Group:
    """Requests that belong together: how many are unanswered, and the first error among them."""

    __slots__ = ("error", "open")

    def __init__(self) -> None:
        self.open = 0
        self.error: WqueueError | None = None


class Request:
    """One message that wants an answer."""

    __slots__ = ("error", "group", "is_done", "message", "missing", "reply")

    def __init__(self, message: ClientToManager, group: Group | None = None) -> None:
        self.message = message
        self.group = group
        self.reply: Reply | None = None
        self.error: WqueueError | None = None
        self.is_done = False
        # Of a Declare: the digests that the manager still fetches.
        self.missing: set[bytes] = set()


class Follower:
    """Somebody who waits for news of some jobs: the newest Progress of those that have any."""

    __slots__ = ("error", "news")

    def __init__(self) -> None:
        self.news: dict[int, Progress] = {}
        self.error: WqueueError | None = None


class Fetch:
    """A file on its way to us. When `is_lost` its requests were forgotten with their session."""

    __slots__ = ("arrived", "failure", "is_lost")

    def __init__(self, is_lost: bool) -> None:
        self.arrived: deque[tuple[int, bytes]] = deque()
        self.failure: GetFailed | None = None
        self.is_lost = is_lost


class Exchange:
    """Everything a client has asked for and not yet got."""

    def __init__(self) -> None:
        self.is_open = False
        # Tasks whose end is waited for, as the last news had it; that of few is not delayed.
        self.unfinished = 0
        self.outgoing: deque[ClientToManager] = deque()
        self._numbers = itertools.count(1)
        self._transfers = itertools.count(1)
        self._unanswered: dict[int, Request] = {}
        self._followers: dict[int, list[Follower]] = {}
        self._progress: dict[int, Progress] = {}
        # Jobs the manager tells of in this session, and the requests that asked for that.
        self._watched: set[int] = set()
        self._watches: dict[int, list[int]] = {}
        # Declares whose files the manager is fetching.
        self._storing: dict[int, Request] = {}
        self._fetches: dict[int, Fetch] = {}

    @property
    def is_streaming(self) -> bool:
        """Tell whether nothing is awaited but news of many tasks: they may gather a little."""
        return self.unfinished >= STREAM_TASKS_MIN and not (
            self._unanswered or self._fetches or self._watches or self.outgoing
        )

    # --- what the client wants ----------------------------------------------------------------

    def next_number(self) -> int:
        """Number a request; safe from any thread."""
        return next(self._numbers)

    def ask(self, number: int, request: Request) -> None:
        """Send a request, now or as soon as there is a session."""
        self._unanswered[number] = request
        if request.group is not None:
            request.group.open += 1
        self._post(request.message)

    def drop(self, number: int) -> None:
        """Forget a request nobody waits for any more."""
        self._unanswered.pop(number, None)
        self._storing.pop(number, None)

    def follow(self, jobs: Iterable[int], follower: Follower, *, asks_anew: bool = False) -> None:
        """Tell `follower` of these jobs, at once what is known already.

        With `asks_anew` the manager is asked how far they are, unless they have ended.
        """
        unwatched = []
        for job in jobs:
            known = self._progress.get(job)
            if known is not None and (known.is_ended or not asks_anew):
                follower.news[job] = known
                if known.is_ended:
                    continue
            self._followers.setdefault(job, []).append(follower)
            if asks_anew or job not in self._watched:
                unwatched.append(job)
        self._watch(unwatched)

    def unfollow(self, jobs: Iterable[int], follower: Follower) -> None:
        """Tell `follower` nothing more."""
        for job in jobs:
            followers = self._followers.get(job, [])
            if follower in followers:
                followers.remove(follower)
            if not followers:
                self._followers.pop(job, None)

    def fetch(self) -> tuple[int, Fetch]:
        """Begin to receive a file; the number is that of the transfer."""
        number = next(self._transfers)
        self._fetches[number] = Fetch(not self.is_open)
        return number, self._fetches[number]

    def end_fetch(self, number: int) -> None:
        """Forget a transfer; what still comes of it is dropped."""
        self._fetches.pop(number, None)

    def post(self, message: ClientToManager) -> None:
        """Send something that is not repeated in the next session (Get and its kind)."""
        self._post(message)

    def _post(self, message: ClientToManager) -> None:
        if self.is_open:
            self.outgoing.append(message)

    def _watch(self, jobs: list[int]) -> None:
        for first in range(0, len(jobs), WATCH_JOBS_MAX):
            self._watch_some(jobs[first : first + WATCH_JOBS_MAX])

    def _watch_some(self, jobs: list[int]) -> None:
        if self.is_open:
            number = self.next_number()
            self._watches[number] = jobs
            self._watched.update(jobs)
            self.outgoing.append(Watch(number, jobs))

    # --- the session --------------------------------------------------------------------------

    def opened(self) -> None:
        """Begin a session: everything that is wanted goes out again."""
        self.is_open = True
        self.outgoing.clear()
        for request in self._unanswered.values():
            request.reply = None
            request.missing.clear()
            self.outgoing.append(request.message)
        self._watch(list(self._followers))

    def lost(self) -> None:
        """End a session; whoever receives a file must ask for it again."""
        self.is_open = False
        self.outgoing.clear()
        self._watches.clear()
        self._watched.clear()
        self._storing.clear()
        for fetch in self._fetches.values():
            fetch.is_lost = True
            fetch.arrived.clear()

    def fail(self, error: WqueueError) -> None:
        """Give up: every wish ends with this error."""
        for request in list(self._unanswered.values()):
            self._finish(request, error)
        self._unanswered.clear()
        for follower in self._all_followers():
            follower.error = error

    def _all_followers(self) -> Iterator[Follower]:
        return itertools.chain.from_iterable(self._followers.values())

    # --- what the manager says ----------------------------------------------------------------

    def received(self, message: ClientFromManager, data: bytes | None = None) -> None:
        """Take one message of the manager; those about offered files and sessions are not here."""
        match message:
            case Progress():
                self._take_progress(message)
            case Declared() | Submitted() | Results() | Done() | Answer():
                self._take_reply(message)
            case Refusal():
                self._take_refusal(message)
            case Data():
                fetch = self._fetches.get(message.transfer)
                if fetch is not None and not fetch.is_lost:
                    fetch.arrived.append((message.offset, data or b""))
            case GetFailed():
                fetch = self._fetches.get(message.transfer)
                if fetch is not None:
                    fetch.failure = message
            case FileStored():
                self._take_stored(message)
            case _:
                pass

    def _take_reply(self, reply: Reply) -> None:
        request = self._unanswered.get(reply.request)
        if request is None:
            # Done also ends a Watch, when the Progress of all its jobs has come.
            self._watches.pop(reply.request, None)
            return
        request.reply = reply
        message = request.message
        if isinstance(reply, Submitted) and isinstance(message, Submit) and message.watch:
            self._watched.add(reply.job)
        if isinstance(reply, Declared) and isinstance(message, Declare):
            files = message.files
            request.missing = {files[i].digest for i in reply.wanted if i < len(files)}
            if request.missing:
                self._storing[reply.request] = request
                return
        self._finish(self._unanswered.pop(reply.request), None)

    def _take_stored(self, stored: FileStored) -> None:
        for number, request in list(self._storing.items()):
            if stored.digest not in request.missing:
                continue
            request.missing.discard(stored.digest)
            if stored.error or not request.missing:
                del self._storing[number]
                del self._unanswered[number]
                error = error_from_wire("not_stored", stored.error) if stored.error else None
                self._finish(request, error)

    def _take_refusal(self, refusal: Refusal) -> None:
        error = error_from_wire(refusal.code, refusal.text)
        jobs = self._watches.pop(refusal.request, None)
        if jobs is not None:
            self._refuse_watch(jobs, error)
            return
        request = self._unanswered.pop(refusal.request, None)
        if request is not None:
            self._finish(request, error)
        elif refusal.request == 0:
            # One of our messages could not even be read; no answer will come to it.
            self.fail(LocalProtocolError(f"the manager refused a message: {refusal.text}"))

    def _refuse_watch(self, jobs: list[int], error: WqueueError) -> None:
        if len(jobs) > 1:
            # Which of them it is only shows when each is asked for alone.
            for job in jobs:
                self._watch_some([job])
            return
        self._watched.discard(jobs[0])
        for follower in self._followers.pop(jobs[0], []):
            follower.error = error

    def _take_progress(self, progress: Progress) -> None:
        job = progress.job
        self._progress[job] = progress
        followers = self._followers.get(job)
        if followers:
            for follower in followers:
                follower.news[job] = progress
        if progress.is_ended:
            self._followers.pop(job, None)
            self._watched.discard(job)
        counts = progress.counts
        self.unfinished = max(len(self._followers), counts.ready + counts.assigned + counts.running)
        if progress.is_ended:
            while len(self._progress) > PROGRESS_KEPT_MAX:
                del self._progress[next(iter(self._progress))]

    def _finish(self, request: Request, error: WqueueError | None) -> None:
        request.error = error
        request.is_done = True
        group = request.group
        if group is not None:
            group.open -= 1
            if error is not None and group.error is None:
                group.error = error
