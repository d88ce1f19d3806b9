"""The proof, both sides in one process: who gets in, who does not, and what each is told."""

import contextlib
import hashlib
import hmac
import json
import struct
from typing import Any

import msgspec
import nacl.public
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import proof_vectors
from support.proof_vectors import ENDPOINTS, PASSWORD, facts, pattern

from wqueue.protocol.credentials import Credential, make_credential
from wqueue.protocol.errors import (
    NotAuthorized,
    Refused,
    RemoteProtocolError,
    VersionMismatch,
    WqueueError,
)
from wqueue.protocol.handshake import ManagerFacts, ManagerHello, PeerHello
from wqueue.protocol.hello_messages import H1, H2, H3, H4, FrameBuffer, encode, framed
from wqueue.protocol.hello_messages import Refused as Refusal
from wqueue.protocol.keys import ROLES
from wqueue.protocol.limits import HELLO_MESSAGE_MAX_BYTES, HELLO_TIMEOUT_S
from wqueue.protocol.proof import agree_version

KID = pattern(0xE0, 8)
MANAGER = facts()


def credential(role: str = "owner", kid: bytes = KID) -> Credential:
    return make_credential(MANAGER.root_key, role, kid, MANAGER.public_key, MANAGER.server_id)


def peer(held: Credential, role: str = "worker", secret: bytes = pattern(0x60, 32)) -> PeerHello:
    key = nacl.public.PrivateKey(secret)
    return PeerHello(
        held,
        role,
        public_key=bytes(key.public_key),
        secret_key=bytes(key),
        nonce=pattern(0x80, 32),
        box_nonce=pattern(1, 16),
    )


def manager(known: ManagerFacts | None = None, used: tuple[bytes, ...] = ()) -> ManagerHello:
    return ManagerHello(
        known or facts(),
        ENDPOINTS,
        nonce=pattern(0x20, 32),
        box_nonce=pattern(2, 16),
        opened_s=100.0,
        used_keys=used,
    )


def play(one: PeerHello, other: ManagerHello, root_key: bytes | None = None) -> None:
    """Let both sides talk until neither has more to say."""
    answer = one.receive(other.receive(one.opening, 100.0))
    if one.state == "needs_key":
        assert root_key is not None
        answer = one.give_key(root_key)
    one.receive(other.receive(answer, 101.0))


def refusal(data: bytes) -> Refusal:
    message: Refusal = msgspec.msgpack.decode(data[4:], type=Refusal)
    return message


def hello(**changes: Any) -> H1:
    made = H1((1, 0), (1, 0), ["raw1"], "worker", KID, pattern(0x60, 32), pattern(0x80, 32))
    return msgspec.structs.replace(made, **changes)


# --- who gets in ----------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_a_credential_proves_its_role(role: str) -> None:
    one, other = peer(credential(role), role), manager()
    play(one, other)
    assert one.state == other.state == "proven"
    assert one.proven is not None
    assert other.peer is not None
    assert one.proven.token == other.peer.token
    assert one.proven.token_tag == other.peer.token_tag == one.proven.token[:8]
    assert (other.peer.role, other.peer.credential_role, other.peer.kid) == (role, role, KID)
    assert other.peer.public_key == one.proven.public_key
    assert one.proven.endpoints == ENDPOINTS
    assert (one.proven.server_id, one.proven.epoch) == (MANAGER.server_id, MANAGER.epoch)
    assert one.proven.manager_key == MANAGER.public_key


@pytest.mark.parametrize("role", ROLES)
def test_an_owners_credential_proves_any_role(role: str) -> None:
    one, other = peer(credential("owner"), role), manager()
    play(one, other)
    assert other.peer is not None
    assert (other.peer.role, other.peer.credential_role) == (role, "owner")


def test_a_human_password_proves_any_role() -> None:
    one, other = peer(Credential(password=PASSWORD), "client"), manager()
    play(one, other, MANAGER.password_key)
    assert one.state == other.state == "proven"
    assert one.salt == MANAGER.salt
    assert other.peer is not None
    assert (other.peer.role, other.peer.kid) == ("client", b"")


def test_the_proof_may_arrive_byte_by_byte() -> None:
    one, other = peer(credential()), manager()

    def trickle(receive: Any, data: bytes) -> bytes:
        return b"".join(receive(data[at : at + 1]) for at in range(len(data)))

    def to_manager(data: bytes) -> bytes:
        return other.receive(data, 100.0)

    trickle(
        one.receive, trickle(to_manager, trickle(one.receive, trickle(to_manager, one.opening)))
    )
    assert one.state == other.state == "proven"


# --- test vectors ----------------------------------------------------

VECTORS = json.loads(proof_vectors.FILE.read_text())


def test_the_vectors_are_what_the_code_does() -> None:
    assert proof_vectors.render() == proof_vectors.FILE.read_text()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_vectors_follow_from_the_text_alone(vector: dict[str, str]) -> None:
    def value(name: str) -> bytes:
        return bytes.fromhex(vector[name])

    def enc(*items: bytes) -> bytes:
        return b"".join(struct.pack(">I", len(item)) + item for item in items)

    def mac(key: bytes, text: bytes) -> bytes:
        return hmac.new(key, text, hashlib.sha256).digest()

    role = vector["role"].encode()
    h1, h2 = msgspec.msgpack.decode(value("h1")), msgspec.msgpack.decode(value("h2"))
    assert value("key") == mac(
        value("root_key"), enc(b"wqueue key v1", vector["role_of_key"].encode(), value("kid"))
    )
    transcript = enc(
        b"wqueue proof v1",
        value("h1"),
        value("h2"),
        role,
        value("kid"),
        h1[6],
        h2[7],
        h1[7],
        h2[10],
        struct.pack(">HH", 1, 0),
        vector["suite"].encode(),
    )
    assert value("transcript") == transcript
    th = hashlib.sha256(transcript).digest()
    prk = mac(th, value("key"))
    proof = mac(prk, enc(b"client proof", role, th))
    assert (value("transcript_hash"), value("prk"), value("client_proof")) == (th, prk, proof)
    assert value("manager_proof") == mac(prk, enc(b"manager proof", role, th, proof))
    assert value("token") == mac(prk, enc(b"session", th))[:16]
    box = nacl.public.Box(
        nacl.public.PrivateKey(value("manager_secret_key")),
        nacl.public.PublicKey(value("peer_public_key")),
    )
    h3, h4 = msgspec.msgpack.decode(value("h3")), msgspec.msgpack.decode(value("h4"))
    assert (h3[0], h4[0]) == ("WQH3", "WQH4")
    assert h3[1][:8] == h4[1][:8] == b"WQH1prf-"
    assert box.decrypt(h3[1]) == proof
    assert box.decrypt(h4[1]) == value("manager_proof")


# --- whom the manager refuses ----------------------------------------------------


def ask(message: H1, known: ManagerFacts | None = None, used: tuple[bytes, ...] = ()) -> str:
    other = manager(known, used)
    answer = refusal(other.receive(framed(encode(message)), 100.0))
    assert other.state == "refused"
    assert (other.code, other.text) == (answer.code, answer.text)
    assert other.peer is None
    assert other.receive(b"more", 100.0) == b""
    return answer.code


def test_an_unknown_version_is_refused() -> None:
    assert ask(hello(version_min=(2, 0), version_max=(2, 9))) == "version"
    assert ask(hello(version_min=(0, 1), version_max=(0, 9))) == "version"


def test_an_unknown_role_is_refused() -> None:
    assert ask(hello(role="root")) == "bad_role"


def test_a_full_manager_refuses_by_role() -> None:
    known = facts()
    known.full = {"worker": "no room for more than 3 workers"}
    assert ask(hello(), known) == "full"
    assert manager(known).receive(framed(encode(hello(role="client"))), 100.0)[5:10] == b"\xa4WQH2"


def test_a_revoked_credential_is_refused() -> None:
    known = facts()
    known.revoked = frozenset([KID])
    assert ask(hello(), known) == "revoked"


def test_a_curve_key_is_taken_once() -> None:
    assert ask(hello(), used=(pattern(0x60, 32),)) == "bad_message"
    assert ask(hello(public_key=MANAGER.public_key)) == "bad_message"


def test_the_credential_decides_the_suite() -> None:
    known = facts()
    known.password_key = None
    assert ask(hello(suites=["pake1"])) == "suite"
    assert ask(hello(suites=["pw1"])) == "suite"
    assert ask(hello(kid=b"", suites=["raw1"])) == "suite"
    assert ask(hello(kid=b"1234567", suites=["raw1"])) == "suite"
    assert ask(hello(kid=b"", suites=["pw1"]), known) == "suite"


@pytest.mark.parametrize(
    "changes",
    [
        {"kid": bytes(9)},
        {"public_key": bytes(31)},
        {"nonce": bytes(33)},
        {"role": "x" * 33},
        {"suites": ["raw1"] * 9},
        {"version_max": (1, 65536)},
        {"version_max": (1,)},
    ],
)
def test_a_hello_with_a_field_of_another_size_is_malformed(changes: dict[str, Any]) -> None:
    assert ask(hello(**changes)) == "bad_message"


def test_other_messages_are_no_hello() -> None:
    other = manager()
    assert refusal(other.receive(framed(encode(H3(b""))), 100.0)).code == "bad_message"


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", bytes(4), (HELLO_MESSAGE_MAX_BYTES + 1).to_bytes(4, "big")]
)
def test_what_is_not_even_framed_gets_no_answer(data: bytes) -> None:
    other = manager()
    assert other.receive(data, 100.0) == b""
    assert (other.state, other.code) == ("refused", "bad_message")


def test_two_messages_at_once_are_refused() -> None:
    other = manager()
    assert other.receive(framed(encode(hello())) * 2, 100.0) == b""
    assert other.state == "refused"


def test_a_slow_peer_is_dropped() -> None:
    other = manager()
    other.receive(framed(encode(hello())), 100.0)
    assert other.deadline_s == 100.0 + HELLO_TIMEOUT_S
    assert other.receive(b"\0", 100.1 + HELLO_TIMEOUT_S) == b""
    assert (other.state, other.code) == ("refused", "late")


def third(message: bytes, known: ManagerFacts | None = None) -> str:
    one, other = peer(credential()), manager(known)
    other.receive(one.opening, 100.0)
    answer = refusal(other.receive(framed(message), 100.0))
    assert other.state == "refused"
    return answer.code


@pytest.mark.parametrize("box", [b"", bytes(72), bytes(23), bytes(128)])
def test_a_box_that_does_not_open_is_a_wrong_proof(box: bytes) -> None:
    assert third(encode(H3(box))) == "wrong_proof"


def test_a_box_that_is_too_long_is_malformed() -> None:
    assert third(encode(H3(bytes(129)))) == "bad_message"
    assert third(b"\xc1") == "bad_message"


def test_a_useless_curve_key_is_a_wrong_proof() -> None:
    other = manager()
    other.receive(framed(encode(hello(public_key=bytes(32)))), 100.0)
    answer = refusal(other.receive(framed(encode(H3(bytes(72)))), 100.0))
    assert answer.code == "wrong_proof"


def expect_wrong_proof(held: Credential, role: str, root_key: bytes | None = None) -> None:
    one, other = peer(held, role), manager()
    with pytest.raises(NotAuthorized, match="the proof is wrong"):
        play(one, other, root_key)
    assert (other.state, other.code, other.peer) == ("refused", "wrong_proof", None)
    assert one.proven is None


def test_another_secret_is_refused() -> None:
    expect_wrong_proof(msgspec.structs.replace(credential(), secret=bytes(32)), "worker")


def test_another_kid_is_refused() -> None:
    expect_wrong_proof(msgspec.structs.replace(credential(), kid=bytes(8)), "worker")


def test_a_workers_secret_proves_no_other_role() -> None:
    worker = credential("worker")
    for role in ("owner", "client", "observer"):
        expect_wrong_proof(msgspec.structs.replace(worker, role=role), role)


def test_another_password_is_refused() -> None:
    expect_wrong_proof(Credential(password="another password"), "worker", bytes(32))


# --- whom the peer refuses ----------------------------------------------------


def test_a_credential_is_used_for_its_role_only() -> None:
    with pytest.raises(NotAuthorized, match="for a worker; it cannot act as client"):
        peer(credential("worker"), "client")


def answer_of(known: ManagerFacts, **changes: Any) -> bytes:
    one, other = peer(credential()), manager(known)
    real = msgspec.msgpack.decode(other.receive(one.opening, 100.0)[4:], type=H2)
    return framed(encode(msgspec.structs.replace(real, **changes)))


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"public_key": bytes(32)}, NotAuthorized, "its key differs"),
        ({"server_id": bytes(16)}, NotAuthorized, "another server id"),
        ({"version_min": (2, 0), "version_max": (2, 0)}, VersionMismatch, "2.0 to 2.0"),
        ({"suite": "pw1"}, RemoteProtocolError, "not offered"),
        ({"endpoints": {"task": "ipc:///tmp/x"}}, RemoteProtocolError, "not a tcp address"),
        ({"salt": bytes(15)}, RemoteProtocolError, "malformed"),
        ({"nonce": bytes(31)}, RemoteProtocolError, "malformed"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(
    changes: dict[str, Any], error: type[WqueueError], text: str
) -> None:
    with pytest.raises(error, match=text) as caught:
        peer(credential()).receive(answer_of(facts(), **changes))
    assert "\n" not in str(caught.value)


def test_a_useless_manager_key_is_refused() -> None:
    unpinned = msgspec.structs.replace(credential(), manager_key=b"")
    with pytest.raises(RemoteProtocolError, match="cannot be used"):
        peer(unpinned).receive(answer_of(facts(), public_key=bytes(32)))


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("version", VersionMismatch),
        ("suite", NotAuthorized),
        ("full", Refused),
        ("wrong_proof", NotAuthorized),
        ("bad_role", NotAuthorized),
        ("bad_message", RemoteProtocolError),
        ("revoked", NotAuthorized),
        ("from the future", Refused),
    ],
)
def test_each_refusal_is_an_error_of_its_kind(code: str, error: type[WqueueError]) -> None:
    refused = framed(encode(Refusal(code, "no,\n\x1b[31m sorry" + "x" * 1000)))
    for receive in (peer(credential()).receive, proving().receive):
        with pytest.raises(error, match=r"the manager refused: no,  \[31m sorry") as caught:
            receive(refused)
        assert len(str(caught.value)) < 400


def proving() -> PeerHello:
    one, other = peer(credential()), manager()
    one.receive(other.receive(one.opening, 100.0))
    assert one.state == "proving"
    return one


@pytest.mark.parametrize("box", [b"", bytes(72), bytes(24)])
def test_a_manager_that_cannot_prove_itself_is_refused(box: bytes) -> None:
    with pytest.raises(NotAuthorized, match="could not prove"):
        proving().receive(framed(encode(H4(box))))


def test_a_proof_sent_back_proves_nothing() -> None:
    one, other = peer(credential()), manager()
    proof = one.receive(other.receive(one.opening, 100.0))
    box = msgspec.msgpack.decode(proof[4:], type=H3).box
    with pytest.raises(NotAuthorized, match="could not prove"):
        one.receive(framed(encode(H4(box))))


def test_a_proof_to_one_manager_is_of_no_use_at_another_connection() -> None:
    one, other = peer(credential()), manager()
    proof = one.receive(other.receive(one.opening, 100.0))
    second = ManagerHello(
        facts(), ENDPOINTS, nonce=pattern(0x21, 32), box_nonce=pattern(2, 16), opened_s=100.0
    )
    second.receive(one.opening, 100.0)
    assert refusal(second.receive(proof, 100.0)).code == "wrong_proof"


def test_changed_bytes_of_the_answer_spoil_the_proof() -> None:
    one, other = peer(credential()), manager()
    real = msgspec.msgpack.decode(other.receive(one.opening, 100.0)[4:], type=H2)
    moved = msgspec.structs.replace(real, endpoints={"task": "tcp://10.6.6.6:1"})
    proof = one.receive(framed(encode(moved)))
    assert refusal(other.receive(proof, 100.0)).code == "wrong_proof"


def test_a_manager_must_not_speak_out_of_turn() -> None:
    one = peer(Credential(password=PASSWORD))
    one.receive(manager().receive(one.opening, 100.0))
    with pytest.raises(RemoteProtocolError, match="not its turn"):
        one.receive(framed(encode(H4(b""))))
    with pytest.raises(RemoteProtocolError, match="more was sent"):
        peer(credential()).receive(answer_of(facts()) + b"x")


# --- versions ----------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [
        (((1, 0), (1, 0)), ((1, 0), (1, 0)), (1, 0)),
        (((1, 0), (1, 4)), ((1, 0), (1, 2)), (1, 2)),
        (((1, 0), (2, 1)), ((1, 0), (1, 7)), (1, 7)),
        (((2, 0), (3, 1)), ((1, 0), (1, 7)), None),
        (((1, 3), (1, 4)), ((1, 0), (1, 2)), None),
    ],
)
def test_the_smaller_newest_version_is_spoken(ours: Any, theirs: Any, agreed: Any) -> None:
    assert agree_version(ours, theirs) == agreed
    assert agree_version(theirs, ours) == agreed


# --- anything at all ----------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=80), max_size=4), st.booleans())
def test_the_manager_stands_any_bytes(chunks: list[bytes], is_proving: bool) -> None:
    other = manager()
    if is_proving:
        other.receive(peer(credential()).opening, 100.0)
    for chunk in chunks:
        other.receive(chunk, 100.0)
        if len(chunk) < 2**16:
            other.receive(framed(chunk) if chunk else b"", 100.0)
    assert other.peer is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=120), st.booleans())
def test_the_peer_stands_any_bytes(data: bytes, is_proving: bool) -> None:
    for bytes_ in (data, framed(data or b"x")):
        one = proving() if is_proving else peer(credential())
        with contextlib.suppress(WqueueError):
            one.receive(bytes_)
        assert one.proven is None


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_damaged_message_opens_nothing(data: st.DataObject) -> None:
    one, other = peer(credential()), manager()
    which = data.draw(st.integers(1, 4))

    def pass_on(number: int, message: bytes) -> bytes:
        if number != which:
            return message
        at = data.draw(st.integers(4, len(message) - 1))
        changed = bytearray(message)
        changed[at] ^= data.draw(st.integers(1, 255))
        return bytes(changed)

    with contextlib.suppress(WqueueError):
        answer = one.receive(pass_on(2, other.receive(pass_on(1, one.opening), 100.0)))
        one.receive(pass_on(4, other.receive(pass_on(3, answer), 100.0)))
    assert one.proven is None
    assert which == 4 or other.peer is None


def test_nothing_secret_is_shown() -> None:
    one, other = peer(credential()), manager()
    play(one, other)
    for shown in (repr(one.proven), repr(other.peer), repr(facts()), repr(credential())):
        assert "secret" not in shown
        assert "token" not in shown
        assert len(shown) < 120
    assert PASSWORD not in repr(Credential(password=PASSWORD))


def test_a_frame_buffer_gives_one_message_at_a_time() -> None:
    frames = FrameBuffer()
    assert frames.feed(b"\0\0\0") is None
    assert frames.feed(b"\2a") is None
    assert frames.feed(b"b") == b"ab"
    assert frames.feed(framed(b"c")) == b"c"
