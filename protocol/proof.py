"""What both sides of the proof share: its values, its key schedule, and how versions are chosen."""

import hashlib
import struct

from msgspec import Struct

from wqueue.protocol.hello_messages import H1, H2
from wqueue.protocol.keys import enc, mac

VERSION_MIN = (1, 0)
"""Oldest version of the protocol this tree speaks."""

VERSION_MAX = (1, 0)
"""Newest version of the protocol this tree speaks."""

BOX_NONCE_PREFIX = b"WQH1prf-"
"""Start of the 24-byte nonces of H3 and H4: no CurveZMQ nonce begins so (wire 2.3)."""

BOX_NONCE_RANDOM_BYTES = 16
"""The rest of such a nonce, random."""

NONCE_BYTES = 32
"""Length of the nonces in H1 and H2."""

TOKEN_BYTES = 16
"""Length of a session token."""

TOKEN_TAG_BYTES = 8
"""How much of the token each batch of a peer begins with."""


class Proven(Struct, frozen=True):
    """What a peer has after the proof: the manager, its doors, and this session's own keys.

    `endpoints` maps a door ("task", "result", "announce", "client") to "tcp://HOST:PORT".
    `public_key` and `secret_key` are this session's CURVE pair; `token` never travels in clear.
    """

    server_id: bytes
    epoch: int
    version: tuple[int, int]
    project: str
    endpoints: dict[str, str]
    manager_key: bytes
    public_key: bytes
    secret_key: bytes
    token: bytes

    @property
    def token_tag(self) -> bytes:
        """Give the part of the token that each batch carries."""
        return self.token[:TOKEN_TAG_BYTES]

    def __repr__(self) -> str:
        """Show which session it is; logs must not hold its keys."""
        return f"Proven(server_id={self.server_id.hex()}, epoch={self.epoch})"


class ProvenPeer(Struct, frozen=True):
    """What the manager has after the proof: whom to let in by which key.

    `role` is what the peer may do; `credential_role` is "owner" when an owner's credential proved
    another role. `kid` is empty for a human password.
    """

    public_key: bytes
    role: str
    kid: bytes
    credential_role: str
    version: tuple[int, int]
    token: bytes

    @property
    def token_tag(self) -> bytes:
        """Give the part of the token that each batch carries."""
        return self.token[:TOKEN_TAG_BYTES]

    def __repr__(self) -> str:
        """Show who it is, without the token."""
        return f"ProvenPeer({self.role}, kid={self.kid.hex()}, key={self.public_key.hex()[:8]})"


class ManagerFacts(Struct):
    """What the manager's side of every hello has to know; the shell keeps it up to date.

    `password_key` is the root key of the human password, None where there is none. `revoked` holds
    kids. `full` maps a role to the sentence with which newcomers of it are refused.
    """

    server_id: bytes
    epoch: int
    project: str
    public_key: bytes
    secret_key: bytes
    root_key: bytes
    salt: bytes
    password_key: bytes | None = None
    revoked: frozenset[bytes] = frozenset()
    full: dict[str, str] = {}

    def __repr__(self) -> str:
        """Show which manager it is; logs must not hold its keys."""
        return f"ManagerFacts(server_id={self.server_id.hex()}, epoch={self.epoch})"


class Secrets:
    """The key schedule of one proof; both sides compute the same from the bytes they saw."""

    __slots__ = ("_prk", "_role", "_th", "proof")

    def __init__(
        self, key: bytes, h1: bytes, h2: bytes, hello: H1, answer: H2, version: tuple[int, int]
    ) -> None:
        transcript = enc(
            "wqueue proof v1",
            h1,
            h2,
            hello.role,
            hello.kid,
            hello.public_key,
            answer.public_key,
            hello.nonce,
            answer.nonce,
            struct.pack(">HH", *version),
            answer.suite,
        )
        self._th = hashlib.sha256(transcript).digest()
        self._prk = mac(self._th, key)
        self._role = hello.role
        self.proof = mac(self._prk, enc("client proof", self._role, self._th))

    def manager_proof(self) -> bytes:
        """Compute what the manager answers."""
        return mac(self._prk, enc("manager proof", self._role, self._th, self.proof))

    def token(self) -> bytes:
        """Compute the session token."""
        return mac(self._prk, enc("session", self._th))[:TOKEN_BYTES]


def agree_version(
    ours: tuple[tuple[int, int], tuple[int, int]], theirs: tuple[tuple[int, int], tuple[int, int]]
) -> tuple[int, int] | None:
    """Choose the version of two (oldest, newest) pairs: the smaller newest, unless too old."""
    version = min(ours[1], theirs[1])
    return version if version >= max(ours[0], theirs[0]) else None


def show_version(version: tuple[int, int]) -> str:
    """Write a version as people do."""
    return f"{version[0]}.{version[1]}"
