"""The allow-list, and the handler that asks it."""

from collections.abc import Iterator

import pytest
import zmq

from wqueue.manager.limits import PROOF_UNUSED_S
from wqueue.manager.zap import ENDPOINT, AllowList, Zap

KEY, OTHER = b"k" * 32, b"o" * 32


def test_a_role_opens_its_doors_and_no_others() -> None:
    doors = ("task", "result", "announce", "client")
    opened = {}
    for i, role in enumerate(("owner", "worker", "client", "observer")):
        allow = AllowList()
        allow.admit(bytes([i]) * 32, role, 0.0)
        opened[role] = [door for door in doors if allow.may_connect(door, bytes([i]) * 32)]
    assert opened == {
        "owner": ["task", "result", "announce", "client"],
        "worker": ["task", "result", "announce"],
        "client": ["announce", "client"],
        "observer": ["client"],
    }


def test_a_door_opens_once_for_a_key() -> None:
    allow = AllowList()
    allow.admit(KEY, "worker", 0.0)
    assert allow.may_connect("task", KEY)
    assert not allow.may_connect("task", KEY)
    assert not allow.may_connect("task", OTHER)


def test_an_unused_proof_dies_and_a_used_one_lives_as_long_as_its_session() -> None:
    allow = AllowList()
    allow.admit(KEY, "worker", 0.0)
    allow.admit(OTHER, "worker", 5.0)
    assert allow.deadline() == PROOF_UNUSED_S
    allow.use(OTHER)
    assert allow.expire(PROOF_UNUSED_S - 0.1) == []
    assert allow.expire(PROOF_UNUSED_S) == [KEY]
    assert allow.expire(1000.0) == []
    assert not allow.may_connect("task", KEY)
    assert allow.may_connect("task", OTHER)
    allow.revoke(OTHER)
    assert not allow.may_connect("result", OTHER)


def test_a_key_is_never_proven_twice() -> None:
    allow = AllowList()
    allow.admit(KEY, "worker", 0.0)
    allow.revoke(KEY)
    assert KEY in allow
    with pytest.raises(AssertionError):
        allow.admit(KEY, "worker", 1.0)


@pytest.fixture
def asker() -> Iterator[tuple[Zap, AllowList, "zmq.Socket[bytes]", list[tuple[str, str]]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    allow = AllowList()
    connected: list[tuple[str, str]] = []
    zap = Zap(context, allow, lambda door, address: connected.append((door, address)))
    socket = context.socket(zmq.DEALER)
    socket.connect(ENDPOINT)
    yield zap, allow, socket, connected
    socket.close(linger=0)
    zap.close()
    context.term()


def ask(zap: Zap, socket: "zmq.Socket[bytes]", *fields: bytes) -> list[bytes]:
    socket.send_multipart([b"", b"1.0", b"7", *fields])
    zap.answer_all()
    return socket.recv_multipart()


def test_only_200_and_400_are_answered(
    asker: tuple[Zap, AllowList, "zmq.Socket[bytes]", list[tuple[str, str]]],
) -> None:
    zap, allow, socket, connected = asker
    allow.admit(KEY, "worker", 0.0)
    good = ask(zap, socket, b"task", b"127.0.0.1", b"", b"CURVE", KEY)
    assert good == [b"", b"1.0", b"7", b"200", b"OK", KEY.hex().encode(), b""]
    assert connected == [("task", "127.0.0.1")]
    for fields in (
        (b"client", b"127.0.0.1", b"", b"CURVE", KEY),
        (b"task", b"127.0.0.1", b"", b"CURVE", OTHER),
        (b"\xff", b"127.0.0.1", b"", b"CURVE", KEY),
        (b"task", b"127.0.0.1", b"", b"NULL"),
        (b"task", b"127.0.0.1", b"", b"PLAIN", b"user", b"password"),
    ):
        assert ask(zap, socket, *fields)[3] == b"400"
    assert len(connected) == 1
