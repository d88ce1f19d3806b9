"""The manager's ZeroMQ sockets: how each is set up, and what its monitor tells.

A door knows its open connections by descriptor: the monitor says in order which were accepted and
which are gone. Only proven keys pass ZAP; what fails before that is a stranger and costs one line
in the log per address and minute.
"""

import contextlib
import errno
import fcntl
import os
import socket
import sys
import termios
from collections.abc import Callable

import zmq
from msgspec import Struct

from wqueue.manager.limits import ANNOUNCE_QUEUE_MAX, RESULT_QUEUE_MAX, TASK_QUEUE_MAX
from wqueue.manager.log import Seldom
from wqueue.protocol.limits import (
    BULK_MESSAGE_MAX_BYTES,
    CONTROL_MESSAGE_MAX_BYTES,
    LINK_HEARTBEAT_MS,
    LINK_TIMEOUT_MS,
    LISTEN_BACKLOG,
    MANAGER_HANDSHAKE_MS,
)
from wqueue.protocol.monitor import parse_event

Context = zmq.Context[zmq.Socket[bytes]]

SUBSCRIPTION_MAX_BYTES = 4096
"""MAXMSGSIZE of the announce door, where peers send nothing but subscriptions."""

CLOSE_LINGER_MS = 1000
"""How long a closed door goes on sending its last words."""

_MONITORED = (
    zmq.EVENT_ACCEPTED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)

_FAILURES: dict[int, str] = {
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "did not finish the handshake",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "broke the handshake",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "has not proven its key on hello",
}

Address = tuple[str, int]

_GONE: Address = ("a stranger that was gone at once", 0)
"""Stands for the address of a connection that ended before it could be looked at: no proven one,
since a proof needs this loop."""


class DoorKind(Struct, frozen=True):
    """What differs between the doors."""

    socket_type: int
    message_max_bytes: int
    queue_max: int


KINDS = {
    "task": DoorKind(zmq.ROUTER, CONTROL_MESSAGE_MAX_BYTES, TASK_QUEUE_MAX),
    "result": DoorKind(zmq.ROUTER, BULK_MESSAGE_MAX_BYTES, RESULT_QUEUE_MAX),
    "client": DoorKind(zmq.ROUTER, CONTROL_MESSAGE_MAX_BYTES, TASK_QUEUE_MAX),
    "announce": DoorKind(zmq.XPUB, SUBSCRIPTION_MAX_BYTES, ANNOUNCE_QUEUE_MAX),
}


class Door:
    """One CURVE socket and its monitor."""

    def __init__(self, context: Context, name: str, secret_key: bytes, seldom: Seldom) -> None:
        kind = KINDS[name]
        self.name = name
        self.port = 0
        self.open: dict[int, Address] = {}
        self.lost: list[int] = []
        self.accepted: list[int] = []
        self._seldom = seldom
        self._failure = ""
        self._proven: dict[str, int] = {}
        self.socket = context.socket(kind.socket_type)
        _set_up(self.socket, name, kind, secret_key)
        endpoint = f"inproc://monitor.{name}.{id(self):x}"
        self.socket.monitor(endpoint, _MONITORED)
        self.monitor = context.socket(zmq.PAIR)
        self.monitor.linger = 0
        # Unbounded: a full monitor queue would stop libzmq's I/O thread.
        self.monitor.rcvhwm = 0
        self.monitor.connect(endpoint)

    def bind(self, host: str, port: int) -> int | None:
        """Bind to a port, 0 for any, and give it; None when it is taken."""
        try:
            self.socket.bind(f"tcp://{host}:{port or '*'}")
        except zmq.ZMQError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return None
            raise
        end = self.socket.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(end, bytes), end
        self.port = int(end.rstrip(b"\0").rpartition(b":")[2])
        return self.port

    def expect(self, address: str) -> None:
        """Note that ZAP let somebody at this address in: its end will be nothing to log."""
        self._proven[address] = self._proven.get(address, 0) + 1

    def read_monitor(self, is_linked: Callable[[int], bool], now_s: float) -> None:
        """Read what the monitor has to say into `accepted` (new) and `lost` (links that ended)."""
        while True:
            try:
                parts = self.monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            kind, value = parse_event(parts[0])
            if kind == zmq.EVENT_ACCEPTED:
                self.open[value] = _peer_of(value)
                self.accepted.append(value)
            elif kind == zmq.EVENT_DISCONNECTED:
                self._on_end(value, is_linked(value), now_s)
            elif kind in _FAILURES:
                # Its own DISCONNECTED comes next from the same I/O thread and names the peer.
                self._failure = _FAILURES[kind]

    def _on_end(self, descriptor: int, is_linked: bool, now_s: float) -> None:
        address = self.open.pop(descriptor, _GONE)[0]
        failure, self._failure = self._failure, ""
        expected = self._proven.get(address, 0)
        if expected and (is_linked or not failure):
            self._proven[address] = expected - 1
            if expected == 1:
                del self._proven[address]
        elif not is_linked:
            why = failure or "did not speak the protocol"
            self._seldom.warn(
                f"{self.name} {address}", f"{self.name}: {address} {why}; closed", now_s
            )
        if is_linked:
            self.lost.append(descriptor)

    def cut(self, descriptor: int) -> None:
        """End one connection at once; the others do not notice (wire 1.4)."""
        address = self.open.get(descriptor)
        if address is None:
            return
        # The descriptor may be another connection's by now: look before shutting it down.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as copy:
            if copy.getpeername()[:2] == address:
                copy.shutdown(socket.SHUT_RDWR)

    def untaken_bytes(self, descriptor: int) -> int:
        """Give how many bytes the kernel holds that the other machine has not taken yet."""
        if descriptor not in self.open:
            return 0
        try:
            held = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))
        except OSError:
            return 0
        return int.from_bytes(held, sys.byteorder)

    def close(self) -> None:
        """Stop listening and close; last words go on for a moment."""
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close(linger=CLOSE_LINGER_MS)


def _set_up(it: zmq.Socket[bytes], name: str, kind: DoorKind, secret_key: bytes) -> None:
    it.linger = 0
    it.sndhwm = kind.queue_max
    it.rcvhwm = kind.queue_max
    it.maxmsgsize = kind.message_max_bytes
    it.backlog = LISTEN_BACKLOG
    it.heartbeat_ivl = LINK_HEARTBEAT_MS
    it.heartbeat_timeout = LINK_TIMEOUT_MS
    it.handshake_ivl = MANAGER_HANDSHAKE_MS
    it.curve_server = 1
    it.curve_secretkey = secret_key
    it.zap_domain = name.encode()
    if kind.socket_type == zmq.ROUTER:
        it.router_mandatory = 1
    else:
        it.setsockopt(zmq.XPUB_MANUAL, 1)


def _peer_of(descriptor: int) -> Address:
    try:
        with socket.socket(fileno=os.dup(descriptor)) as copy:
            name = copy.getpeername()
    except OSError:
        return _GONE
    return (str(name[0]), int(name[1]))
