"""The client's link to its manager: one background thread that dials, sends, hears, and repeats.

The thread owns the sockets; everyone else talks to the Exchange under `lock` and wakes the thread.
Whoever waits names the condition he waits for; the thread tests it after each step and wakes only
whom it concerns.
"""

import contextlib
import os
import random
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import zmq

from wqueue._version import __version__
from wqueue.exchange import Exchange, Reply, Request
from wqueue.offers import Offers
from wqueue.pace import Pace
from wqueue.protocol.codec import CLIENT_FROM_MANAGER
from wqueue.protocol.errors import (
    LocalProtocolError,
    ManagerUnreachable,
    NotAuthorized,
    ProtocolError,
    Refused,
    UsageError,
    VersionMismatch,
    WqueueError,
    error_from_wire,
)
from wqueue.protocol.handshake import Proven
from wqueue.protocol.limits import PEER_HANDSHAKE_MS
from wqueue.protocol.link import Link, LinkLost
from wqueue.protocol.messages import (
    ClientFromManager,
    Data,
    Get,
    GetFailed,
    Open,
    Opened,
    Reattach,
    Refusal,
)
from wqueue.protocol.poller import Poller

BACKOFF_FIRST_S = 0.1
"""Longest pause before the first attempt to reconnect; it doubles up to the longest."""

BACKOFF_MAX_S = 5.0
"""Longest pause between attempts to reconnect: somebody is waiting at a screen."""

GATHER_S = 0.005
"""Rest between looks at the socket while news stream in and nothing else is awaited."""

DATA_PER_TURN_MAX = 4
"""Pieces of files sent before control has its turn again."""

STOP_WAIT_S = 2.0
"""How long close() waits for the thread, which may be dialling."""

_FATAL = (NotAuthorized, VersionMismatch, UsageError)


class Waiter:
    """Somebody who sleeps until `is_ready` holds."""

    __slots__ = ("event", "is_ready")

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        self.is_ready = is_ready
        self.event = threading.Event()


class Connection:
    """A session with the manager that is made again whenever it is lost.

    `dial` proves us to the manager, wherever it is now; it may block for seconds. `on_connection`
    hears "connected" and "lost: why" in the background thread.
    """

    def __init__(
        self,
        dial: Callable[[], Proven],
        *,
        program: str,
        grace_s: float,
        on_connection: Callable[[str], None] | None,
    ) -> None:
        self.lock = threading.Lock()
        self.exchange = Exchange()
        self.offers = Offers()
        self.error: WqueueError | None = None
        self._dial = dial
        self._program = program
        self._grace_s = grace_s
        self._on_connection = on_connection
        self._pid = os.getpid()
        self._resume_secret = os.urandom(32)
        self._session = 0
        self._pace = Pace(GATHER_S)
        self._waiters: list[Waiter] = []
        self._data: deque[tuple[int, Data | GetFailed, bytes | None]] = deque()
        self._is_stopping = threading.Event()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._is_awake = False
        self._thread = threading.Thread(target=self._run, name="wqueue client", daemon=True)

    # --- called by anybody --------------------------------------------------------------------

    def start(self) -> None:
        """Connect for the first time; raises what stands against it."""
        self._thread.start()
        self.wait_for(lambda: self.exchange.is_open, None)

    def wait_for(self, is_ready: Callable[[], bool], deadline_s: float | None) -> bool:
        """Sleep until `is_ready`, tested under the lock, or until the monotonic deadline.

        Raises what the connection failed of, if it is given up first. Call it without the lock.
        """
        with self.lock:
            if is_ready():
                return True
            if self.error is not None:
                raise self.error
            waiter = Waiter(is_ready)
            self._waiters.append(waiter)
        self.wake()
        try:
            waiter.event.wait(None if deadline_s is None else max(0, deadline_s - time.monotonic()))
        finally:
            with self.lock:
                self._waiters.remove(waiter)
                is_there = is_ready()
        if not is_there and self.error is not None:
            raise self.error
        return is_there

    def ask(self, requests: Iterable[tuple[int, Request]]) -> None:
        """Send numbered requests."""
        with self.lock:
            if self.error is not None:
                raise self.error
            for number, request in requests:
                self.exchange.ask(number, request)
        self.wake()

    def answer_of(self, request: Request, deadline_s: float | None = None) -> Reply | None:
        """Wait for the answer to a request; None when the deadline comes first. Raises refusals."""
        if not self.wait_for(lambda: request.is_done, deadline_s):
            return None
        if request.error is not None:
            raise request.error
        return request.reply

    def wake(self) -> None:
        """Have the thread look at what is to be sent."""
        if not self._is_awake:
            self._is_awake = True
            with contextlib.suppress(OSError):
                self._wake_write.send(b"w")

    def check(self) -> None:
        """Refuse to work in a forked child, or after the connection was given up or closed."""
        if os.getpid() != self._pid:
            raise UsageError(
                "this Client was made before a fork and cannot be used in the child process; "
                "make a new one there"
            )
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """End the connection. May be called again, and in a forked child, where it does nothing."""
        if os.getpid() != self._pid:
            return
        self._is_stopping.set()
        self._is_awake = False
        self.wake()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(STOP_WAIT_S)
        self.offers.close()

    # --- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        error: WqueueError = UsageError("this Client is closed")
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._connect_again_and_again(context)
        except WqueueError as found:
            error = found
        except BaseException as bug:
            # Nobody may wait for ever because this thread has ended.
            error = LocalProtocolError(f"a bug in the client's thread: {bug!r}")
            error.__cause__ = bug
        self._give_up(error)
        context.destroy(linger=0)
        self._wake_read.close()
        self._wake_write.close()

    def _connect_again_and_again(self, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        self._serve(context)
        lost_s, pause_s = time.monotonic(), BACKOFF_FIRST_S
        while not self._is_stopping.wait(random.uniform(0, pause_s)):
            session = self._session
            try:
                self._serve(context)
            except _FATAL:
                raise
            except (ManagerUnreachable, Refused, ProtocolError) as error:
                if time.monotonic() - lost_s > self._grace_s:
                    raise ManagerUnreachable(
                        f"the manager has been away for {self._grace_s:g} s: {error}"
                    ) from error
            if self._session > session:
                lost_s, pause_s = time.monotonic(), BACKOFF_FIRST_S
            else:
                pause_s = min(2 * pause_s, BACKOFF_MAX_S)

    def _serve(self, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        # One session from proof to loss. Raises only what stands against opening it.
        proven = self._dial()
        endpoint = proven.endpoints.get("client")
        if endpoint is None:
            raise NotAuthorized("this secret may not be used by clients; use the owner's")
        link = Link(context, endpoint, proven, CLIENT_FROM_MANAGER)
        poller = Poller()
        poller.register(link.socket, is_sent_on=True)
        poller.register(link.monitor)
        poller.register(self._wake_read.fileno())
        reason = "closed"
        try:
            self._open(link, poller)
            try:
                while not self._is_stopping.is_set():
                    is_more = self._send(link)
                    self._hear(link, poller, 0 if is_more else None)
            except (LinkLost, ProtocolError) as error:
                reason = str(error)
        finally:
            poller.close()
            link.close()
            with self.lock:
                was_open = self.exchange.is_open
                self.exchange.lost()
                self._data.clear()
                self._wake_waiters()
        if was_open and not self._is_stopping.is_set():
            self._tell(f"lost: {reason}")

    def _open(self, link: Link[ClientFromManager], poller: Poller) -> None:
        deadline_s = time.monotonic() + PEER_HANDSHAKE_MS / 1000
        is_asked = False
        while not self.exchange.is_open:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or self._is_stopping.is_set():
                raise ManagerUnreachable(f"the manager at {link.endpoint} does not answer")
            self._hear(link, poller, int(left_s * 1000) + 1)
            if link.state == "up" and not is_asked:
                is_asked = True
                link.send([self._greeting()])
        self._session += 1
        self._tell("connected")

    def _greeting(self) -> Open:
        return Open(
            self._resume_secret,
            self._session + 1,
            socket.gethostname(),
            self._pid,
            self._program or f"wqueue {__version__}",
            boot_id(),
            os.getuid(),
        )

    def _send(self, link: Link[ClientFromManager]) -> bool:
        # Control first; says whether pieces of files are left for the next turn.
        with self.lock:
            messages = list(self.exchange.outgoing)
            self.exchange.outgoing.clear()
        if messages:
            link.send(messages)
        for _ in range(min(len(self._data), DATA_PER_TURN_MAX)):
            session, message, content = self._data.popleft()
            if session == self._session:
                link.send([message], content)
        return bool(self._data)

    def _hear(self, link: Link[ClientFromManager], poller: Poller, timeout_ms: int | None) -> None:
        if timeout_ms is None and self.exchange.is_streaming:
            self._rest()
        ready = poller.poll(timeout_ms)
        if self._wake_read.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                self._wake_read.recv(4096)
            # Before what is outgoing is looked at: whoever adds to it later wakes us again.
            self._is_awake = False
        if link.monitor in ready:
            link.read_monitor()
        if link.socket in ready:
            batches = link.receive()
            with self.lock:
                for _, messages, content in batches:
                    for message in messages:
                        self._take(message, content)
                self._wake_waiters()
        if link.state == "lost":
            raise LinkLost(link.reason or "the link was lost")

    def _rest(self) -> None:
        # Let news gather while only news can come; whoever wants to send ends the rest.
        rest_s = self._pace.rest_s(time.monotonic())
        if rest_s:
            select.select([self._wake_read], [], [], rest_s)

    def _take(self, message: ClientFromManager, content: bytes | None) -> None:
        match message:
            case Get():
                self.offers.answer(message, self._replier(self._session))
            case Opened():
                self.exchange.opened()
            case Reattach():
                raise LinkLost("the manager does not know this session any more")
            case Refusal(is_fatal=True):
                if self.exchange.is_open:
                    raise LinkLost(message.text)
                raise error_from_wire(message.code, message.text)
            case _:
                self.exchange.received(message, content)

    def _replier(self, session: int) -> Callable[[Data | GetFailed, bytes | None], None]:
        def reply(message: Data | GetFailed, content: bytes | None) -> None:
            self._data.append((session, message, content))
            self.wake()

        return reply

    def _wake_waiters(self) -> None:
        for waiter in self._waiters:
            if not waiter.event.is_set() and (self.error is not None or waiter.is_ready()):
                waiter.event.set()

    def _give_up(self, error: WqueueError) -> None:
        with self.lock:
            self.error = error
            self.exchange.lost()
            self.exchange.fail(error)
            self._wake_waiters()

    def _tell(self, news: str) -> None:
        if self._on_connection is not None:
            self._on_connection(news)


def boot_id() -> str:
    """Name this boot of this host, where the system tells it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
