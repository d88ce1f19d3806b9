"""What a peer may say, and when."""

from wqueue.manager.peers import Link, Peer
from wqueue.protocol.messages import Attach, Open, Register
from wqueue.protocol.resources import Resources

OPEN = Open(bytes(32), 1)
REGISTER = Register(bytes(32), 1, Resources(), "here", 1)


def peer(role: str, kind: str = "") -> Peer:
    made = Peer(1, bytes(32), role, b"owner:", bytes(8), "127.0.0.1")
    made.kind = kind
    return made


def test_an_owner_may_begin_as_a_worker_or_as_a_client() -> None:
    owner = peer("owner")
    assert not owner.why_not(Link(owner, "task", b"", 0), REGISTER)
    assert not owner.why_not(Link(owner, "client", b"", 0), OPEN)


def test_a_session_is_a_workers_or_a_clients_and_stays_it() -> None:
    worker, client = peer("owner", "worker"), peer("owner", "client")
    assert "that is a worker's" in worker.why_not(Link(worker, "client", b"", 0), OPEN)
    assert "that is a client's" in client.why_not(Link(client, "task", b"", 0), REGISTER)
    assert not worker.why_not(Link(worker, "result", b"", 0), Attach(1))
