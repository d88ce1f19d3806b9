"""The proof from a peer's side, with real sockets: find an address that answers, prove, hang up.

Blocking, a few milliseconds long; called at start and after a link was lost. The decisions are
handshake.PeerHello's, here are only the socket and the clock.
"""

import errno
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import nacl.public

from wqueue.protocol import codec
from wqueue.protocol.credentials import Credential, KeyCache, runtime_dir
from wqueue.protocol.errors import (
    ManagerUnreachable,
    RemoteProtocolError,
    WqueueError,
    error_from_wire,
)
from wqueue.protocol.handshake import (
    BOX_NONCE_RANDOM_BYTES,
    NONCE_BYTES,
    VERSION_MAX,
    VERSION_MIN,
    PeerHello,
    Proven,
)
from wqueue.protocol.hello_messages import H1, FrameBuffer, Refused, decode_h2, encode, framed
from wqueue.protocol.keys import KEY_BYTES, KID_BYTES
from wqueue.protocol.limits import HELLO_TIMEOUT_S, PROOF_DELAY_MAX_S

T = TypeVar("T")

RECEIVE_BYTES = 8192
"""Read at once from a hello socket; its messages are smaller."""


def dial(
    host: str,
    port: int,
    credential: Credential,
    *,
    role: str,
    timeout_s: float = HELLO_TIMEOUT_S,
    cache_dir: Path | None = None,
) -> Proven:
    """Prove `credential` to the manager at HOST:PORT for `role` and let the manager prove itself.

    Blocks up to `timeout_s`; a human password that is not in the cache takes 70 ms more, a wrong
    one up to half a minute, because the manager delays its answer. Derived keys are cached in
    `cache_dir`, else in $XDG_RUNTIME_DIR. Raises ManagerUnreachable, NotAuthorized (also for a
    foreign manager key), VersionMismatch, Refused, RemoteProtocolError.
    """
    return dial_first([host], port, credential, role=role, timeout_s=timeout_s, cache_dir=cache_dir)


def dial_first(
    addresses: Sequence[str],
    port: int,
    credential: Credential,
    *,
    role: str,
    timeout_s: float = HELLO_TIMEOUT_S,
    cache_dir: Path | None = None,
) -> Proven:
    """Try all addresses at once and take the first that answers as the right manager."""
    cache = KeyCache(cache_dir or runtime_dir())
    derived: dict[bytes, bytes] = {}

    def prove(link: socket.socket, where: str, deadline_s: float) -> Proven:
        hello = _new_hello(credential, role, where)
        _converse(link, hello, where, deadline_s)
        if hello.state == "needs_key":
            key = derived.get(hello.salt) or cache.get(credential, hello.salt)
            if key is None:
                raise _KeyNeeded(hello.salt)
            link.sendall(hello.give_key(key))
        if hello.state == "proving":
            # Only a wrong proof is answered late; whoever is right never waits so long.
            _read(link, hello, where, time.monotonic() + PROOF_DELAY_MAX_S + timeout_s)
        assert hello.proven is not None, hello.state
        return hello.proven

    # Refuse a credential of another role before anything goes out.
    _new_hello(credential, role, "the manager")
    try:
        return _first(addresses, port, timeout_s, prove)
    except _KeyNeeded as needed:
        # argon2id may outlast a hello on a loaded machine: derive first, then dial again.
        derived[needed.salt] = cache.derive(credential, needed.salt)
        return _first(addresses, port, timeout_s, prove)


def ask_server_id(addresses: Sequence[str], port: int, timeout_s: float = HELLO_TIMEOUT_S) -> bytes:
    """Ask the manager there for its server id. The answer proves nothing.

    Raises ManagerUnreachable, VersionMismatch, Refused, RemoteProtocolError.
    """

    def ask(link: socket.socket, where: str, deadline_s: float) -> bytes:
        question = H1(
            VERSION_MIN,
            VERSION_MAX,
            ["raw1"],
            "observer",
            os.urandom(KID_BYTES),
            os.urandom(KEY_BYTES),
            os.urandom(NONCE_BYTES),
        )
        link.sendall(framed(encode(question)))
        frames = FrameBuffer()
        while True:
            message = frames.feed(_some(link, where, deadline_s))
            if message is not None:
                break
        answer = codec.decode(decode_h2, message)
        if isinstance(answer, Refused):
            raise error_from_wire(answer.code, f"{where} refused: {answer.text}")
        return answer.server_id

    return _first(addresses, port, timeout_s, ask)


class _KeyNeeded(Exception):
    def __init__(self, salt: bytes) -> None:
        super().__init__()
        self.salt = salt


def _new_hello(credential: Credential, role: str, where: str) -> PeerHello:
    secret = nacl.public.PrivateKey.generate()
    return PeerHello(
        credential,
        role,
        public_key=bytes(secret.public_key),
        secret_key=bytes(secret),
        nonce=os.urandom(NONCE_BYTES),
        box_nonce=os.urandom(BOX_NONCE_RANDOM_BYTES),
        where=where,
    )


def _converse(link: socket.socket, hello: PeerHello, where: str, deadline_s: float) -> None:
    link.sendall(hello.opening)
    while hello.state == "new":
        answer = hello.receive(_some(link, where, deadline_s))
        if answer:
            link.sendall(answer)


def _read(link: socket.socket, hello: PeerHello, where: str, deadline_s: float) -> None:
    while hello.state != "proven":
        hello.receive(_some(link, where, deadline_s))


def _some(link: socket.socket, where: str, deadline_s: float) -> bytes:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    link.settimeout(left_s)
    data = link.recv(RECEIVE_BYTES)
    if not data:
        raise RemoteProtocolError(
            f"{where} hung up in the middle of the hello; is it a wqueue manager?"
        )
    return data


def _first(
    addresses: Sequence[str],
    port: int,
    timeout_s: float,
    talk: Callable[[socket.socket, str, float], T],
) -> T:
    """Talk with the first address that can be connected to and does not disappoint."""
    assert addresses, "no address to dial"
    deadline_s = time.monotonic() + timeout_s
    errors: list[WqueueError] = []
    with selectors.DefaultSelector() as selector:
        try:
            for host in addresses:
                errors += _start(selector, host, port)
            for link, where in _connected(selector, deadline_s, errors):
                left = len(selector.get_map()) + 1
                share_s = (deadline_s - time.monotonic()) / left
                try:
                    return _talk(talk, link, where, time.monotonic() + share_s)
                except WqueueError as error:
                    errors.append(error)
        finally:
            for key in list(selector.get_map().values()):
                assert isinstance(key.fileobj, socket.socket), key
                key.fileobj.close()
    if not errors:
        shown = " or ".join(_show(host, port) for host in addresses)
        raise ManagerUnreachable(f"no manager answers at {shown} within {timeout_s:g} s")
    # An answer, even a refusal, says more than silence at another address.
    raise next((e for e in errors if not isinstance(e, ManagerUnreachable)), errors[0])


def _show(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _start(selector: selectors.BaseSelector, host: str, port: int) -> list[WqueueError]:
    """Begin to connect to every address a host has."""
    where = _show(host, port)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return [ManagerUnreachable(f"the host {host} is not known ({_reason(error)})")]
    problems: list[WqueueError] = []
    for family, kind, protocol, _, address in found:
        link = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
        link.setblocking(False)
        status = link.connect_ex(address)
        if status in (0, errno.EINPROGRESS):
            selector.register(link, selectors.EVENT_WRITE, where)
        else:
            link.close()
            problems.append(_unreachable(where, os.strerror(status)))
    return problems


def _connected(
    selector: selectors.BaseSelector, deadline_s: float, errors: list[WqueueError]
) -> Iterator[tuple[socket.socket, str]]:
    """Give the sockets as they become connected; note the errors of those that do not."""
    while selector.get_map() and (left_s := deadline_s - time.monotonic()) > 0:
        for key, _ in selector.select(left_s):
            link = key.fileobj
            assert isinstance(link, socket.socket), link
            selector.unregister(link)
            status = link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if status:
                link.close()
                errors.append(_unreachable(key.data, os.strerror(status)))
            else:
                yield link, key.data


def _talk(
    talk: Callable[[socket.socket, str, float], T],
    link: socket.socket,
    where: str,
    deadline_s: float,
) -> T:
    with link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.settimeout(max(0.001, deadline_s - time.monotonic()))
        try:
            return talk(link, where, deadline_s)
        except TimeoutError:
            raise _unreachable(where, "it took the connection, then said nothing") from None
        except OSError as error:
            raise _unreachable(where, _reason(error)) from None


def _unreachable(where: str, reason: str) -> ManagerUnreachable:
    return ManagerUnreachable(f"no manager answers at {where} ({reason})")


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or str(error) or type(error).__name__)
