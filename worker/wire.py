"""Sessions with the manager: dialling, the links of the doors, what comes in and what goes out.

The proof blocks, so a thread of its own makes it. What is to be sent is gathered and goes out once
per loop turn. Which session there should be is the core's business; here is at most one.
"""

import random
import threading
from collections.abc import Callable

import zmq

from wqueue.protocol import codec
from wqueue.protocol.errors import ManagerUnreachable, RemoteProtocolError, WqueueError
from wqueue.protocol.link import AnnounceLink, Link, LinkLost, Proven
from wqueue.protocol.messages import (
    Attach,
    AttemptResult,
    Data,
    Get,
    GetFailed,
    Result,
    ResultFromManager,
    TaskFromManager,
    TaskToManager,
)
from wqueue.worker.core import events
from wqueue.worker.file_threads import FileThreads
from wqueue.worker.poll import Poll

LAST_WORDS_S = 0.3
"""How long announcements are awaited when another link is lost: each door has a connection of its
own, and a manager that stops says so on one while another is closed already."""

GOODBYE_MS = 1000
"""How long the last messages may take to leave when the worker ends."""

RESULTS_PER_MESSAGE = 64
"""Results in one message: with what they may tell of outputs, far below a frame's limit; larger
ones travel alone."""

OUTPUTS_PER_MESSAGE_BYTES = 128 * 1024
"""What results tell of outputs in one Result message, unless a single one tells more (the core
keeps each below a frame's limit)."""

OUTPUT_HEAD_BYTES = 64
"""At most this an output takes beside its inline content: a digest and some numbers."""

Links = Link[TaskFromManager] | Link[ResultFromManager] | AnnounceLink


class Wire:
    """The links of one worker. For use by the loop's thread."""

    def __init__(
        self,
        dial: Callable[[], tuple[Proven, str]],
        poll: Poll,
        threads: FileThreads,
        report: Callable[[events.Event], None],
        on_file: Callable[[Data, bytes], None],
        on_file_failed: Callable[[GetFailed], None],
        on_get: Callable[[int, Get], None],
    ) -> None:
        self._dial = dial
        self._poll = poll
        self._threads = threads
        self._report = report
        self._on_file = on_file
        self._on_file_failed = on_file_failed
        self._on_get = on_get
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._session = 0
        self._cancel = threading.Event()
        self._proven: Proven | None = None
        self._address = ""
        self._task: Link[TaskFromManager] | None = None
        self._result: Link[ResultFromManager] | None = None
        self._announce: AnnounceLink | None = None
        self._is_connected = False
        self._is_attached = False
        self._is_failing = False
        self._for_task: list[TaskToManager] = []
        self._for_result: list[Result | Get | GetFailed] = []

    # --- connecting -----------------------------------------------------------------------------

    def connect(self, session: int, delay_s: float, spread_s: float) -> None:
        """Begin a session after a delay and a random part of the spread."""
        self.disconnect()
        self._session = session
        delay_s += random.random() * spread_s
        cancel = self._cancel = threading.Event()

        def run() -> None:
            if cancel.wait(delay_s):
                return
            try:
                proven, address = self._dial()
            except WqueueError as error:
                failure = events.ConnectFailed(session, error.code, str(error), error.exit_code)
                self._threads.post(lambda: self._dialled(failure))
                return
            except Exception as error:
                self._threads.fail(error)
                return
            self._threads.post(lambda: self._open(session, proven, address))

        threading.Thread(target=run, name="dial", daemon=True).start()

    def _dialled(self, failure: events.ConnectFailed) -> None:
        if failure.session == self._session:
            self._report(failure)

    def _open(self, session: int, proven: Proven, address: str) -> None:
        if session != self._session:
            return
        self._proven = proven
        self._address = address
        try:
            self._task = Link(
                self._context, proven.endpoints["task"], proven, codec.TASK_FROM_MANAGER
            )
            self._watch(self._task, self._read_task)
            self._announce = AnnounceLink(self._context, proven.endpoints["announce"], proven)
            self._watch(self._announce, self._read_announce)
        except (KeyError, RemoteProtocolError) as error:
            self._lose(f"its doors cannot be used: {error}")

    def open_results(self, session: int) -> None:
        """Open the result link of the session."""
        if session != self._session or self._proven is None:
            return
        endpoint = self._proven.endpoints.get("result", "")
        try:
            self._result = Link(self._context, endpoint, self._proven, codec.RESULT_FROM_MANAGER)
        except RemoteProtocolError as error:
            self._lose(str(error))
            return
        self._watch(self._result, self._read_result)

    def _watch(self, link: Links, read: Callable[[], None]) -> None:
        self._poll.watch(link.monitor, lambda: self._read_monitor(link))
        self._poll.watch(link.socket, read)

    def _read_monitor(self, link: Links) -> None:
        link.read_monitor()
        if link.state == "lost":
            self._fail(link.reason)
        elif link.state == "up" and link is self._task and not self._is_connected:
            self._is_connected = True
            assert self._proven is not None, link.endpoint
            epoch = self._proven.epoch
            self._report(events.Connected(self._session, epoch, self._address))
        elif link.state == "up" and link is self._result and not self._is_attached:
            self._is_attached = True
            try:
                link.send([Attach(self._session)])
            except LinkLost as error:
                self._lose(str(error))
                return
            self._report(events.ResultsOpened(self._session))

    def _fail(self, reason: str) -> None:
        """Lose the session, but hear the manager out: it may have said why it goes."""
        session = self._session
        for read in (self._read_task, self._read_result, self._read_announce):
            read()

        def give_up() -> None:
            if session == self._session and self._links():
                self._lose(reason)

        announce = self._announce
        if announce is None or announce.state != "up":
            give_up()
        elif not self._is_failing:
            self._is_failing = True
            timer = threading.Timer(LAST_WORDS_S, lambda: self._threads.post(give_up))
            timer.daemon = True
            timer.start()

    def _lose(self, reason: str) -> None:
        session, was_connected = self._session, self._is_connected
        self.disconnect()
        if was_connected:
            self._report(events.LinkLost(session, reason))
        else:
            text = f"the manager at {self._address} answers, but its task door does not: {reason}"
            error = ManagerUnreachable
            self._report(events.ConnectFailed(session, error.code, text, error.exit_code))

    def disconnect(self) -> None:
        """Close the links; nothing that was gathered is sent."""
        self._cancel.set()
        for link in self._links():
            self._poll.forget(link.monitor)
            self._poll.forget(link.socket)
            link.close()
        self._task = self._result = self._announce = self._proven = None
        self._is_connected = self._is_attached = self._is_failing = False
        self._for_task = []
        self._for_result = []

    def _links(self) -> list[Links]:
        links: list[Links | None] = [self._task, self._result, self._announce]
        return [link for link in links if link is not None]

    def leave(self) -> None:
        """Send what was gathered, give it a moment to leave, and close all."""
        self.flush()
        self._cancel.set()
        for link in self._links():
            link.socket.disable_monitor()
            link.socket.close(linger=GOODBYE_MS)
            link.monitor.close(linger=0)
        self._context.term()

    # --- incoming -------------------------------------------------------------------------------

    def _read_task(self) -> None:
        self._read("task", self._task)

    def _read_announce(self) -> None:
        self._read("announce", self._announce)

    def _read(self, door: str, link: Link[TaskFromManager] | AnnounceLink | None) -> None:
        if link is None:
            return
        session = self._session
        try:
            arrived = link.receive()
        except RemoteProtocolError as error:
            self._lose(str(error))
            return
        for header, messages, *_ in arrived:
            self._report(events.Heard(session, door, header.sequence, list(messages)))

    def _read_result(self) -> None:
        link = self._result
        if link is None:
            return
        session = self._session
        try:
            arrived = link.receive()
        except RemoteProtocolError as error:
            self._lose(str(error))
            return
        for header, messages, content in arrived:
            if session != self._session:
                return
            rest = [m for m in messages if not self._take_file(session, m, content)]
            self._report(events.Heard(session, "result", header.sequence, list(rest)))

    def _take_file(self, session: int, message: ResultFromManager, content: bytes | None) -> bool:
        if isinstance(message, Data):
            self._on_file(message, content or b"")
        elif isinstance(message, Get):
            self._on_get(session, message)
        elif isinstance(message, GetFailed):
            self._on_file_failed(message)
        else:
            return False
        return True

    # --- outgoing -------------------------------------------------------------------------------

    def tell(self, session: int, message: TaskToManager) -> None:
        """Gather a message for the task door."""
        if session == self._session:
            self._for_task.append(message)

    def deliver(self, session: int, results: list[AttemptResult]) -> None:
        """Gather results for the result door."""
        if session == self._session:
            self._for_result += map(Result, portions(results))

    def ask(self, gets: list[Get]) -> None:
        """Gather requests for files."""
        self._for_result += gets

    def answer(self, session: int, message: Data | GetFailed, content: bytes | None) -> None:
        """Answer a request of the manager at once; without the session it asks again itself."""
        if session != self._session or self._result is None or not self._is_attached:
            return
        try:
            self._result.send([message], content)
        except LinkLost as error:
            self._lose(str(error))

    def flush(self) -> None:
        """Send what was gathered."""
        try:
            if self._for_task and self._task is not None:
                messages, self._for_task = self._for_task, []
                self._task.send(messages)
            if self._for_result and self._result is not None and self._is_attached:
                answers, self._for_result = self._for_result, []
                self._result.send(answers)
        except LinkLost as error:
            self._fail(str(error))


def portions(results: list[AttemptResult]) -> list[list[AttemptResult]]:
    """Cut results into messages of bounded size, in order."""
    parts: list[list[AttemptResult]] = []
    room, bytes_room = 0, 0
    for result in results:
        size = sum(OUTPUT_HEAD_BYTES + len(output.inline or b"") for output in result.outputs)
        if room == 0 or size > bytes_room:
            parts.append([])
            room, bytes_room = RESULTS_PER_MESSAGE, OUTPUTS_PER_MESSAGE_BYTES
        parts[-1].append(result)
        room -= 1
        bytes_room -= size
    return parts
