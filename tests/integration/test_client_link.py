"""The client's connection against a manager that does what a test tells it to."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import pytest
from support.small_manager import PATIENCE_S, SmallManager

from wqueue import Client, LocalProtocolError, Refused, Task
from wqueue.protocol import codec
from wqueue.protocol.credentials import write_credential
from wqueue.protocol.messages import (
    Control,
    Data,
    Declare,
    Declared,
    FileRef,
    FileStored,
    Get,
    Open,
    Opened,
    Reattach,
    Refusal,
    Submit,
    Submitted,
)

T = TypeVar("T")
M = TypeVar("M")

UID = b"u" * 16


class Desk:
    """A small manager's side of the client door, one message at a time."""

    def __init__(self, manager: SmallManager) -> None:
        self.manager = manager
        self.identity = b""
        self.content = b""
        self._waiting: list[object] = []

    def next(self, kind: type[M]) -> M:
        """Expect the client's next message to be of this kind."""
        while not self._waiting:
            self.identity, payload, *more = self.manager.arrived.get(timeout=PATIENCE_S)
            self.content = b"".join(more)
            self._waiting += codec.CLIENT_TO_MANAGER.decode(payload)[1]
        message = self._waiting.pop(0)
        assert isinstance(message, kind), message
        return message

    def say(self, *messages: codec.Message) -> None:
        self.manager.send(self.identity, *messages)

    def open(self) -> Open:
        greeting = self.next(Open)
        self.say(Opened("small"))
        return greeting


@pytest.fixture
def desk() -> Iterator[Desk]:
    with SmallManager() as manager:
        manager.endpoints["client"] = manager.endpoints["task"]
        yield Desk(manager)


@pytest.fixture
def connect(desk: Desk, tmp_path: Path) -> Iterator[Callable[[], "Future[Client]"]]:
    """Begin to connect a client, in a thread; all clients are closed at the end."""
    password = tmp_path / "password"
    write_credential(password, desk.manager.credential())
    made: list[Future[Client]] = []

    def begin() -> "Future[Client]":
        address = f"127.0.0.1:{desk.manager.port}"
        made.append(in_thread(lambda: Client(address, password_file=password)))
        return made[-1]

    yield begin
    for future in made:
        if future.exception(PATIENCE_S) is None:
            future.result().close()


def in_thread(call: Callable[[], T]) -> "Future[T]":
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


Begin = Callable[[], "Future[Client]"]


def test_a_lost_session_is_made_again_and_a_submission_keeps_its_id(
    desk: Desk, connect: Begin
) -> None:
    begun = connect()
    first = desk.open()
    client = begun.result(PATIENCE_S)
    job = in_thread(lambda: client.submit(Task("true")))
    asked = desk.next(Submit)
    desk.say(Reattach())
    second = desk.open()
    assert second.resume_secret == first.resume_secret
    assert (first.session, second.session) == (1, 2)
    repeated = desk.next(Submit)
    assert repeated == asked
    desk.say(Submitted(repeated.request, 7, UID, is_repeat=True))
    assert job.result(PATIENCE_S).id == 7


def test_a_client_that_is_not_let_in_says_why(desk: Desk, connect: Begin) -> None:
    begun = connect()
    desk.next(Open)
    desk.say(Refusal("full", "512 clients are connected already", is_fatal=True))
    error = begun.exception(PATIENCE_S)
    assert isinstance(error, Refused)
    assert str(error) == "512 clients are connected already"


def test_a_message_that_the_manager_cannot_read_ends_what_waits(desk: Desk, connect: Begin) -> None:
    begun = connect()
    desk.open()
    client = begun.result(PATIENCE_S)
    order = in_thread(client.shutdown)
    desk.next(Control)
    desk.say(Refusal("bad_message", "malformed message"))
    assert isinstance(order.exception(PATIENCE_S), LocalProtocolError)


def test_an_upload_begins_anew_in_the_next_session(
    desk: Desk, connect: Begin, tmp_path: Path
) -> None:
    (tmp_path / "in").write_bytes(b"content")
    begun = connect()
    desk.open()
    client = begun.result(PATIENCE_S)
    job = in_thread(lambda: client.submit(Task("cat in", inputs=[tmp_path / "in"])))
    declared = desk.next(Declare)
    [file] = declared.files
    desk.say(Declared(declared.request, wanted=[0]), Get(1, b"d" + file.digest, 0, 4))
    assert desk.next(Data) == Data(1, 0)
    assert desk.content == b"cont"
    desk.say(Reattach())
    desk.open()
    assert desk.next(Declare) == declared
    desk.say(Declared(declared.request, wanted=[0]), Get(2, b"d" + file.digest, 0, 100))
    assert desk.next(Data) == Data(2, 0)
    assert desk.content == b"content"
    desk.say(FileStored(file.digest))
    submit = desk.next(Submit)
    spec = codec.decode_spec(submit.spec)
    assert spec.files == [FileRef(file.digest, 7, file.mode)]
    desk.say(Submitted(submit.request, 1, UID))
    assert job.result(PATIENCE_S).uid == UID


def test_a_file_that_is_not_there_any_more_is_declared_again(
    desk: Desk, connect: Begin, tmp_path: Path
) -> None:
    (tmp_path / "in").write_bytes(b"content")
    begun = connect()
    desk.open()
    client = begun.result(PATIENCE_S)
    job = in_thread(lambda: client.submit(Task("cat in", inputs=[tmp_path / "in"])))
    declared = desk.next(Declare)
    desk.say(Declared(declared.request))
    first = desk.next(Submit)
    desk.say(Refusal("unknown_file", "that file is not here", first.request))
    again = desk.next(Declare)
    assert again.files == declared.files
    desk.say(Declared(again.request, in_place=[0]))
    second = desk.next(Submit)
    assert second.submission != first.submission
    assert codec.decode_spec(second.spec).files == declared.files
    desk.say(Submitted(second.request, 1, UID))
    assert job.result(PATIENCE_S).id == 1


def test_a_folder_that_cannot_be_proven_shared_is_done_without(
    desk: Desk, connect: Begin, tmp_path: Path
) -> None:
    begun = connect()
    desk.open()
    client = begun.result(PATIENCE_S)
    job = in_thread(lambda: client.submit(Task("date > out", outputs={"out": tmp_path / "x"})))
    for _ in range(2):
        asked = desk.next(Declare)
        assert asked.directory is not None
        desk.say(Declared(asked.request, is_directory_shared=True))
        submit = desk.next(Submit)
        assert codec.decode_spec(submit.spec).template.outputs[0].destination
        desk.say(Refusal("not_shared", "the folder was modified", submit.request))
    submit = desk.next(Submit)
    spec = codec.decode_spec(submit.spec)
    assert spec.directory is None
    assert spec.template.outputs[0].destination == b""
    desk.say(Submitted(submit.request, 1, UID))
    assert job.result(PATIENCE_S).id == 1
