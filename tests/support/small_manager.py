"""A manager's sockets without a manager: hello, ZAP, one ROUTER door and announce, in a thread.

For tests of a peer's side. It takes proofs with the real ManagerHello, lets proven keys in, keeps
what arrives on the door, and sends what a test tells it to.
"""

import contextlib
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

import nacl.public
import zmq

from wqueue.protocol import codec
from wqueue.protocol.credentials import Credential, make_credential
from wqueue.protocol.handshake import ManagerFacts, ManagerHello, ProvenPeer
from wqueue.protocol.keys import derive_root_key
from wqueue.protocol.messages import FromManagerBatch

T = TypeVar("T")

PATIENCE_S = 20.0


class SmallManager:
    """Start with `with`; everything it opened is closed at the end."""

    def __init__(self, *, password: str = "") -> None:
        key = nacl.public.PrivateKey.generate()
        salt = os.urandom(16)
        self.facts = ManagerFacts(
            server_id=os.urandom(16),
            epoch=7,
            project="small",
            public_key=bytes(key.public_key),
            secret_key=bytes(key),
            root_key=os.urandom(32),
            salt=salt,
            password_key=derive_root_key(password, salt) if password else None,
        )
        self.peers: list[ProvenPeer] = []
        self.arrived: queue.Queue[list[bytes]] = queue.Queue()
        self.hellos = 0
        self.is_mute = False
        self.endpoints: dict[str, str] = {}
        self._orders: queue.Queue[Callable[[], None]] = queue.Queue()
        self._end = False

    def credential(self, role: str = "owner") -> Credential:
        return make_credential(
            self.facts.root_key,
            role,
            os.urandom(8),
            self.facts.public_key,
            self.facts.server_id,
        )

    def __enter__(self) -> "SmallManager":
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.zap = self.context.socket(zmq.ROUTER)
        self.zap.bind("inproc://zeromq.zap.01")
        self.door = self._bind(zmq.SocketType.ROUTER, "task")
        self.announce = self._bind(zmq.SocketType.XPUB, "announce")
        wake_out, wake_in = os.pipe()
        self._wake_out, self._wake_in = wake_out, wake_in
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        return self

    def _bind(self, kind: zmq.SocketType, door: str) -> "zmq.Socket[bytes]":
        bound = self.context.socket(kind)
        bound.linger = 0
        bound.curve_server = True
        bound.curve_secretkey = self.facts.secret_key
        bound.zap_domain = door.encode()
        if kind == zmq.SocketType.ROUTER:
            bound.router_mandatory = True
        self.endpoints[door] = f"tcp://127.0.0.1:{bound.bind_to_random_port('tcp://127.0.0.1')}"
        return bound

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end = True
        os.write(self._wake_in, b"x")
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()
        self.listener.close()
        self.context.destroy(linger=0)
        os.close(self._wake_in)
        os.close(self._wake_out)

    def do(self, order: Callable[[], T]) -> T:
        """Carry out `order` in the manager's thread, which owns the sockets."""
        answer: queue.Queue[T] = queue.Queue()
        self._orders.put(lambda: answer.put(order()))
        os.write(self._wake_in, b"x")
        return answer.get(timeout=PATIENCE_S)

    def send(self, identity: bytes, *messages: codec.Message, more: tuple[bytes, ...] = ()) -> None:
        """Send one batch to a peer of the door."""
        payload = codec.encode_batch(FromManagerBatch(7, 1, 1, 0), messages)
        self.do(lambda: self.door.send_multipart([identity, payload, *more]))

    def cut(self) -> None:
        """Close the door: every link to it ends."""
        self.do(self.door.close)

    def _run(self) -> None:
        poller = zmq.Poller()
        watched: dict[int, tuple[socket.socket, ManagerHello]] = {}
        for each in (self.zap, self.door, self.announce, self.listener, self._wake_out):
            poller.register(each, zmq.POLLIN)
        while not self._end:
            for each, _ in poller.poll():
                if each is self.zap:
                    self._answer_zap()
                elif each is self.door:
                    self.arrived.put(self.door.recv_multipart())
                elif each is self.announce:
                    self.announce.recv()
                elif each == self._wake_out:
                    os.read(self._wake_out, 1)
                    with contextlib.suppress(queue.Empty):
                        self._orders.get_nowait()()
                elif each == self.listener.fileno():
                    link, _ = self.listener.accept()
                    self.hellos += 1
                    watched[link.fileno()] = (link, self._new_hello())
                    poller.register(link, zmq.POLLIN)
                else:
                    assert isinstance(each, int)
                    link, hello = watched[each]
                    if not self._talk(link, hello):
                        poller.unregister(link)
                        del watched[each]
                        link.close()
            if self.door.closed and self.door in poller:
                poller.unregister(self.door)
        for link, _ in watched.values():
            link.close()

    def _new_hello(self) -> ManagerHello:
        return ManagerHello(
            self.facts,
            self.endpoints,
            nonce=os.urandom(32),
            box_nonce=os.urandom(16),
            opened_s=time.monotonic(),
            used_keys=[peer.public_key for peer in self.peers],
        )

    def _talk(self, link: socket.socket, hello: ManagerHello) -> bool:
        try:
            data = link.recv(8192)
        except ConnectionError:
            return False
        if not data:
            return False
        if self.is_mute:
            return True
        answer = hello.receive(data, time.monotonic())
        if hello.peer is not None:
            self.peers.append(hello.peer)
        link.sendall(answer)
        return hello.state in ("new", "proving")

    def _answer_zap(self) -> None:
        # identity, empty, version, request id, domain, address, routing id, mechanism, key
        frames = self.zap.recv_multipart()
        identity, empty, version, request, key = (*frames[:4], frames[8])
        known = any(peer.public_key == key for peer in self.peers)
        verdict = [b"200", b"OK"] if known else [b"400", b"unknown key"]
        user = key.hex().encode() if known else b""
        self.zap.send_multipart([identity, empty, version, request, *verdict, user, b""])
