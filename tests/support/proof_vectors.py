"""Test vectors of the proof, made from fixed keys.

They stand in tests/unit/protocol/proof_vectors.json, which the specification quotes; run as a
program it writes that file anew: PYTHONPATH=tests python tests/support/proof_vectors.py
"""

import functools
import hashlib
import json
from pathlib import Path

import nacl.public

from wqueue.protocol.credentials import Credential, make_credential
from wqueue.protocol.handshake import ManagerFacts, ManagerHello, PeerHello
from wqueue.protocol.keys import derive_key, derive_root_key, mac

FILE = Path(__file__).parent.parent / "unit" / "protocol" / "proof_vectors.json"

PASSWORD = "Smörgåsbord 42"

ENDPOINTS = {
    "task": "tcp://127.0.0.1:9124",
    "result": "tcp://127.0.0.1:9125",
    "announce": "tcp://127.0.0.1:9126",
    "client": "tcp://127.0.0.1:9127",
}


def pattern(first: int, count: int) -> bytes:
    """Give `count` bytes that count up from `first`."""
    return bytes((first + at) % 256 for at in range(count))


@functools.cache
def password_key() -> bytes:
    """Derive the key of the password once: it takes 70 ms."""
    return derive_root_key(PASSWORD, pattern(0xA0, 16))


def facts() -> ManagerFacts:
    """Make the manager of the vectors."""
    secret = nacl.public.PrivateKey(pattern(0x40, 32))
    return ManagerFacts(
        server_id=pattern(0x10, 16),
        epoch=7,
        project="default",
        public_key=bytes(secret.public_key),
        secret_key=bytes(secret),
        root_key=pattern(0xC0, 32),
        salt=pattern(0xA0, 16),
        password_key=password_key(),
    )


def credentials() -> dict[str, tuple[Credential, str, str]]:
    """Give, by the vector's name, the credential, the role it proves, and the key's role."""
    manager = facts()
    kid = pattern(0xE0, 8)

    def made(role: str) -> Credential:
        return make_credential(manager.root_key, role, kid, manager.public_key, manager.server_id)

    return {
        "a worker's credential": (made("worker"), "worker", "worker"),
        "an owner's credential as a worker": (made("owner"), "worker", "owner"),
        "a human password": (Credential(password=PASSWORD), "worker", "worker"),
    }


def hellos(credential: Credential, role: str) -> tuple[PeerHello, ManagerHello]:
    """Make both sides with fixed keys and nonces."""
    secret = nacl.public.PrivateKey(pattern(0x60, 32))
    peer = PeerHello(
        credential,
        role,
        public_key=bytes(secret.public_key),
        secret_key=bytes(secret),
        nonce=pattern(0x80, 32),
        box_nonce=pattern(0x01, 16),
    )
    manager = ManagerHello(
        facts(), ENDPOINTS, nonce=pattern(0x20, 32), box_nonce=pattern(0x02, 16), opened_s=0.0
    )
    return peer, manager


def vector(name: str) -> dict[str, str]:
    """Play one hello and write down every value of it."""
    credential, role, key_role = credentials()[name]
    manager = facts()
    peer, listener = hellos(credential, role)
    h1 = peer.opening[4:]
    h2 = listener.receive(peer.opening, 0.0)[4:]
    third = peer.receive(len(h2).to_bytes(4, "big") + h2)
    if peer.state == "needs_key":
        assert manager.password_key is not None
        third = peer.give_key(manager.password_key)
    fourth = listener.receive(third, 0.0)
    peer.receive(fourth)
    assert listener.peer is not None
    root_key = manager.password_key if credential.is_human else manager.root_key
    assert root_key is not None
    key = derive_key(root_key, key_role, credential.kid)
    transcript = _transcript(h1, h2, role, credential)
    th = hashlib.sha256(transcript).digest()
    prk = mac(th, key)
    box = nacl.public.Box(
        nacl.public.PrivateKey(manager.secret_key), nacl.public.PublicKey(listener.peer.public_key)
    )
    values = {
        "root_key": root_key,
        "kid": credential.kid,
        "key": key,
        "manager_secret_key": manager.secret_key,
        "manager_public_key": manager.public_key,
        "peer_secret_key": pattern(0x60, 32),
        "peer_public_key": listener.peer.public_key,
        "h1": h1,
        "h2": h2,
        "transcript": transcript,
        "transcript_hash": th,
        "prk": prk,
        "client_proof": bytes(box.decrypt(third[-(24 + 48) :])),
        "manager_proof": bytes(box.decrypt(fourth[-(24 + 48) :])),
        "token": listener.peer.token,
        "h3": third[4:],
        "h4": fourth[4:],
    }
    words = {"name": name, "role": role, "role_of_key": key_role, "suite": credential.suite}
    if credential.is_human:
        words |= {"password": PASSWORD, "salt": manager.salt.hex()}
    return words | {key: value.hex() for key, value in values.items()}


def _transcript(h1: bytes, h2: bytes, role: str, credential: Credential) -> bytes:
    # Written out again on purpose: the vectors must not be what the code happens to do.
    peer_key = bytes(nacl.public.PrivateKey(pattern(0x60, 32)).public_key)
    items = [
        b"wqueue proof v1",
        h1,
        h2,
        role.encode(),
        credential.kid,
        peer_key,
        facts().public_key,
        pattern(0x80, 32),
        pattern(0x20, 32),
        b"\0\1\0\0",
        credential.suite.encode(),
    ]
    return b"".join(len(item).to_bytes(4, "big") + item for item in items)


def render() -> str:
    """Write all vectors as the file holds them."""
    return json.dumps([vector(name) for name in credentials()], indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(render())
