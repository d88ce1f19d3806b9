"""The manager's doors under strangers, nonsense and abuse: real sockets, a real manager."""

import os
import socket
import time

import msgspec
import pytest
import zmq
from support.door_peer import DoorPeer
from support.processes import Manager, Site, wait_until
from zmq.utils import z85

from wqueue.protocol.codec import encode_batch, encode_spec
from wqueue.protocol.credentials import read_credential
from wqueue.protocol.errors import NotAuthorized
from wqueue.protocol.limits import CONTROL_MESSAGE_MAX_BYTES
from wqueue.protocol.link import dial
from wqueue.protocol.messages import (
    Answer,
    Data,
    GetResults,
    JobSpec,
    Query,
    Refusal,
    Submit,
    TaskTemplate,
    ToManagerBatch,
    WorkerHeartbeat,
)

LONG_SPEC = encode_spec(JobSpec(TaskTemplate([b"echo", b"x" * 400])))

DOORS = ("hello", "task", "result", "client", "announce")


def ports_of(manager: Manager) -> dict[str, int]:
    content = (manager.state_dir / "ports").read_bytes()
    ports: dict[str, int] = msgspec.json.decode(content)["ports"]
    return ports


def is_served(peer: DoorPeer, request: int) -> bool:
    """Ask something and see that the answer comes."""
    peer.send("client", Query(request, "queue"))
    answer: Answer = peer.wait_for(Answer, 5.0)
    return answer.request == request and answer.queue is not None


def is_closed_by_manager(sock: socket.socket) -> bool:
    sock.settimeout(20.0)
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


# --- strangers --------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
def test_random_bytes_are_one_line_in_the_log_and_others_are_served(
    manager: Manager, door: str
) -> None:
    with DoorPeer(manager) as peer:
        peer.open()
        for request in range(1, 4):
            with socket.create_connection(("127.0.0.1", ports_of(manager)[door])) as stranger:
                stranger.sendall(bytes(range(0x20, 0x80)) * 40)
                assert is_served(peer, request)
                assert is_closed_by_manager(stranger)
        wait_until(lambda: manager.count_lines(f" {door}: "), what="a line in the log")
        assert is_served(peer, 9)
    # One line for their address, and one for those that were gone before it could be seen.
    assert manager.count_lines(f" {door}: ") in (1, 2)


@pytest.mark.slow
def test_a_stranger_that_says_nothing_is_closed(manager: Manager) -> None:
    with socket.create_connection(("127.0.0.1", manager.port)) as stranger:
        before = time.monotonic()
        assert is_closed_by_manager(stranger)
        assert time.monotonic() - before < 15.0
    wait_until(lambda: manager.count_lines("said no hello in time"), what="a line in the log")


def test_a_key_that_was_not_proven_opens_no_door(manager: Manager) -> None:
    with DoorPeer(manager) as peer:
        public, secret = zmq.curve_keypair()
        peer.proven = msgspec.structs.replace(
            peer.proven,
            public_key=bytes(z85.decode(public)),
            secret_key=bytes(z85.decode(secret)),
        )
        link = peer.connect("task", is_awaited=False)
        peer.wait_until_lost("task")
        assert "does not know" in link.reason
    wait_until(lambda: manager.count_lines("task: 127.0.0.1"), what="a line in the log")


def test_a_wrong_password_is_refused_in_one_line_and_others_are_served(manager: Manager) -> None:
    right = read_credential(manager.state_dir / "password")
    wrong = msgspec.structs.replace(right, secret=os.urandom(32))
    with pytest.raises(NotAuthorized):
        dial("127.0.0.1", manager.port, wrong, role="owner")
    assert dial("127.0.0.1", manager.port, right, role="owner").server_id == right.server_id
    assert manager.count_lines("wrong_proof") == 1


def test_hello_drops_the_oldest_of_too_many_from_one_address(manager: Manager) -> None:
    crowd = [socket.create_connection(("127.0.0.1", manager.port)) for _ in range(80)]
    try:
        assert is_closed_by_manager(crowd[0])
        right = read_credential(manager.state_dir / "password")
        assert dial("127.0.0.1", manager.port, right, role="owner").epoch == 1
    finally:
        for sock in crowd:
            sock.close()


# --- proven peers that misbehave -----------------------------------------------------------------


def test_nonsense_is_answered_and_a_peer_that_goes_on_is_dropped(manager: Manager) -> None:
    with DoorPeer(manager) as peer, DoorPeer(manager) as other:
        other.open()
        peer.open()
        for _ in range(3):
            peer.send_frames("client", [b"\x93\x01\x02"])
            refusal = peer.wait_for(Refusal)
            assert (refusal.code, refusal.is_fatal) == ("bad_message", False)
        peer.send_frames("client", [os.urandom(100)])
        assert peer.wait_for(Refusal).is_fatal
        peer.wait_until_lost("client")
        assert is_served(other, 1)
    assert manager.count_lines("malformed message") == 1


def test_after_one_malformed_batch_the_peer_is_understood_again(manager: Manager) -> None:
    with DoorPeer(manager) as peer:
        peer.open()
        peer.send_frames("client", [b"\x93\x01\x02"])
        assert not peer.wait_for(Refusal).is_fatal
        header = ToManagerBatch(peer.proven.token_tag, 3)
        peer.send_frames("client", [encode_batch(header, [Query(1, "queue")])])
        assert peer.wait_for(Answer).queue is not None


@pytest.mark.parametrize(
    ("tag", "sequence"), [(b"12345678", 2), (None, 3), (None, 1)], ids=["token", "gap", "repeat"]
)
def test_a_wrong_header_is_a_bad_message(
    manager: Manager, tag: bytes | None, sequence: int
) -> None:
    with DoorPeer(manager) as peer:
        peer.open()
        header = ToManagerBatch(tag or peer.proven.token_tag, sequence)
        peer.send_frames("client", [encode_batch(header, [Query(1, "queue")])])
        assert peer.wait_for(Refusal).code == "bad_message"


def test_frames_beyond_the_contract_are_a_bad_message(manager: Manager) -> None:
    with DoorPeer(manager) as peer:
        peer.open()
        tag = peer.proven.token_tag
        query = encode_batch(ToManagerBatch(tag, 2), [Query(1, "queue")])
        peer.send_frames("client", [query, b"more"])
        assert peer.wait_for(Refusal).code == "bad_message"
        data = encode_batch(ToManagerBatch(tag, 3), [Data(1, 0)])
        peer.send_frames("client", [data, b"content", b"and more"])
        assert peer.wait_for(Refusal).code == "bad_message"
        data = encode_batch(ToManagerBatch(tag, 4), [Data(1, 0)])
        peer.send_frames("client", [data])
        assert peer.wait_for(Refusal).code == "bad_message"


@pytest.mark.parametrize("door", ["task", "client"])
def test_an_oversize_frame_cuts_its_sender_and_nobody_else(manager: Manager, door: str) -> None:
    with DoorPeer(manager) as peer, DoorPeer(manager) as other:
        other.open()
        if door == "client":
            peer.open()
        else:
            peer.register()
        peer.send_frames(door, [bytes(CONTROL_MESSAGE_MAX_BYTES + 1)])
        peer.wait_until_lost(door)
        assert is_served(other, 1)


def test_messages_before_the_first_one_and_the_first_one_twice_are_refused(
    manager: Manager,
) -> None:
    with DoorPeer(manager) as peer:
        peer.connect("task")
        peer.send("task", WorkerHeartbeat())
        assert peer.wait_for(Refusal).text == "WorkerHeartbeat came before Register"
    with DoorPeer(manager) as peer:
        peer.open()
        peer.links["client"].close()


def test_a_second_link_on_one_door_is_refused(manager: Manager) -> None:
    with DoorPeer(manager) as peer:
        peer.open()
        first = peer.links["client"]
        second = peer.connect("client", is_awaited=False)
        peer.wait_until_lost("client")
        assert second.state == "lost"
        peer.links["client"] = first
        assert is_served(peer, 1)


def test_a_peer_that_never_reads_holds_up_nobody(manager: Manager) -> None:
    with DoorPeer(manager) as deaf, DoorPeer(manager) as other:
        deaf.open()
        other.open()
        for request in range(1, 5000):
            deaf.send("client", Query(request, "workers"))
            if request % 500 == 0:
                assert is_served(other, request)


def test_one_client_with_hundreds_of_questions_holds_up_nobody(manager: Manager) -> None:
    with DoorPeer(manager) as hog, DoorPeer(manager) as other:
        hog.open()
        other.open()
        jobs = [Submit(i, os.urandom(16), LONG_SPEC) for i in range(1, 401)]
        hog.send("client", *jobs)
        hog.wait(lambda: len(hog.heard) == len(jobs), "the jobs")
        hog.heard.clear()
        hog.send("client", *(Query(i, "jobs") for i in range(1, 401)))
        hog.wait(lambda: hog.heard, "the first listing")
        assert is_served(other, 1)
        hog._read()
        assert len(hog.heard) < 350
        hog.wait(lambda: len(hog.heard) == 400, "all listings", 60.0)
        assert [answer.request for answer in hog.heard] == list(range(1, 401))


def test_a_client_that_asks_for_more_than_may_wait_is_told_so_and_dropped(
    manager: Manager,
) -> None:
    with DoorPeer(manager, "observer", "secrets/observer") as hog, DoorPeer(manager) as other:
        hog.open()
        other.open()
        queries = [Query(i, "workers") for i in range(1, 4097)]
        for _ in range(8):
            hog.send("client", *queries)
        refusal = hog.wait_for(Refusal)
        assert (refusal.code, refusal.is_fatal) == ("too_many", True)
        assert is_served(other, 1)
        hog.wait_until_lost("client")
    assert manager.count_lines("is dropped: more than 8192 requests wait") == 1


# --- roles ---------------------------------------------------------------------------------


def test_a_worker_cannot_open_the_client_door(manager: Manager) -> None:
    with DoorPeer(manager, "worker", "secrets/worker") as peer:
        peer.register()
        link = peer.connect("client", is_awaited=False)
        peer.wait_until_lost("client")
        assert link.state == "lost"
        assert peer.links["task"].state == "up"


def test_a_client_cannot_open_the_task_door(manager: Manager) -> None:
    with DoorPeer(manager, "client", "secrets/client") as peer:
        peer.open()
        peer.connect("task", is_awaited=False)
        peer.wait_until_lost("task")
        assert is_served(peer, 1)


def test_an_observer_may_look_and_not_touch(manager: Manager) -> None:
    with DoorPeer(manager, "observer", "secrets/observer") as peer:
        peer.open()
        assert is_served(peer, 1)
        spec = encode_spec(JobSpec(TaskTemplate([b"true"])))
        peer.send("client", Submit(7, os.urandom(16), spec))
        refusal = peer.wait_for(Refusal)
        assert (refusal.code, refusal.request) == ("not_authorized", 7)
        peer.send("client", GetResults(8, 1))
        refusal = peer.wait_for(Refusal)
        assert (refusal.code, refusal.request) == ("no_such_task", 8)


def test_a_narrow_secret_proves_no_wider_role(manager: Manager) -> None:
    worker = read_credential(manager.state_dir / "secrets" / "worker")
    forged = msgspec.structs.replace(worker, role="owner")
    with pytest.raises(NotAuthorized):
        dial("127.0.0.1", manager.port, forged, role="client")


# --- sessions ------------------------------------------------------------------------------


def test_a_worker_whose_link_breaks_is_away_at_once(manager: Manager) -> None:
    with DoorPeer(manager) as watcher:
        watcher.open()
        with DoorPeer(manager, "worker", "secrets/worker") as peer:
            peer.register()
            watcher.send("client", Query(1, "workers"))
            assert watcher.wait_for(Answer).workers[0].state == "live"
        before = time.monotonic()

        def is_away() -> bool:
            watcher.send("client", Query(2, "workers"))
            answer: Answer = watcher.wait_for(Answer)
            return answer.workers[0].state == "away"

        wait_until(is_away, what="the worker being away")
        assert time.monotonic() - before < 10.0


def test_links_come_and_go_without_mixing_up_their_owners(manager: Manager) -> None:
    """Descriptors are reused at once: the end of one link must not be taken for another's."""
    with DoorPeer(manager) as steady:
        steady.open()
        for request in range(30):
            with DoorPeer(manager) as brief:
                brief.open()
                assert is_served(brief, request)
            assert is_served(steady, request)


def test_two_managers_do_not_disturb_each_other(site: Site) -> None:
    one, two = site.start_manager(name="one"), site.start_manager(name="two")
    with DoorPeer(one) as first, DoorPeer(two) as second:
        first.open()
        second.open()
        assert is_served(first, 1)
        assert is_served(second, 1)
    with pytest.raises(NotAuthorized):
        dial("127.0.0.1", two.port, read_credential(one.state_dir / "password"), role="owner")
