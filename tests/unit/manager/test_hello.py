"""The hello door over loopback, with a clock of our own."""

import contextlib
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from nacl.public import PrivateKey

from wqueue.manager.hello import Admitted, HelloDoor
from wqueue.manager.limits import HELLO_FREE_FAILURES, HELLO_PER_ADDRESS_MAX
from wqueue.manager.log import LOG
from wqueue.manager.zap import AllowList
from wqueue.protocol.credentials import Credential, make_credential
from wqueue.protocol.errors import NotAuthorized, Refused, WqueueError
from wqueue.protocol.handshake import ManagerFacts, PeerHello, Proven
from wqueue.protocol.limits import HELLO_MESSAGE_MAX_BYTES, HELLO_TIMEOUT_S

ROOT_KEY = bytes(range(32))
SECRET = PrivateKey(bytes(range(32, 64)))
SERVER_ID = bytes(16)


class House(NamedTuple):
    """A hello door with its allow-list and listening address."""

    door: HelloDoor
    allow: AllowList
    facts: ManagerFacts
    address: tuple[str, int]
    peers: "list[Peer]"

    def serve_until(self, condition: Callable[[], object], now_s: float = 0.0) -> list[Admitted]:
        """Serve at one moment of the door's clock until `condition` is true."""
        admitted: list[Admitted] = []
        ends = time.monotonic() + 20.0
        while time.monotonic() < ends:
            admitted += self.door.serve(now_s)
            if condition():
                return admitted
        raise AssertionError("it did not come true")

    def dial(self, secret: Credential | None = None, key: bytes = b"") -> "Peer":
        """Connect another peer."""
        peer = Peer(self, secret, key)
        self.peers.append(peer)
        return peer


@pytest.fixture
def house() -> Iterator[House]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    facts = ManagerFacts(
        SERVER_ID, 1, "test", bytes(SECRET.public_key), bytes(SECRET), ROOT_KEY, bytes(16)
    )
    allow = AllowList()
    door = HelloDoor(
        listener, facts, lambda local: {"task": f"tcp://{local}:1"}, allow, open_max=100
    )
    address = listener.getsockname()
    house = House(door, allow, facts, (address[0], address[1]), [])
    with contextlib.closing(door):
        yield house
        for peer in house.peers:
            peer.sock.close()


def credential(role: str = "owner") -> Credential:
    return make_credential(ROOT_KEY, role, b"kid45678", bytes(SECRET.public_key), SERVER_ID)


class Peer:
    """The other side, step by step."""

    def __init__(self, house: House, secret: Credential | None, key: bytes) -> None:
        self.house = house
        self.sock = socket.create_connection(house.address)
        self.sock.setblocking(False)
        private = PrivateKey(key or os.urandom(32))
        self.key = bytes(private.public_key)
        self.hello = PeerHello(
            secret or credential(),
            "owner",
            public_key=self.key,
            secret_key=bytes(private),
            nonce=os.urandom(32),
            box_nonce=os.urandom(16),
        )
        self.is_closed = False
        self.is_holding_back = False
        self.held = b""
        self.error: WqueueError | None = None

    def read(self) -> bool:
        """Take what is there; true when the conversation is over."""
        try:
            data = self.sock.recv(8192)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b""
        if not data:
            self.is_closed = True
            return True
        try:
            answer = self.hello.receive(data)
        except WqueueError as error:
            self.error = error
            return True
        if answer and self.is_holding_back:
            self.held = answer
        elif answer:
            self.sock.send(answer)
        return self.hello.state == "proven"

    def begin(self, now_s: float = 0.0) -> None:
        """Go as far as to send the proof."""
        self.sock.send(self.hello.opening)
        self.house.serve_until(lambda: self.read() or self.hello.state == "proving", now_s)

    def prove(self, now_s: float = 0.0) -> list[Admitted]:
        """Go through the whole proof at one moment."""
        self.sock.send(self.hello.opening)
        return self.house.serve_until(self.read, now_s)

    @property
    def proven(self) -> Proven:
        assert self.hello.proven is not None
        return self.hello.proven


def test_a_right_proof_is_admitted_and_its_key_allowed(house: House) -> None:
    peer = house.dial()
    [admitted] = peer.prove()
    assert admitted.address == "127.0.0.1"
    assert admitted.peer.public_key == peer.key
    assert admitted.peer.token_tag == peer.proven.token_tag
    assert peer.proven.endpoints == {"task": "tcp://127.0.0.1:1"}
    assert house.allow.may_connect("task", peer.key)


def test_a_proven_key_proves_nothing_again(house: House) -> None:
    key = os.urandom(32)
    house.dial(key=key).prove()
    again = house.dial(key=key)
    assert again.prove() == []
    assert again.error is not None


def test_two_hellos_with_one_key_at_once_admit_one(house: House) -> None:
    key = os.urandom(32)
    first, second = house.dial(key=key), house.dial(key=key)
    # Both get their H2 before either proves.
    for peer in (first, second):
        peer.is_holding_back = True
        peer.begin()
    for peer in (first, second):
        peer.sock.send(peer.held)
    done: list[Admitted] = []
    ends = [False, False]

    def both_ended() -> bool:
        for i, peer in enumerate((first, second)):
            ends[i] = ends[i] or peer.read()
        return all(ends)

    done += house.serve_until(both_ended)
    assert len(done) == 1
    assert len(house.allow) == 1


def test_a_message_may_come_byte_by_byte(house: House) -> None:
    peer = house.dial()
    for i in range(len(peer.hello.opening)):
        peer.sock.send(peer.hello.opening[i : i + 1])
        house.door.serve(0.0)
    house.serve_until(peer.read)
    assert peer.hello.state == "proven"


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        (HELLO_MESSAGE_MAX_BYTES + 1).to_bytes(4, "big") + b"x",
        (5).to_bytes(4, "big") + b"\xc1\xc1\xc1\xc1\xc1",
        bytes(4),
    ],
)
def test_nonsense_is_closed_at_once(house: House, nonsense: bytes) -> None:
    peer = house.dial()
    peer.sock.send(nonsense)
    house.serve_until(lambda: peer.read() or peer.error)
    assert house.serve_until(lambda: peer.read() or house.door.open_count == 0) == []


def test_a_silent_stranger_is_closed_after_its_time(house: House) -> None:
    peer = house.dial()
    house.serve_until(lambda: house.door.open_count == 1, 10.0)
    assert house.door.deadline() == 10.0 + HELLO_TIMEOUT_S
    house.door.expire(10.0 + HELLO_TIMEOUT_S - 0.1)
    assert house.door.open_count == 1
    house.door.expire(10.0 + HELLO_TIMEOUT_S)
    assert house.door.open_count == 0
    assert peer.read()


def test_the_oldest_of_too_many_from_one_address_is_dropped(house: House) -> None:
    peers = [house.dial() for _ in range(HELLO_PER_ADDRESS_MAX + 3)]
    house.serve_until(peers[2].read)
    assert house.door.open_count == HELLO_PER_ADDRESS_MAX
    assert peers[0].read()
    assert not peers[3].read()


def hang_up(house: House, peer: Peer) -> None:
    """Close a peer and wait until the door has noticed."""
    peer.sock.close()
    house.serve_until(lambda: house.door.open_count == 0)


def delayed_until(house: House, now_s: float) -> float:
    """Serve until an answer is being delayed, and give the time at which it will be sent."""
    before = house.door.deadline()
    house.serve_until(lambda: house.door.deadline() != before, now_s)
    at_s = house.door.deadline()
    assert at_s is not None
    return at_s


def test_wrong_proofs_are_delayed_after_some_and_right_ones_never(house: House) -> None:
    wrong = make_credential(bytes(32), "owner", b"kid45678", bytes(SECRET.public_key), SERVER_ID)
    for _ in range(HELLO_FREE_FAILURES):
        peer = house.dial(wrong)
        peer.prove()
        assert isinstance(peer.error, NotAuthorized)
        hang_up(house, peer)
    delays = []
    for _ in range(7):
        peer = house.dial(wrong)
        peer.begin(100.0)
        at_s = delayed_until(house, 100.0)
        assert not peer.read()
        delays.append(at_s - 100.0)
        right = house.dial()
        [admitted] = right.prove(100.0)
        assert admitted.address == "127.0.0.1"
        right.sock.close()
        house.door.expire(at_s)
        house.serve_until(peer.read, 100.0)
        assert isinstance(peer.error, NotAuthorized)
        hang_up(house, peer)
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_newcomers_beyond_the_limit_are_told_so(house: House) -> None:
    house.facts.full = {"owner": "no room"}
    peer = house.dial()
    peer.prove()
    assert isinstance(peer.error, Refused)
    assert str(peer.error).endswith("no room")


def test_without_descriptors_the_listener_does_not_spin(house: House) -> None:
    peer = house.dial()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir()))
    fillers: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                fillers.append(os.dup(0))
        house.serve_until(peer.read)
        assert house.door.open_count == 0
        assert house.door.serve(0.0) == []
    finally:
        for filler in fillers:
            os.close(filler)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    [admitted] = house.dial().prove()
    assert admitted.peer.role == "owner"


def test_who_dials_and_says_nothing_is_no_warning_and_one_line_a_minute(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", LOG.name)
    for said in (b"", b"", bytes(3)):
        peer = house.dial()
        peer.sock.send(said)
        house.serve_until(lambda: house.door.open_count == 1)
        hang_up(house, peer)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "hello: 127.0.0.1 left without a word"),
        ("WARNING", "hello: 127.0.0.1 left in the middle of its hello"),
    ]
