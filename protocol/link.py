"""Connections to a manager, for workers and clients: the proof on hello, then CURVE sockets.

One TCP connection is one session. ZeroMQ never reconnects by itself here: what it had queued for a
dead manager would reach the next one before the new session stands (wire 1.3). Whoever owns a Link
watches its monitor, closes it when it is lost, and dials again.
"""

import os
import select
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, Literal, TypeVar

import nacl.public
import zmq

from wqueue.protocol.codec import BatchDecoder, Message
from wqueue.protocol.credentials import Credential
from wqueue.protocol.errors import ManagerUnreachable
from wqueue.protocol.handshake import Proven as Proven
from wqueue.protocol.messages import Announcement, FromManagerBatch

M = TypeVar("M")

LinkState = Literal["connecting", "up", "lost"]

DIAL_TIMEOUT_S = 5.0
"""From the first SYN to the manager's proof."""

RECEIVE_MAX = 64
"""Most frames one call of receive() takes, so that a flood cannot hold a loop."""


class LinkLost(ManagerUnreachable):
    """The link is not up, or takes no more: close it, dial, and repeat what matters."""


def dial(
    host: str,
    port: int,
    credential: Credential,
    *,
    role: str,
    timeout_s: float = DIAL_TIMEOUT_S,
    cache_dir: Path | None = None,
) -> Proven:
    """Prove `credential` to the manager at HOST:PORT for `role` and let the manager prove itself.

    Blocks up to `timeout_s` (a human password that is not in the cache: 70 ms more). Derived keys
    are cached in `cache_dir`, else in $XDG_RUNTIME_DIR. Raises ManagerUnreachable, NotAuthorized
    (also for a foreign manager key), VersionMismatch, Refused, RemoteProtocolError.
    """
    raise NotImplementedError


def dial_first(
    addresses: Sequence[str],
    port: int,
    credential: Credential,
    *,
    role: str,
    timeout_s: float = DIAL_TIMEOUT_S,
    cache_dir: Path | None = None,
) -> Proven:
    """Try all addresses at once and dial the first that answers as the right manager."""
    raise NotImplementedError


def ask_server_id(found: object) -> bytes:
    """Ask the manager at a found address for its server id; nothing is proven by the answer."""
    raise NotImplementedError


class Link(Generic[M]):
    """A DEALER to one door and its monitor. Register both sockets in a poller for POLLIN.

    Nothing can be sent before `state` is "up"; read_monitor() changes it. Not thread-safe.
    """

    socket: "zmq.Socket[bytes]"
    monitor: "zmq.Socket[bytes]"
    state: LinkState

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        endpoint: str,
        proven: Proven,
        decoder: BatchDecoder[FromManagerBatch, M],
    ) -> None:
        raise NotImplementedError

    def read_monitor(self) -> None:
        """Read what the monitor has to say and update `state`."""
        raise NotImplementedError

    def send(self, messages: Sequence[Message], data: bytes | None = None) -> None:
        """Send messages in as many batches as needed; with `data`, one Data message and its bytes.

        Never blocks. Raises LinkLost when the link is not up or takes no more; what was already
        taken may or may not arrive, so what matters is repeated on the next link.
        """
        raise NotImplementedError

    def receive(self) -> list[tuple[FromManagerBatch, list[M], bytes | None]]:
        """Take what has arrived: header, messages, and the content of a Data message.

        Takes at most RECEIVE_MAX frames; never blocks. Raises RemoteProtocolError for a malformed
        frame: close the link.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close both sockets at once; what was not sent is dropped. May be called again."""
        raise NotImplementedError


class AnnounceLink:
    """The SUB twin of Link for the announce door: it only receives."""

    socket: "zmq.Socket[bytes]"
    monitor: "zmq.Socket[bytes]"
    state: LinkState

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, proven: Proven
    ) -> None:
        raise NotImplementedError

    def read_monitor(self) -> None:
        """Read what the monitor has to say and update `state`."""
        raise NotImplementedError

    def receive(self) -> list[tuple[FromManagerBatch, list[Announcement]]]:
        """Take what has arrived, at most RECEIVE_MAX frames; never blocks."""
        raise NotImplementedError

    def close(self) -> None:
        """Close both sockets at once. May be called again."""
        raise NotImplementedError
