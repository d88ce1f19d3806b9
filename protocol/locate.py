"""Where a manager and its secret are found: state directories and the info file in them.

Home directories are shared on clusters, so whoever works under the manager's account finds it
through its state directory, with nothing to configure. The first place that is given counts:
argument, then environment, then this account's default.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from wqueue.protocol.credentials import Credential, read_credential, write_private
from wqueue.protocol.credentials import runtime_dir as runtime_dir
from wqueue.protocol.dial import ask_server_id
from wqueue.protocol.errors import ManagerUnreachable, NotAuthorized, UsageError, WqueueError

DEFAULT_NAME = "default"
"""Name of the manager when none is given."""

DEFAULT_PORT = 9123
"""The hello port when a HOST is given without one."""

INFO_NAME = "info.json"
"""The file of a state directory that tells where its manager listens."""

PASSWORD_NAME = "password"
"""The file of a state directory that holds the owner's credential."""


class Info(Struct, frozen=True, omit_defaults=False):
    """What a running manager tells of itself: the content of an info file. Bytes are hex."""

    name: str
    server_id: str
    epoch: int
    host: str
    addresses: list[str]
    port: int
    supervisor_pid: int
    daemon_pid: int
    manager_key: str
    version: str
    state_dir: str = ""


class Found(Struct, frozen=True):
    """A manager's address, and where it was found (`where`, for errors).

    `addresses` are the hosts to try, `host` first among them. server_id and state_dir are known
    when it was found through an info file.
    """

    host: str
    port: int
    addresses: list[str]
    server_id: bytes | None = None
    state_dir: Path | None = None
    where: str = ""


def state_root(environ: Mapping[str, str] = os.environ) -> Path:
    """Name the folder that holds this account's state directories."""
    base = environ.get("XDG_STATE_HOME", "")
    if not base.startswith("/"):
        base = str(Path(environ.get("HOME") or Path.home()) / ".local" / "state")
    return Path(base) / "wqueue"


def default_state_dir(name: str = DEFAULT_NAME, environ: Mapping[str, str] = os.environ) -> Path:
    """Name the state directory of the manager called `name`. Raises UsageError for a bad name."""
    if not name or "/" in name or name.startswith(".") or not name.isprintable():
        raise UsageError(f"a manager cannot be called {name!r}: use letters, digits, - and _")
    return state_root(environ) / name


def make_state_dir(path: Path) -> None:
    """Make a state directory that only its owner can enter; refuse one that others can write.

    Raises UsageError, also when it cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = path.stat()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(
            f"the state directory {path} cannot be made: {reason}; name another with --state-dir"
        ) from None
    if facts.st_uid != os.getuid():
        raise UsageError(f"the state directory {path} belongs to another account")
    if facts.st_mode & 0o022:
        raise UsageError(f"the state directory {path} is open to others; do: chmod 700 {path}")


def write_info(path: Path, info: Info) -> None:
    """Write an info file: mode 0600, whole, then renamed. Scripts may wait for it to appear."""
    write_private(path, msgspec.json.format(msgspec.json.encode(info), indent=2) + b"\n")


def read_info(path: Path) -> Info:
    """Read an info file.

    Raises ManagerUnreachable when there is none, UsageError when it cannot be read or is none.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise ManagerUnreachable(
            f"no manager is running on this account (looked in {path}); start one with: wq-manager"
        ) from None
    except OSError as error:
        raise UsageError(f"cannot read the info file {path}: {error.strerror}") from None
    try:
        info = msgspec.json.decode(content, type=Info)
        bytes.fromhex(info.server_id)
        bytes.fromhex(info.manager_key)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise UsageError(f"{path} is not a manager's info file") from None
    return info


def find_manager(
    manager: str | None = None,
    info_file: str | Path | None = None,
    state_dir: str | Path | None = None,
    name: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Found:
    """Find a manager: HOST:PORT, info file, state directory, name; argument before environment.

    Raises ManagerUnreachable when none is running there, UsageError for nonsense.
    """
    if not (manager or info_file or state_dir or name):
        manager, info_file = environ.get("WQ_MANAGER"), environ.get("WQ_INFO_FILE")
        state_dir, name = environ.get("WQ_STATE_DIR"), environ.get("WQ_NAME")
    if manager:
        return _from_address(manager)
    if info_file:
        return _from_info(Path(info_file), None)
    if state_dir:
        return _from_state_dir(Path(state_dir))
    return _from_state_dir(default_state_dir(name or DEFAULT_NAME, environ))


def _from_address(text: str) -> Found:
    host, port = parse_address(text)
    return Found(host, port, [host], where=text)


def parse_address(text: str) -> tuple[str, int]:
    """Read HOST:PORT, HOST or [IPv6]:PORT. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"{text!r} is not the address of a manager; write HOST:PORT")
    return host, int(port)


def _from_state_dir(path: Path) -> Found:
    return _from_info(path / INFO_NAME, path)


def _from_info(path: Path, state_dir: Path | None) -> Found:
    info = read_info(path)
    if state_dir is None and info.state_dir:
        state_dir = Path(info.state_dir)
    addresses = [info.host, *(a for a in info.addresses if a != info.host)]
    # On the manager's own machine loopback answers whatever it listens on beside it.
    if info.host == socket.gethostname() and "127.0.0.1" not in addresses:
        addresses.append("127.0.0.1")
    return Found(
        info.host, info.port, addresses, bytes.fromhex(info.server_id), state_dir, str(path)
    )


def find_credential(
    found: Found,
    password_file: str | Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Credential:
    """Find the secret for a manager: the file given, WQ_PASSWORD_FILE, else a state directory's.

    For a bare HOST:PORT the manager is asked for its server id, and this account's state
    directories are searched for a credential of it. Raises NotAuthorized when there is none,
    ManagerUnreachable when it does not answer, UsageError for a bad password file.
    """
    given = password_file or environ.get("WQ_PASSWORD_FILE")
    if given:
        return read_credential(given)
    if found.state_dir is not None and (found.state_dir / PASSWORD_NAME).exists():
        return read_credential(found.state_dir / PASSWORD_NAME)
    server_id = (
        found.server_id
        if found.server_id is not None
        else ask_server_id(found.addresses, found.port)
    )
    root = state_root(environ)
    candidates = sorted(root.glob(f"*/{PASSWORD_NAME}"))
    state_dir = environ.get("WQ_STATE_DIR")
    if state_dir:
        candidates.insert(0, Path(state_dir) / PASSWORD_NAME)
    for path in candidates:
        if _belongs_to(path, server_id):
            return read_credential(path)
    raise NotAuthorized(
        f"no password for the manager at {found.host}:{found.port} on this account "
        f"(looked in {root}); give one with --password-file FILE"
    )


def _belongs_to(path: Path, server_id: bytes) -> bool:
    # Someone else's broken file must not hide the right one.
    try:
        return read_credential(path).server_id == server_id
    except WqueueError:
        return False
