"""Keys and how they are derived: the pure half of credentials, shared by both sides of the proof.

The manager holds one root key and stores no other: the key of a credential follows from the root
key, its role and its id, so a credential can be revoked alone and none has to be listed.
"""

import hashlib
import hmac
import struct
import unicodedata

import nacl.pwhash.argon2id

ROLES = ("owner", "worker", "client", "observer")
"""Whom a credential may speak for. An owner's credential may prove any of them."""

KEY_BYTES = 32
"""Root keys, derived keys, CURVE keys and nonces of the proof all have this length."""

KID_BYTES = 8
"""Length of a credential's id; a human password has an empty one."""

SERVER_ID_BYTES = 16
"""Length of a state directory's random id."""

SALT_BYTES = 16
"""Length of a state directory's salt for human passwords."""

PASSWORD_MIN_CHARACTERS = 12
"""Shorter human passwords are refused: a fake manager may collect material for guessing."""

PW1_OPERATIONS = 3
"""argon2id passes of suite pw1. A constant: hostile numbers cannot come over the wire."""

PW1_MEMORY_BYTES = 64 * 1024 * 1024
"""argon2id memory of suite pw1; with three passes about 70 ms (wire 2.2)."""


def enc(*items: bytes | str) -> bytes:
    """Join items so that no two lists give the same bytes: u32 length and bytes of each."""
    parts = [item.encode() if isinstance(item, str) else item for item in items]
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def mac(key: bytes, text: bytes) -> bytes:
    """Compute HMAC-SHA256."""
    return hmac.digest(key, text, hashlib.sha256)


def derive_key(root_key: bytes, role: str, kid: bytes) -> bytes:
    """Derive the key of the credential `kid` for `role` from the manager's root key."""
    return mac(root_key, enc("wqueue key v1", role, kid))


def derive_root_key(password: str, salt: bytes) -> bytes:
    """Derive the root key that a human password stands for. Takes 70 ms and 64 MiB."""
    text = unicodedata.normalize("NFC", password).encode()
    return nacl.pwhash.argon2id.kdf(
        KEY_BYTES, text, salt, opslimit=PW1_OPERATIONS, memlimit=PW1_MEMORY_BYTES
    )
