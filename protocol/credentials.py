"""Password files: how they are found fit to use, read and written, and the cache of derived keys.

What they hold is credential_values.py's business; all of that can be imported from here. A human
password costs 70 ms and 64 MiB to turn into a key, which is why the derived key is cached.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from wqueue.protocol.credential_values import Credential as Credential
from wqueue.protocol.credential_values import credential_line as credential_line
from wqueue.protocol.credential_values import make_credential as make_credential
from wqueue.protocol.credential_values import parse_credential as parse_credential
from wqueue.protocol.errors import NotAuthorized, UsageError
from wqueue.protocol.keys import KEY_BYTES, derive_root_key

FILE_MAX_BYTES = 4096
"""A password file is one line; a longer file is not one."""


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


def runtime_dir(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Name this account's folder for what is kept until log-out (derived keys), if it has one."""
    base = environ.get("XDG_RUNTIME_DIR", "")
    if not base.startswith("/") or not Path(base).is_dir():
        return None
    return Path(base) / "wqueue"


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
