"""What clients ask of the shell, with a shell that keeps what it is told."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from support.processes import wait_until

from wqueue.manager.core.events import JobSubmitted
from wqueue.manager.files import Verdict
from wqueue.manager.limits import REQUESTS_WAITING_MAX
from wqueue.manager.peers import Peer
from wqueue.manager.requests import Requests
from wqueue.protocol.codec import encode_spec
from wqueue.protocol.errors import StoreError
from wqueue.protocol.messages import (
    GetResults,
    JobSpec,
    Open,
    Refusal,
    Results,
    Submit,
    TaskTemplate,
)

SPEC = encode_spec(JobSpec(TaskTemplate([b"true"])))


class Shell:
    """Keeps events and replies; files are looked at when the test says so."""

    def __init__(self) -> None:
        self.requests: Any = None
        self.gone: set[int] = set()
        self.events: list[Any] = []
        self.replies: list[Any] = []
        self.posted: list[Callable[[], None]] = []
        self.looks: list[Callable[[Verdict], None]] = []
        self.deaf: set[int] = set()
        self.core = SimpleNamespace(job=lambda number: object())
        self.files = SimpleNamespace(
            check_submission=lambda files, folder, trusted, then: self.looks.append(then)
        )

    def emit(self, event: Any) -> None:
        self.events.append(event)

    def reply(self, peer: Peer, message: Any, after: int = 0) -> None:
        self.replies.append(message)

    def is_here(self, peer: Peer) -> bool:
        return peer.number not in self.gone

    def has_untaken(self, peer: Peer) -> bool:
        return peer.number in self.deaf

    def refuse_more(self, peer: Peer) -> None:
        self.gone.add(peer.number)
        self.requests.forget(peer)

    def post(self, call: Callable[[], None]) -> None:
        self.posted.append(call)

    def replace_session(self, peer: Peer, resume_secret: bytes) -> None:
        pass


class Reader:
    """A store of no records that counts how often it was read."""

    def __init__(self) -> None:
        self.count = 0
        self.error: StoreError | None = None

    def results(self, job: int, cursor: int, limit: int) -> list[Any]:
        self.count += 1
        if self.error is not None:
            raise self.error
        return []

    def close(self) -> None:
        pass


class Desk:
    """One client and what it asks of."""

    def __init__(self) -> None:
        self.shell, self.reader = Shell(), Reader()
        self.requests = self.shell.requests = Requests(self.shell, None, self.reader)  # type: ignore[arg-type]
        self.peer = Peer(4, bytes(32), "client", b"client:", bytes(8), "127.0.0.1")

    def say(self, message: Any) -> None:
        self.requests.heard(self.peer, message, None)

    def submit(self) -> JobSubmitted:
        (look,) = self.shell.looks
        look(Verdict())
        (event,) = self.shell.events
        assert isinstance(event, JobSubmitted)
        return event


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.requests.close()


def test_a_submission_is_watched_if_its_client_wants_it(desk: Desk) -> None:
    desk.say(Submit(1, bytes(16), SPEC, watch=True))
    assert desk.submit().watch


def test_a_submission_whose_client_went_meanwhile_is_taken_and_not_watched(desk: Desk) -> None:
    desk.say(Submit(1, bytes(16), SPEC, watch=True))
    desk.shell.gone.add(4)
    assert not desk.submit().watch


def test_records_are_read_for_clients_that_are_still_there_only(desk: Desk) -> None:
    gone = Peer(3, bytes(32), "client", b"client:", bytes(8), "127.0.0.1")
    desk.shell.gone.add(3)
    desk.requests.heard(gone, GetResults(1, 7), None)
    desk.say(GetResults(2, 7))
    wait_until(lambda: bool(desk.shell.posted), what="an answer")
    assert desk.reader.count == 1
    (answer,) = desk.shell.posted
    answer()
    assert desk.shell.replies == [Results(2, 7, [])]


def test_what_a_client_calls_itself_fits_one_line_of_the_log(desk: Desk) -> None:
    desk.say(Open(bytes(32), 1, "ho\nst", 7, "evil\x1b[2J"))
    assert desk.peer.name == "evil?[2J (pid 7 on ho?st)"


def test_readers_take_turns_and_one_read_is_under_way_at_a_time(desk: Desk) -> None:
    other = Peer(5, bytes(32), "client", b"client:", bytes(8), "127.0.0.1")
    for request in (1, 2, 3):
        desk.say(GetResults(request, 7))
    desk.requests.heard(other, GetResults(9, 7), None)
    for count in (1, 2, 3, 4):
        wait_until(lambda: bool(desk.shell.posted), what="an answer")
        assert desk.reader.count == count
        desk.shell.posted.pop()()
        desk.requests.read_on()
    assert [answer.request for answer in desk.shell.replies] == [1, 2, 9, 3]


def test_nothing_is_read_for_a_client_that_has_not_taken_its_last_answer(desk: Desk) -> None:
    desk.shell.deaf.add(4)
    desk.say(GetResults(1, 7))
    desk.requests.read_on()
    assert desk.requests.is_holding_back
    assert desk.reader.count == 0
    desk.shell.deaf.clear()
    desk.requests.read_on()
    wait_until(lambda: bool(desk.shell.posted), what="an answer")


def test_more_reads_than_may_wait_end_the_session(desk: Desk) -> None:
    desk.shell.deaf.add(4)
    for request in range(REQUESTS_WAITING_MAX):
        desk.say(GetResults(request, 7))
    assert desk.shell.gone == set()
    desk.say(GetResults(1, 7))
    assert desk.shell.gone == {4}
    assert not desk.requests.is_holding_back


def test_a_journal_that_cannot_be_read_refuses_the_request(desk: Desk) -> None:
    desk.reader.error = StoreError("the disk is gone")
    desk.say(GetResults(3, 7))
    wait_until(lambda: bool(desk.shell.posted), what="an answer")
    desk.shell.posted.pop()()
    assert desk.shell.replies == [Refusal("store", "the disk is gone", 3)]
