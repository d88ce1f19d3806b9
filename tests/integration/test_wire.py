"""The wire inside this process, over real CURVE sockets, with a clock of our own."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq
from nacl.public import PrivateKey

from wqueue.manager.hello import Admitted
from wqueue.manager.limits import (
    BATCHES_PER_TURN,
    DROP_GRACE_S,
    LAST_WORDS_MAX_S,
    LINK_UNUSED_S,
    PROOF_UNUSED_S,
)
from wqueue.manager.peers import Peer
from wqueue.manager.wire import ROUTERS, Heard, Wire, WireFacts
from wqueue.protocol import codec
from wqueue.protocol.handshake import Proven, ProvenPeer
from wqueue.protocol.link import AnnounceLink, Link
from wqueue.protocol.messages import (
    Bye,
    Cancel,
    Counts,
    Done,
    Leave,
    ManagerHeartbeat,
    Open,
    Progress,
    Reattach,
    Register,
    ToManagerBatch,
    WorkerHeartbeat,
)
from wqueue.protocol.resources import Resources

REGISTER = Register(bytes(32), 1, Resources(1000), "here", 1)
OPEN = Open(bytes(32), 1)


class Rig:
    """A wire, and peers that are admitted without a hello."""

    def __init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.peers_context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.secret = PrivateKey.generate()
        self.wire = Wire(self.context, WireFacts(3, bytes(self.secret)))
        for door in self.wire.doors.values():
            door.bind("127.0.0.1", 0)
        self.now_s = 0.0
        self.committed = 0
        self.heard: list[Heard] = []
        self.lost: list[Peer] = []
        self.links: list[Any] = []

    def admit(self, role: str = "worker") -> tuple[Peer, Proven]:
        key = PrivateKey.generate()
        public = bytes(key.public_key)
        token = os.urandom(16)
        self.wire.allow.admit(public, role, self.now_s)
        proof = ProvenPeer(public, role, b"kid", role, (1, 0), token)
        self.wire.admit(Admitted(proof, "127.0.0.1"))
        endpoints = {n: f"tcp://127.0.0.1:{d.port}" for n, d in self.wire.doors.items()}
        own = bytes(self.secret.public_key)
        proven = Proven(bytes(16), 3, (1, 0), "", endpoints, own, public, bytes(key), token)
        return list(self.wire.peers.values())[-1], proven

    def connect(self, door: str, proven: Proven) -> Link[Any]:
        decoder: Any = {
            "task": codec.TASK_FROM_MANAGER,
            "result": codec.RESULT_FROM_MANAGER,
            "client": codec.CLIENT_FROM_MANAGER,
        }[door]
        link: Link[Any] = Link(self.peers_context, proven.endpoints[door], proven, decoder)
        self.links.append(link)
        self.turn_until(lambda: link.state != "connecting")
        return link

    def turn(self) -> None:
        wire = self.wire
        for name in wire.doors:
            wire.read_monitor(name, self.now_s)
        wire.zap.answer_all()
        for name in ROUTERS:
            self.heard += wire.hear(name, self.now_s)
        wire.hear_subscriptions(self.now_s)
        self.lost += wire.take_lost()
        wire.flush(self.committed, self.now_s)

    def turn_until(self, condition: Callable[[], Any]) -> Any:
        poller = zmq.Poller()
        for door in self.wire.doors.values():
            poller.register(door.socket, zmq.POLLIN)
            poller.register(door.monitor, zmq.POLLIN)
        poller.register(self.wire.zap.socket, zmq.POLLIN)
        for link in self.links:
            if not link.socket.closed:
                poller.register(link.socket, zmq.POLLIN)
                poller.register(link.monitor, zmq.POLLIN)
        for _ in range(2000):
            poller.poll(10)
            self.turn()
            for link in self.links:
                link.read_monitor()
            if value := condition():
                return value
        raise AssertionError("it did not come true")

    def receive(self, link: Any, count: int = 1) -> list[Any]:
        """Wait for that many messages."""
        got: list[Any] = []

        def is_enough() -> bool:
            for batch in link.receive():
                got.extend(batch[1])
            return len(got) >= count

        self.turn_until(is_enough)
        return got

    def close(self) -> None:
        for link in self.links:
            link.close()
        self.wire.close()
        self.peers_context.destroy(linger=0)
        self.context.destroy(linger=0)


@pytest.fixture
def rig() -> Iterator[Rig]:
    it = Rig()
    yield it
    it.close()


def registered(rig: Rig) -> tuple[Peer, Link[Any]]:
    peer, proven = rig.admit()
    link = rig.connect("task", proven)
    link.send([REGISTER])
    rig.turn_until(lambda: rig.heard)
    peer.kind, peer.session = "worker", 7
    rig.heard.clear()
    return peer, link


def test_messages_carry_the_session_and_both_counts(rig: Rig) -> None:
    peer, link = registered(rig)
    rig.wire.send(peer, Cancel([]))
    rig.wire.send(peer, Leave("x"))
    rig.turn_until(lambda: link.socket.poll(0))
    [(header, messages, content)] = link.receive()
    assert (header.epoch, header.session, header.sequence, header.seen) == (3, 7, 1, 1)
    assert messages == [Cancel([]), Leave("x")]
    assert content is None


def test_a_gated_message_waits_for_its_commit_and_holds_what_is_behind_it(rig: Rig) -> None:
    peer, link = registered(rig)
    rig.wire.send(peer, Cancel([]), after=5)
    rig.wire.send(peer, Leave("x"))
    rig.committed = 4
    rig.turn()
    assert rig.wire.has_to_send
    assert link.receive() == []
    rig.committed = 5
    assert rig.receive(link, 2) == [Cancel([]), Leave("x")]
    assert not rig.wire.has_to_send


def test_progress_alone_is_held_back_a_moment(rig: Rig) -> None:
    peer, proven = rig.admit("client")
    link = rig.connect("client", proven)
    link.send([OPEN])
    rig.turn_until(lambda: rig.heard)
    peer.kind = "client"
    rig.wire.send(peer, Done(1))
    assert rig.receive(link) == [Done(1)]
    rig.wire.send(peer, Progress(1, 1, Counts()))
    assert rig.wire.flush(0, rig.now_s) == rig.now_s
    rig.now_s += 1.0
    assert rig.receive(link) == [Progress(1, 1, Counts())]


def test_a_proof_that_opens_no_session_dies_and_its_link_is_challenged(rig: Rig) -> None:
    peer, proven = rig.admit()
    link = rig.connect("task", proven)
    assert link.state == "up"
    rig.now_s = PROOF_UNUSED_S
    assert rig.wire.deadline() == rig.now_s
    rig.wire.expire(rig.now_s)
    assert peer.number not in rig.wire.peers
    for _ in range(3):
        link.send([WorkerHeartbeat()])
        assert rig.receive(link) == [Reattach()]
    link.send([WorkerHeartbeat()])
    rig.turn_until(lambda: link.state == "lost")
    assert rig.heard == []


def test_last_words_are_heard_before_the_loss_is_told(rig: Rig) -> None:
    peer, link = registered(rig)
    link.send([Bye("done")])
    # The kernel and the socket take the word; then the link ends without any delay.
    link.socket.close(linger=1000)
    link.monitor.close()
    rig.links.remove(link)
    rig.turn_until(lambda: rig.lost)
    assert rig.lost == [peer]
    assert [heard.messages for heard in rig.heard] == [[Bye("done")]]
    assert not rig.wire.peers


def test_a_dropped_peer_gets_the_last_words_and_is_not_heard_any_more(rig: Rig) -> None:
    peer, link = registered(rig)
    rig.wire.send(peer, Leave("go"))
    rig.wire.drop(peer, rig.now_s)
    link.send([WorkerHeartbeat()])
    assert rig.receive(link) == [Leave("go")]
    assert rig.heard == []
    rig.now_s += DROP_GRACE_S
    rig.wire.expire(rig.now_s)
    rig.turn_until(lambda: link.state == "lost")
    rig.turn_until(lambda: rig.lost)


def test_a_peer_that_takes_nothing_more_is_cut_without_blocking(rig: Rig) -> None:
    _, other_link = registered(rig)
    peer, proven = rig.admit()
    deaf = rig.peers_context.socket(zmq.DEALER)
    try:
        deaf.rcvhwm = 1
        deaf.curve_serverkey = proven.manager_key
        deaf.curve_publickey = proven.public_key
        deaf.curve_secretkey = proven.secret_key
        deaf.connect(proven.endpoints["task"])
        deaf.send(codec.encode_batch(ToManagerBatch(proven.token_tag, 1), [REGISTER]))
        rig.turn_until(lambda: rig.heard)
        for _ in range(5000):
            rig.wire.send(peer, Cancel([bytes(36)] * 1000))
            rig.turn()
        rig.turn_until(lambda: rig.lost == [peer])
        assert other_link.state == "up"
    finally:
        deaf.close(linger=0)


def test_cutting_one_peer_leaves_the_others(rig: Rig) -> None:
    peer, link = registered(rig)
    other, other_link = registered(rig)
    rig.wire.cut(peer)
    rig.turn_until(lambda: link.state == "lost")
    rig.wire.send(other, Leave("still here"))
    assert rig.receive(other_link) == [Leave("still here")]


def test_one_topic_is_announced_and_others_cannot_be_subscribed(rig: Rig) -> None:
    _, proven = rig.admit()
    link = AnnounceLink(rig.peers_context, proven.endpoints["announce"], proven)
    rig.links.append(link)
    link.socket.setsockopt(zmq.SUBSCRIBE, b"")
    got: list[Any] = []

    def has_heard() -> bool:
        rig.wire.announce([ManagerHeartbeat(1)])
        rig.wire.doors["announce"].socket.send_multipart([b"other", b"x"])
        for _, messages in link.receive():
            got.extend(messages)
        return len(got) > 3

    rig.turn_until(has_heard)
    assert set(got) == {ManagerHeartbeat(1)}


def test_a_message_that_no_frame_can_hold_does_not_take_the_others_with_it(rig: Rig) -> None:
    peer, link = registered(rig)
    rig.wire.send(peer, Cancel([]))
    rig.wire.send(peer, Cancel([bytes(36)] * 40_000))
    rig.wire.send(peer, Leave("x"))
    assert rig.receive(link, 2) == [Cancel([]), Leave("x")]


def listening(rig: Rig, proven: Proven) -> AnnounceLink:
    """Listen on announce until the manager is heard."""
    link = AnnounceLink(rig.peers_context, proven.endpoints["announce"], proven)
    rig.links.append(link)

    def has_heard() -> bool:
        rig.wire.announce([ManagerHeartbeat(1)])
        return bool(link.receive())

    rig.turn_until(has_heard)
    return link


def test_a_session_that_ends_takes_its_announce_link_with_it(rig: Rig) -> None:
    staying, other = rig.admit()
    steady = listening(rig, other)
    assert staying.announce is not None
    peer, proven = rig.admit()
    task = rig.connect("task", proven)
    task.send([REGISTER])
    announce = listening(rig, proven)
    task.close()
    rig.links.remove(task)
    rig.turn_until(lambda: rig.lost == [peer])
    rig.turn_until(lambda: announce.state == "lost")
    assert len(rig.wire.doors["announce"].open) == 1
    assert steady.state == "up"


def test_who_begins_to_listen_after_the_end_of_its_session_is_cut(rig: Rig) -> None:
    _, proven = rig.admit()
    link = AnnounceLink(rig.peers_context, proven.endpoints["announce"], proven)
    rig.links.append(link)
    rig.turn_until(lambda: rig.wire.doors["announce"].open)
    for _ in range(2000):
        link.read_monitor()
        if link.state == "up":
            break
        rig.wire.zap.answer_all()
    rig.wire.expire(PROOF_UNUSED_S)
    assert not rig.wire.peers
    rig.turn_until(lambda: link.state == "lost")


def test_connections_that_no_session_uses_are_cut(rig: Rig) -> None:
    used, link = registered(rig)
    _, proven = rig.admit("owner")
    silent = [rig.connect(door, proven) for door in ("task", "client", "result")]
    mute = rig.peers_context.socket(zmq.SUB)
    mute.curve_serverkey = proven.manager_key
    mute.curve_publickey = proven.public_key
    mute.curve_secretkey = proven.secret_key
    mute.reconnect_ivl = -1
    mute.connect(proven.endpoints["announce"])
    rig.turn_until(lambda: rig.wire.doors["announce"].open)
    rig.now_s = LINK_UNUSED_S
    rig.turn()
    rig.wire.expire(rig.now_s)
    rig.turn_until(lambda: all(it.state == "lost" for it in silent))
    rig.turn_until(lambda: not rig.wire.doors["announce"].open)
    mute.close(linger=0)
    rig.wire.send(used, Leave("still here"))
    assert rig.receive(link) == [Leave("still here")]


def test_a_door_that_is_never_empty_delays_the_news_of_a_loss_by_so_much(rig: Rig) -> None:
    peer, link = registered(rig)
    _, busy = registered(rig)
    link.close()
    rig.links.remove(link)
    wire = rig.wire

    def turn_full() -> list[Peer]:
        """A turn in which each door has more than it may take."""
        for _ in range(BATCHES_PER_TURN * 4):
            busy.send([WorkerHeartbeat()])
        wait_for_input(wire)
        wire.read_monitor("task", rig.now_s)
        rig.heard += wire.hear("task", rig.now_s)
        return wire.take_lost()

    while not wire.is_anyone_ending:
        assert turn_full() == []
    assert turn_full() == []
    rig.now_s = LAST_WORDS_MAX_S / 2
    assert turn_full() == []
    rig.now_s = LAST_WORDS_MAX_S + 1
    assert turn_full() == [peer]
    assert wire.doors["task"].socket.poll(0)


def wait_for_input(wire: Wire) -> None:
    """Let the I/O thread bring more than one turn takes."""
    assert wire.doors["task"].socket.poll(5000)
