"""Connections to a manager, for workers and clients: one CURVE socket per door, and its monitor.

First dial(), then Link: the proof on hello gives the keys and addresses of the doors. One TCP
connection is one session. ZeroMQ never reconnects by itself here: what it had queued for a dead
manager would reach the next one before the new session stands (wire 1.3). Whoever owns a Link
watches its monitor, closes it when it is lost, and dials again.
"""

from collections.abc import Sequence
from typing import Generic, Literal, TypeVar

import zmq

from wqueue.protocol.codec import (
    ANNOUNCE,
    BatchDecoder,
    Message,
    encode_batch,
    encode_batches,
)
from wqueue.protocol.dial import ask_server_id as ask_server_id
from wqueue.protocol.dial import dial as dial
from wqueue.protocol.dial import dial_first as dial_first
from wqueue.protocol.errors import ManagerUnreachable, RemoteProtocolError
from wqueue.protocol.handshake import Proven as Proven
from wqueue.protocol.limits import (
    ANNOUNCE_TOPIC,
    CHUNK_BYTES,
    CONTROL_MESSAGE_MAX_BYTES,
    LINK_HEARTBEAT_MS,
    LINK_QUEUE_FRAMES,
    LINK_TIMEOUT_MS,
    PEER_HANDSHAKE_MS,
)
from wqueue.protocol.messages import Announcement, Data, FromManagerBatch, ToManagerBatch
from wqueue.protocol.monitor import parse_event

M = TypeVar("M")

LinkState = Literal["connecting", "up", "lost"]

RECEIVE_MAX = 64
"""Most batches one call of receive() takes, so that a flood cannot hold a loop."""

_EVENTS = (
    zmq.Event.CLOSED
    | zmq.Event.DISCONNECTED
    | zmq.Event.HANDSHAKE_SUCCEEDED
    | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_AUTH
)

_REASONS: dict[int, str] = {
    # CLOSED: with reconnecting off, a refused first connect shows nothing else (wire 7.2).
    zmq.Event.CLOSED: "nothing accepts connections there",
    zmq.Event.DISCONNECTED: "the connection ended",
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL: "the encrypted connection could not be made",
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL: "what listens there does not speak CurveZMQ",
    zmq.Event.HANDSHAKE_FAILED_AUTH: "the manager does not know this session",
}


class LinkLost(ManagerUnreachable):
    """The link is not up, or takes no more: close it, dial, and repeat what matters."""


class _Watched:
    """A socket with its monitor: what Link and AnnounceLink share."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        kind: zmq.SocketType,
        endpoint: str,
        proven: Proven,
    ) -> None:
        self.endpoint = endpoint
        self.state: LinkState = "connecting"
        self.reason = ""
        self.socket: zmq.Socket[bytes] = context.socket(kind)
        self.monitor: zmq.Socket[bytes] = self.socket.get_monitor_socket(_EVENTS)
        try:
            self._configure(proven)
            self.socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise RemoteProtocolError(
                f"the manager names a door that is no address: {endpoint!r} ({error.strerror})"
            ) from None

    def _configure(self, proven: Proven) -> None:
        socket = self.socket
        socket.linger = 0
        socket.setsockopt(zmq.RECONNECT_IVL, -1)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, CONTROL_MESSAGE_MAX_BYTES)
        socket.setsockopt(zmq.SNDHWM, LINK_QUEUE_FRAMES)
        socket.setsockopt(zmq.RCVHWM, LINK_QUEUE_FRAMES)
        socket.setsockopt(zmq.HEARTBEAT_IVL, LINK_HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, LINK_TIMEOUT_MS)
        socket.setsockopt(zmq.HANDSHAKE_IVL, PEER_HANDSHAKE_MS)
        socket.setsockopt(zmq.IPV6, 1)
        socket.setsockopt(zmq.CURVE_SERVERKEY, proven.manager_key)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, proven.public_key)
        socket.setsockopt(zmq.CURVE_SECRETKEY, proven.secret_key)

    def read_monitor(self) -> None:
        """Read what the monitor has to say and update `state`; `reason` tells why it was lost."""
        while not self.monitor.closed:
            try:
                event, _ = parse_event(self.monitor.recv_multipart(zmq.NOBLOCK)[0])
            except zmq.Again:
                return
            if event == zmq.Event.HANDSHAKE_SUCCEEDED:
                if self.state == "connecting":
                    self.state = "up"
            else:
                self._lose(_REASONS.get(event, "the connection ended"))

    def _lose(self, reason: str) -> None:
        # The first reason is the true one: CLOSED and DISCONNECTED follow every failure.
        self.reason = self.reason or reason
        self.state = "lost"

    def close(self) -> None:
        """Close both sockets at once; what was not sent is dropped. May be called again."""
        self._lose("closed")
        if not self.socket.closed:
            self.socket.disable_monitor()
            self.socket.close(linger=0)
            self.monitor.close(linger=0)

    def _frames(self) -> list[list[bytes]]:
        arrived: list[list[bytes]] = []
        while len(arrived) < RECEIVE_MAX:
            try:
                arrived.append(self.socket.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                break
        return arrived


class Link(_Watched, Generic[M]):
    """A DEALER to one door and its monitor. Register both sockets in a poller for POLLIN.

    Nothing can be sent before `state` is "up"; read_monitor() changes it. A lost link stays lost.
    Not thread-safe.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        endpoint: str,
        proven: Proven,
        decoder: BatchDecoder[FromManagerBatch, M],
    ) -> None:
        super().__init__(context, zmq.SocketType.DEALER, endpoint, proven)
        self.sequence = 0
        self._token_tag = proven.token_tag
        self._decoder = decoder

    def _next_header(self) -> ToManagerBatch:
        self.sequence += 1
        return ToManagerBatch(self._token_tag, self.sequence)

    def send(self, messages: Sequence[Message], data: bytes | None = None) -> None:
        """Send messages in as many batches as needed; with `data`, one Data message and its bytes.

        Never blocks. Raises LinkLost when the link is not up or takes no more; what was already
        taken may or may not arrive, so what matters is repeated on the next link.
        """
        if self.state != "up":
            raise LinkLost(f"no link to the manager: {self.reason or 'still connecting'}")
        try:
            if data is not None:
                assert len(messages) == 1, "Data travels alone"
                assert isinstance(messages[0], Data), messages[0]
                frame = encode_batch(self._next_header(), messages)
                self.socket.send_multipart([frame, data], zmq.NOBLOCK)
                return
            for frame in encode_batches(self._next_header, messages):
                self.socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            self._lose("the manager takes nothing more from this link")
            raise LinkLost(f"no link to the manager: {self.reason}") from None

    def receive(self) -> list[tuple[FromManagerBatch, list[M], bytes | None]]:
        """Take what has arrived: header, messages, and the content of a Data message.

        Takes at most RECEIVE_MAX batches; never blocks. Raises RemoteProtocolError for a malformed
        one: close the link.
        """
        return [self._decode(frames) for frames in self._frames()]

    def _decode(self, frames: list[bytes]) -> tuple[FromManagerBatch, list[M], bytes | None]:
        header, messages = self._decoder.decode(frames[0])
        content = check_data(messages, frames[1:])
        return header, messages, content


def check_data(messages: Sequence[object], more: Sequence[bytes]) -> bytes | None:
    """Check that frames beyond the payload are what the messages promise, and give the content.

    A Data message travels alone and has one further frame; no other batch has. Raises
    RemoteProtocolError. Both ends of a door use it.
    """
    has_data = any(isinstance(message, Data) for message in messages)
    if not has_data and not more:
        return None
    if not has_data or len(messages) != 1 or len(more) != 1:
        raise RemoteProtocolError("frames and messages of a batch do not go together")
    if len(more[0]) > CHUNK_BYTES:
        raise RemoteProtocolError(f"{len(more[0])} bytes of content in one message")
    return more[0]


class AnnounceLink(_Watched):
    """The SUB twin of Link for the announce door: it only receives."""

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, proven: Proven
    ) -> None:
        super().__init__(context, zmq.SocketType.SUB, endpoint, proven)

    def _configure(self, proven: Proven) -> None:
        super()._configure(proven)
        self.socket.setsockopt(zmq.SUBSCRIBE, ANNOUNCE_TOPIC)

    def receive(self) -> list[tuple[FromManagerBatch, list[Announcement]]]:
        """Take what has arrived, at most RECEIVE_MAX batches; never blocks.

        Raises RemoteProtocolError for a malformed one: close the link.
        """
        return [self._decode(frames) for frames in self._frames()]

    def _decode(self, frames: list[bytes]) -> tuple[FromManagerBatch, list[Announcement]]:
        if len(frames) != 2 or frames[0] != ANNOUNCE_TOPIC:
            raise RemoteProtocolError("an announcement needs its topic and one payload")
        return ANNOUNCE.decode(frames[1])
