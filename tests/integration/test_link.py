"""Links and the proof over real sockets, against a manager that is only sockets."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from support.small_manager import PATIENCE_S, SmallManager

from wqueue.protocol import codec
from wqueue.protocol.credentials import (
    Credential,
    parse_credential,
    read_credential,
    write_credential,
)
from wqueue.protocol.errors import (
    ManagerUnreachable,
    NotAuthorized,
    Refused,
    RemoteProtocolError,
)
from wqueue.protocol.limits import CHUNK_BYTES
from wqueue.protocol.link import AnnounceLink, Link, LinkLost, ask_server_id, dial, dial_first
from wqueue.protocol.locate import Found, find_credential
from wqueue.protocol.messages import (
    Data,
    FromManagerBatch,
    Leave,
    ManagerHeartbeat,
    Reattach,
    ResultFromManager,
    Started,
    TaskFromManager,
    WorkerHeartbeat,
)

ATTEMPT = bytes(36)


@pytest.fixture
def manager() -> Iterator[SmallManager]:
    with SmallManager() as running:
        yield running


@pytest.fixture
def context() -> Iterator["zmq.Context[zmq.Socket[bytes]]"]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(linger=0)


def await_state(link: "Link[Any] | AnnounceLink", state: str) -> None:
    ends = time.monotonic() + PATIENCE_S
    while link.state != state:
        assert time.monotonic() < ends, f"still {link.state}: {link.reason}"
        link.monitor.poll(1000)
        link.read_monitor()


def await_batches(link: "Link[Any] | AnnounceLink") -> list[Any]:
    ends = time.monotonic() + PATIENCE_S
    while True:
        batches = list(link.receive())
        if batches:
            return batches
        assert time.monotonic() < ends, "nothing came"
        link.socket.poll(1000)


def open_link(
    manager: SmallManager, context: "zmq.Context[zmq.Socket[bytes]]"
) -> "Link[TaskFromManager]":
    proven = dial("127.0.0.1", manager.port, manager.credential(), role="worker")
    link = Link(context, proven.endpoints["task"], proven, codec.TASK_FROM_MANAGER)
    await_state(link, "up")
    return link


def test_both_sides_agree_on_the_token(manager: SmallManager) -> None:
    proven = dial("127.0.0.1", manager.port, manager.credential("worker"), role="worker")
    assert [peer.token for peer in manager.peers] == [proven.token]
    assert manager.peers[0].role == "worker"
    assert proven.endpoints == manager.endpoints


def test_messages_go_both_ways_with_tag_and_sequence(
    manager: SmallManager, context: "zmq.Context[zmq.Socket[bytes]]"
) -> None:
    link = open_link(manager, context)
    link.send([WorkerHeartbeat(1, 2, 3)])
    link.send([Started([ATTEMPT])])
    identity, first = manager.arrived.get(timeout=PATIENCE_S)
    _, second = manager.arrived.get(timeout=PATIENCE_S)
    header, messages = codec.TASK_TO_MANAGER.decode(first)
    assert (header.token_tag, header.sequence) == (manager.peers[0].token_tag, 1)
    assert messages == [WorkerHeartbeat(1, 2, 3)]
    assert codec.TASK_TO_MANAGER.decode(second)[0].sequence == 2
    manager.send(identity, Reattach())
    assert await_batches(link) == [(FromManagerBatch(7, 1, 1, 0), [Reattach()], None)]
    assert link.receive() == []
    link.close()
    link.close()
    assert link.state == "lost"


def test_a_large_send_becomes_several_batches(
    manager: SmallManager, context: "zmq.Context[zmq.Socket[bytes]]"
) -> None:
    link = open_link(manager, context)
    messages = [Started([index.to_bytes(36, "big")]) for index in range(5000)]
    link.send(messages)
    arrived: list[object] = []
    sequences = []
    while len(arrived) < len(messages):
        _, payload = manager.arrived.get(timeout=PATIENCE_S)
        header, batch = codec.TASK_TO_MANAGER.decode(payload)
        sequences.append(header.sequence)
        arrived += batch
    assert arrived == messages
    assert sequences == list(range(1, len(sequences) + 1))
    assert len(sequences) > 1
    link.close()


def test_content_travels_as_a_second_frame(
    manager: SmallManager, context: "zmq.Context[zmq.Socket[bytes]]"
) -> None:
    proven = dial("127.0.0.1", manager.port, manager.credential(), role="worker")
    link: Link[ResultFromManager] = Link(
        context, proven.endpoints["task"], proven, codec.RESULT_FROM_MANAGER
    )
    await_state(link, "up")
    link.send([Data(5, 0)], b"x" * CHUNK_BYTES)
    identity, payload, content = manager.arrived.get(timeout=PATIENCE_S)
    assert codec.RESULT_TO_MANAGER.decode(payload)[1] == [Data(5, 0)]
    assert content == b"x" * CHUNK_BYTES
    manager.send(identity, Data(6, 9), more=(b"answer",))
    assert await_batches(link) == [(FromManagerBatch(7, 1, 1, 0), [Data(6, 9)], b"answer")]
    link.close()


@pytest.mark.parametrize("more", [(), (b"a", b"b"), (bytes(CHUNK_BYTES + 1),)])
def test_content_that_does_not_match_its_message_is_an_error(
    manager: SmallManager, context: "zmq.Context[zmq.Socket[bytes]]", more: tuple[bytes, ...]
) -> None:
    proven = dial("127.0.0.1", manager.port, manager.credential(), role="worker")
    link: Link[ResultFromManager] = Link(
        context, proven.endpoints["task"], proven, codec.RESULT_FROM_MANAGER
    )
    await_state(link, "up")
    link.send([Data(5, 0)], b"")
    identity = manager.arrived.get(timeout=PATIENCE_S)[0]
    manager.send(identity, Data(6, 9), more=more)
    with pytest.raises(RemoteProtocolError):
        await_batches(link)
    link.close()


def test_a_frame_too_many_is_an_error(
    manager: SmallManager, context: "zmq.Context[zmq.Socket[bytes]]"
) -> None:
    link = open_link(manager, context)
    link.send([WorkerHeartbeat()])
    identity = manager.arrived.get(timeout=PATIENCE_S)[0]
    manager.send(identity, Leave("test"), more=(b"surplus",))
    with pytest.raises(RemoteProtocolError):
        await_batches(link)
    link.close()


def test_nothing_is_sent_before_the_link_is_up(
    manager: SmallManager, context: "zmq.Context[zmq.Socket[bytes]]"
) -> None:
    proven = dial("127.0.0.1", manager.port, manager.credential(), role="worker")
    link = Link(context, proven.endpoints["task"], proven, codec.TASK_FROM_MANAGER)
    with pytest.raises(LinkLost, match="still connecting"):
        link.send([WorkerHeartbeat()])
    link.close()


def test_a_link_whose_manager_ends_is_lost_and_stays_lost(
    manager: SmallManager, context: "zmq.Context[zmq.Socket[bytes]]"
) -> None:
    link = open_link(manager, context)
    manager.cut()
    await_state(link, "lost")
    with pytest.raises(LinkLost, match="the connection ended"):
        link.send([WorkerHeartbeat()])
    link.close()


def test_a_refused_connection_counts_as_lost(
    manager: SmallManager, context: "zmq.Context[zmq.Socket[bytes]]"
) -> None:
    proven = dial("127.0.0.1", manager.port, manager.credential(), role="worker")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    link = Link(context, f"tcp://127.0.0.1:{port}", proven, codec.TASK_FROM_MANAGER)
    await_state(link, "lost")
    assert link.reason == "nothing accepts connections there"
    link.close()


def test_a_key_that_proved_nothing_is_kept_out(
    manager: SmallManager, context: "zmq.Context[zmq.Socket[bytes]]"
) -> None:
    proven = dial("127.0.0.1", manager.port, manager.credential(), role="worker")
    manager.do(manager.peers.clear)
    link = Link(context, proven.endpoints["task"], proven, codec.TASK_FROM_MANAGER)
    await_state(link, "lost")
    assert link.reason == "the manager does not know this session"
    link.close()


def test_a_door_that_is_no_address_is_an_error(
    manager: SmallManager, context: "zmq.Context[zmq.Socket[bytes]]"
) -> None:
    proven = dial("127.0.0.1", manager.port, manager.credential(), role="worker")
    with pytest.raises(RemoteProtocolError, match="no address"):
        Link(context, "tcp://nowhere", proven, codec.TASK_FROM_MANAGER)


def test_announcements_arrive(
    manager: SmallManager, context: "zmq.Context[zmq.Socket[bytes]]"
) -> None:
    proven = dial("127.0.0.1", manager.port, manager.credential(), role="worker")
    link = AnnounceLink(context, proven.endpoints["announce"], proven)
    await_state(link, "up")
    header = FromManagerBatch(7, 0, 1, 0)
    payload = codec.encode_batch(header, [ManagerHeartbeat(4)])
    ends = time.monotonic() + PATIENCE_S
    # The subscription travels after the handshake, so the first ones may go to nobody.
    while not link.socket.poll(20):
        assert time.monotonic() < ends
        manager.do(lambda: manager.announce.send_multipart([b"wq", payload]))
    assert link.receive()[0] == (header, [ManagerHeartbeat(4)])
    manager.do(lambda: manager.announce.send_multipart([b"wq", payload, b"more"]))
    with pytest.raises(RemoteProtocolError):
        await_batches(link)
    link.close()


def test_a_wrong_credential_is_refused_in_one_line(manager: SmallManager) -> None:
    right = manager.credential()
    wrong = Credential("owner", right.kid, bytes(32), right.manager_key, right.server_id)
    with pytest.raises(NotAuthorized, match="the proof is wrong") as caught:
        dial("127.0.0.1", manager.port, wrong, role="client")
    assert "\n" not in str(caught.value)


def test_a_foreign_manager_is_not_trusted(manager: SmallManager) -> None:
    with SmallManager() as other, pytest.raises(NotAuthorized, match="its key differs"):
        dial("127.0.0.1", manager.port, other.credential(), role="client")
    assert manager.peers == []


def test_a_workers_credential_does_not_even_dial_as_client(manager: SmallManager) -> None:
    with pytest.raises(NotAuthorized, match="cannot act as client"):
        dial("127.0.0.1", manager.port, manager.credential("worker"), role="client")
    assert manager.hellos == 0


def test_a_full_manager_says_so(manager: SmallManager) -> None:
    manager.facts.full = {"worker": "no room for more than 3 workers"}
    with pytest.raises(Refused, match="no room for more than 3 workers") as caught:
        dial("127.0.0.1", manager.port, manager.credential(), role="worker")
    assert caught.value.code == "full"


def test_the_first_address_that_answers_is_taken(manager: SmallManager) -> None:
    proven = dial_first(
        ["127.0.0.2", "no.such.host.invalid", "127.0.0.1"],
        manager.port,
        manager.credential(),
        role="client",
    )
    assert proven.server_id == manager.facts.server_id


def test_no_manager_at_all_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    credential = Credential(password="correct horse battery")
    with pytest.raises(ManagerUnreachable, match="no manager answers at"):
        dial("127.0.0.1", port, credential, role="client")


def test_an_unknown_host_is_unreachable() -> None:
    with pytest.raises(ManagerUnreachable, match="not known"):
        dial("no.such.host.invalid", 1, Credential(password="correct horse battery"), role="client")


def test_a_manager_that_says_nothing_is_unreachable(manager: SmallManager) -> None:
    manager.is_mute = True
    with pytest.raises(ManagerUnreachable, match="said nothing"):
        dial("127.0.0.1", manager.port, manager.credential(), role="client", timeout_s=0.2)


def test_a_human_password_opens_and_its_key_is_cached(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.touch(mode=0o600)
    file.write_text("correct horse battery\n")
    credential = read_credential(file)
    cache = tmp_path / "cache"
    with SmallManager(password="correct horse battery") as manager:
        dial("127.0.0.1", manager.port, credential, role="worker", cache_dir=cache)
        assert manager.hellos == 2
        dial("127.0.0.1", manager.port, credential, role="client", cache_dir=cache)
        assert manager.hellos == 3
        assert [peer.role for peer in manager.peers] == ["worker", "client"]


def test_a_wrong_human_password_is_refused() -> None:
    with (
        SmallManager(password="correct horse battery") as manager,
        pytest.raises(NotAuthorized, match="the proof is wrong"),
    ):
        dial("127.0.0.1", manager.port, parse_credential("correct horse batterie"), role="worker")


def test_a_human_password_is_refused_where_there_is_none(manager: SmallManager) -> None:
    with pytest.raises(NotAuthorized, match="no human password"):
        dial("127.0.0.1", manager.port, parse_credential("correct horse battery"), role="worker")


def test_something_else_on_the_port_is_no_manager() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        credential = Credential(password="correct horse battery")

        def greet() -> None:
            link, _ = other.accept()
            with link:
                link.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                link.recv(4096)

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(RemoteProtocolError, match="not a hello message"):
            dial("127.0.0.1", port, credential, role="client")
        thread.join(PATIENCE_S)


def test_the_server_id_can_be_asked_for(manager: SmallManager) -> None:
    assert ask_server_id(["127.0.0.1"], manager.port) == manager.facts.server_id
    assert manager.peers == []


def test_a_bare_address_finds_the_credential_by_the_server_id(
    manager: SmallManager, tmp_path: Path
) -> None:
    with SmallManager() as other:
        for name, owner in (("a", other), ("b", manager)):
            folder = tmp_path / "wqueue" / name
            folder.mkdir(parents=True, mode=0o700)
            write_credential(folder / "password", owner.credential())
        found = Found("127.0.0.1", manager.port, ["127.0.0.1"])
        credential = find_credential(found, environ={"XDG_STATE_HOME": str(tmp_path)})
    assert credential.server_id == manager.facts.server_id
