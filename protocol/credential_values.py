"""Credentials as values: what a password file holds, as text and as a Struct.

Either a credential that the manager made,

    wqk1 ROLE KID SECRET MANAGER_KEY SERVER_ID        (all but ROLE in hex)

or a human password of at least twelve characters. A credential pins the manager's public key, so a
fake manager gains nothing.
"""

from msgspec import Struct

from wqueue.protocol.errors import UsageError
from wqueue.protocol.keys import (
    KEY_BYTES,
    KID_BYTES,
    PASSWORD_MIN_CHARACTERS,
    ROLES,
    SERVER_ID_BYTES,
    derive_key,
)

PREFIX = "wqk1"
"""First word of a credential line; anything else is a human password."""


class Credential(Struct, frozen=True):
    """What a peer proves itself with: a manager-made key, or a human `password`.

    With a password, role, kid, secret, manager_key and server_id are empty: it may prove any role,
    at any manager that knows it. `source` identifies the file it came from, for the cache of
    derived keys; empty means that nothing is cached.
    """

    role: str = ""
    kid: bytes = b""
    secret: bytes = b""
    manager_key: bytes = b""
    server_id: bytes = b""
    password: str = ""
    source: str = ""

    @property
    def is_human(self) -> bool:
        """Tell whether this is a human password."""
        return bool(self.password)

    @property
    def suite(self) -> str:
        """Name the only suite this credential may be used with."""
        return "pw1" if self.is_human else "raw1"

    def __repr__(self) -> str:
        """Show whose it is, never the secret: errors and logs may hold it."""
        return f"Credential({self.role or 'password'}, kid={self.kid.hex()})"


def make_credential(
    root_key: bytes, role: str, kid: bytes, manager_key: bytes, server_id: bytes
) -> Credential:
    """Make the credential `kid` (8 fresh random bytes) for `role`. Done by the manager."""
    return Credential(role, kid, derive_key(root_key, role, kid), manager_key, server_id)


def credential_line(credential: Credential) -> str:
    """Write a credential as the one line of a password file, without a line end."""
    if credential.is_human:
        return credential.password
    hexes = (credential.kid, credential.secret, credential.manager_key, credential.server_id)
    return " ".join([PREFIX, credential.role, *(part.hex() for part in hexes)])


def parse_credential(text: str, where: str = "the password") -> Credential:
    """Read a credential or a human password from the text of a password file.

    Raises UsageError that names `where` when it is neither.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) != 1:
        raise UsageError(f"{where} must hold exactly one line, a credential or a password")
    words = lines[0].split()
    if words[0] == PREFIX:
        return _parse_words(words, where)
    if len(lines[0]) < PASSWORD_MIN_CHARACTERS:
        raise UsageError(
            f"{where} is too short: a password needs {PASSWORD_MIN_CHARACTERS} characters or more"
        )
    return Credential(password=lines[0])


def _parse_words(words: list[str], where: str) -> Credential:
    damaged = UsageError(
        f"{where} holds a damaged credential; ask the manager's owner for a new one"
    )
    if len(words) != 6 or words[1] not in ROLES:
        raise damaged
    try:
        kid, secret, manager_key, server_id = (bytes.fromhex(word) for word in words[2:])
    except ValueError:
        raise damaged from None
    lengths = (len(kid), len(secret), len(manager_key), len(server_id))
    if lengths != (KID_BYTES, KEY_BYTES, KEY_BYTES, SERVER_ID_BYTES):
        raise damaged
    return Credential(words[1], kid, secret, manager_key, server_id)
