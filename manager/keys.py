"""Who this manager is: the keys and the password files of a state directory, made at first start.

`keys` holds the secrets from which everything follows and is never rewritten; losing it means that
no credential works any more. `password` is the owner's credential, `secrets/ROLE` one for each
narrower role.
"""

import os
from pathlib import Path

import msgspec
from msgspec import Struct
from nacl.public import PrivateKey

from wqueue.manager.log import LOG
from wqueue.protocol.credentials import (
    KeyCache,
    make_credential,
    read_credential,
    write_credential,
    write_private,
)
from wqueue.protocol.errors import UsageError
from wqueue.protocol.handshake import ManagerFacts
from wqueue.protocol.keys import (
    KEY_BYTES,
    KID_BYTES,
    ROLES,
    SALT_BYTES,
    SERVER_ID_BYTES,
    derive_root_key,
)
from wqueue.protocol.locate import PASSWORD_NAME

KEYS_NAME = "keys"

OPEN_PASSWORD = "no password is asked for"
"""With --no-password everybody knows the password: this one. The links stay encrypted."""


class Keys(Struct, frozen=True):
    """The content of the keys file; bytes are hex."""

    server_id: str
    root_key: str
    secret_key: str
    salt: str

    @property
    def public_key(self) -> bytes:
        """The CURVE key that belongs to the secret one; credentials pin it."""
        return bytes(PrivateKey(bytes.fromhex(self.secret_key)).public_key)


def load_keys(state_dir: Path) -> Keys:
    """Read the keys of a state directory, or make them and its password files at the first start.

    Raises UsageError when the keys file is damaged.
    """
    path = state_dir / KEYS_NAME
    try:
        keys = msgspec.json.decode(path.read_bytes(), type=Keys)
    except FileNotFoundError:
        keys = Keys(
            os.urandom(SERVER_ID_BYTES).hex(),
            os.urandom(KEY_BYTES).hex(),
            bytes(PrivateKey.generate()).hex(),
            os.urandom(SALT_BYTES).hex(),
        )
        write_private(path, msgspec.json.encode(keys) + b"\n")
    except (msgspec.MsgspecError, OSError) as error:
        raise UsageError(f"cannot read the keys in {path}: {error}") from None
    _make_password_files(state_dir, keys)
    return keys


def _make_password_files(state_dir: Path, keys: Keys) -> None:
    secrets = state_dir / "secrets"
    secrets.mkdir(mode=0o700, exist_ok=True)
    for role in ROLES:
        path = state_dir / PASSWORD_NAME if role == "owner" else secrets / role
        if path.exists():
            continue
        credential = make_credential(
            bytes.fromhex(keys.root_key),
            role,
            os.urandom(KID_BYTES),
            keys.public_key,
            bytes.fromhex(keys.server_id),
        )
        write_credential(path, credential)


def manager_facts(
    keys: Keys,
    *,
    epoch: int,
    project: str,
    state_dir: Path,
    password_file: str | None,
    has_password: bool,
) -> ManagerFacts:
    """Gather what the proof on hello needs. Derives a human password once: 70 ms and 64 MiB."""
    facts = ManagerFacts(
        bytes.fromhex(keys.server_id),
        epoch,
        project,
        keys.public_key,
        bytes.fromhex(keys.secret_key),
        bytes.fromhex(keys.root_key),
        bytes.fromhex(keys.salt),
    )
    if not has_password:
        LOG.warning(
            "no password: whoever reaches this port can run commands as this account; "
            'peers give a password file that holds the line "%s"',
            OPEN_PASSWORD,
        )
        facts.password_key = derive_root_key(OPEN_PASSWORD, facts.salt)
    elif password_file is not None:
        facts.password_key = _read_password(password_file, facts, state_dir)
    return facts


def _read_password(path: str, facts: ManagerFacts, state_dir: Path) -> bytes | None:
    credential = read_credential(path)
    if credential.is_human:
        return KeyCache(state_dir).derive(credential, facts.salt)
    if credential.server_id != facts.server_id:
        raise UsageError(
            f"the password file {path} holds a credential of another manager; "
            "give a file with a password of your own, or none"
        )
    return None
