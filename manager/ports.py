"""Which ports the doors get, and that a state directory keeps them.

hello gets the port that was named or is remembered, and only a fresh state directory's default may
move on; peers know that port. The other doors get the ports after it where those are free, else
any: peers learn them on hello.
"""

import errno
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import psutil
from msgspec import Struct

from wqueue.manager.limits import PORTS_TRIED
from wqueue.protocol.credentials import write_private
from wqueue.protocol.errors import Refused, UsageError
from wqueue.protocol.limits import LISTEN_BACKLOG
from wqueue.protocol.locate import DEFAULT_PORT

PORTS_NAME = "ports"

_TAKEN = (errno.EADDRINUSE, errno.EACCES)


class Remembered(Struct):
    """The content of the ports file: the port of each door at the last start."""

    ports: dict[str, int] = {}


def recall_ports(state_dir: Path) -> dict[str, int]:
    """Read the remembered ports; none when the state directory is fresh."""
    try:
        content = (state_dir / PORTS_NAME).read_bytes()
    except FileNotFoundError:
        return {}
    try:
        return msgspec.json.decode(content, type=Remembered).ports
    except msgspec.MsgspecError as error:
        raise UsageError(f"{state_dir / PORTS_NAME} is damaged ({error}); remove it") from None


def remember_ports(state_dir: Path, ports: dict[str, int]) -> None:
    """Keep the ports for the next start."""
    write_private(state_dir / PORTS_NAME, msgspec.json.encode(Remembered(ports)) + b"\n")


def listen_for_hello(
    host: str, port: int | None, allowed: tuple[int, int] | None, remembered: int | None
) -> tuple[socket.socket, str]:
    """Bind and listen on the hello port; also give a remark when it is not the expected one.

    Raises Refused when a port that peers may rely on is taken, UsageError for an address that is
    not this machine's.
    """
    if port == 0:
        return _first_free(host, _chain([remembered], _within(allowed), [0])), ""
    expected = port or remembered
    if expected:
        listener = _try_listen(host, expected)
        if listener is None:
            raise Refused(_why_taken(expected, is_remembered=not port), "port_taken")
        return listener, ""
    if allowed:
        return _first_free(host, _within(allowed)), ""
    listener = _first_free(host, range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED))
    got = listener.getsockname()[1]
    remark = f"port {DEFAULT_PORT} is taken; using {got} instead" if got != DEFAULT_PORT else ""
    return listener, remark


def bind_door(
    bind: Callable[[int], int | None],
    hello_port: int,
    allowed: tuple[int, int] | None,
    remembered: int | None,
) -> int:
    """Bind another door to the best free port and give it.

    `bind` tries one port (0: any) and gives the port it got, or None when it is taken.
    """
    near = range(hello_port + 1, min(hello_port + 1 + PORTS_TRIED, 65536))
    tries = (
        _chain([remembered], (p for p in near if allowed[0] <= p <= allowed[1]), _within(allowed))
        if allowed
        else _chain([remembered], near, [0])
    )
    for port in tries:
        got = bind(port)
        if got is not None:
            return got
    raise _none_free(allowed)


def _chain(*lists: Iterable[int | None]) -> Iterator[int]:
    for ports in lists:
        for port in ports:
            if port is not None:
                yield port


def _within(allowed: tuple[int, int] | None) -> Iterable[int]:
    return range(allowed[0], allowed[1] + 1) if allowed else ()


def _first_free(host: str, ports: Iterable[int]) -> socket.socket:
    last = None
    for port in ports:
        listener = _try_listen(host, port)
        if listener is not None:
            return listener
        last = port
    raise _none_free(None, last)


def _none_free(allowed: tuple[int, int] | None, last: int | None = None) -> Refused:
    where = f"between {allowed[0]} and {allowed[1]}" if allowed else f"up to {last}"
    return Refused(
        f"no port {where} is free; name others with --ports LOW-HIGH, or --port 0 for any",
        "port_taken",
    )


def _try_listen(host: str, port: int) -> socket.socket | None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(LISTEN_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno in _TAKEN:
            return None
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    return listener


def _why_taken(port: int, *, is_remembered: bool) -> str:
    which = "this state directory's own port" if is_remembered else "port"
    holder = _holder_of(port)
    by = f" by {holder}" if holder else ""
    return f"{which} {port} is taken{by}; give another one with --port PORT, or --port 0 for any"


def _holder_of(port: int) -> str:
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr
                and connection.laddr.port == port
                and connection.pid
            ):
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        return ""
    return ""
