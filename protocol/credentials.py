"""Credentials: what is in a password file, how it is read and written.

A password file (mode 0600) holds one line. Either a credential that the manager made,

    wqk1 ROLE KID SECRET MANAGER_KEY SERVER_ID        (all but ROLE in hex)

or a human password of at least twelve characters. A credential pins the manager's public key, so
a fake manager gains nothing; a human password costs 70 ms and 64 MiB to turn into a key, which is
why the derived key is cached.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from wqueue.protocol.errors import NotAuthorized, UsageError
from wqueue.protocol.keys import (
    KEY_BYTES,
    KID_BYTES,
    PASSWORD_MIN_CHARACTERS,
    ROLES,
    SERVER_ID_BYTES,
    derive_key,
    derive_root_key,
)

PREFIX = "wqk1"
"""First word of a credential line; anything else is a human password."""

FILE_MAX_BYTES = 4096
"""A password file is one line; a longer file is not one."""


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
        f"{where} holds a damaged credential; ask for a new one: wq-control secret"
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


def read_credential(path: str | Path) -> Credential:
    """Read a password file.

    Raises NotAuthorized when it is missing or cannot be read, UsageError when others can read it
    or it holds no credential; each in one line that says what to do.
    """
    try:
        with Path(path).open("rb") as file:
            facts = os.fstat(file.fileno())
            content = file.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise NotAuthorized(f"cannot read the password file {path}: {error.strerror}") from None
    if facts.st_mode & 0o077:
        raise UsageError(f"the password file {path} is open to others; do: chmod 600 {path}")
    if len(content) > FILE_MAX_BYTES:
        raise UsageError(f"{path} is no password file: it holds more than {FILE_MAX_BYTES} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no password file: it is not UTF-8 text") from None
    found = parse_credential(text, str(path))
    source = f"{facts.st_dev}-{facts.st_ino}-{facts.st_mtime_ns}-{facts.st_size}"
    return Credential(
        found.role,
        found.kid,
        found.secret,
        found.manager_key,
        found.server_id,
        found.password,
        source,
    )


def write_credential(path: str | Path, credential: Credential) -> None:
    """Write a password file: mode 0600 from its first moment, whole, then renamed."""
    write_private(Path(path), credential_line(credential).encode() + b"\n")


def write_private(path: Path, content: bytes) -> None:
    """Write a file with mode 0600 that is either the old one or the whole new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


class KeyCache:
    """Keys derived from human passwords, kept in files of mode 0600 in `folder`.

    A file is named after the salt and the identity of the password file, never after anything
    computed from the password: that would be a cheaper target for guessing than argon2id. Without
    a folder or a source nothing is kept.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, credential: Credential, salt: bytes) -> bytes | None:
        """Look up the root key of `credential` at the manager with `salt`."""
        path = self._path(credential, salt)
        if path is None:
            return None
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    return None
                key = file.read(KEY_BYTES + 1)
        except OSError:
            return None
        return key if len(key) == KEY_BYTES else None

    def derive(self, credential: Credential, salt: bytes) -> bytes:
        """Derive the root key, or take it from the cache.

        One process of a machine derives at a time: sixty-four workers that start together would
        otherwise take 4 GiB at the same moment.
        """
        with self._locked():
            key = self.get(credential, salt)
            if key is None:
                key = derive_root_key(credential.password, salt)
                self._keep(credential, salt, key)
        return key

    def _keep(self, credential: Credential, salt: bytes, key: bytes) -> None:
        path = self._path(credential, salt)
        if path is not None:
            # A cache that cannot be written costs 70 ms next time, nothing else.
            with contextlib.suppress(OSError):
                write_private(path, key)

    def _path(self, credential: Credential, salt: bytes) -> Path | None:
        if self.folder is None or not credential.source:
            return None
        return self.folder / f"derived-{salt.hex()}-{credential.source}"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if self.folder is None:
            yield
            return
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(
                self.folder / "derive.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError:
            yield
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
