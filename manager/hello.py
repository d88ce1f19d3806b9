"""The hello door: a plain TCP listener on which peers prove themselves before any other door opens.

It is not a ZeroMQ socket, because no option of libzmq bounds what one stranger can make it buffer
(wire 0.1). All its sockets hang in one epoll descriptor, which is registered in the loop's poller;
nothing here blocks. A stranger costs one small object for at most five seconds; the answer to a
wrong proof is delayed per address, the answer to a right one never is (wire 2.5).
"""

import contextlib
import errno
import heapq
import logging
import os
import select
import socket
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from wqueue.manager.limits import (
    HELLO_ACCEPTS_PER_TURN,
    HELLO_ADDRESSES_MAX,
    HELLO_FAILURE_KEPT_S,
    HELLO_FREE_FAILURES,
    HELLO_OPEN_MAX,
    HELLO_PER_ADDRESS_MAX,
)
from wqueue.manager.log import Seldom
from wqueue.manager.zap import AllowList
from wqueue.protocol.handshake import ManagerFacts, ManagerHello, ProvenPeer
from wqueue.protocol.limits import (
    HELLO_MESSAGE_MAX_BYTES,
    HELLO_TIMEOUT_S,
    PROOF_DELAY_MAX_S,
)

_GONE_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Admitted(NamedTuple):
    """A peer that has proven itself, and the address it came from."""

    peer: ProvenPeer
    address: str


class _Visitor:
    """One open connection. `leaves_s`: when it is closed, whatever has happened by then."""

    __slots__ = ("address", "answer", "has_spoken", "hello", "is_leaving", "leaves_s", "sock")

    def __init__(
        self, sock: socket.socket, address: str, hello: ManagerHello, leaves_s: float
    ) -> None:
        self.sock = sock
        self.address = address
        self.hello = hello
        self.leaves_s = leaves_s
        self.answer = b""
        self.has_spoken = False
        self.is_leaving = False


class HelloDoor:
    """Accepts peers, drives their proofs and puts the keys that were proven on the allow-list."""

    def __init__(
        self,
        listener: socket.socket,
        facts: ManagerFacts,
        endpoints_at: Callable[[str], dict[str, str]],
        allow: AllowList,
        open_max: int = HELLO_OPEN_MAX,
    ) -> None:
        """Take a bound listener. `endpoints_at` gives the doors as seen through a local address."""
        listener.setblocking(False)
        self._listener = listener
        self._facts = facts
        self._endpoints_at = endpoints_at
        self._allow = allow
        self._open_max = open_max
        self._visitors: dict[int, _Visitor] = {}
        self._by_address: dict[str, OrderedDict[int, None]] = {}
        self._delayed: list[tuple[float, int, _Visitor]] = []
        self._failures = _Failures()
        self._seldom = Seldom()
        self._epoll = select.epoll()
        self._epoll.register(listener.fileno(), select.EPOLLIN)
        # Kept so that a connection can be taken and closed when no other descriptor is left; else
        # the listener would stay readable and the loop would spin.
        self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def fileno(self) -> int:
        """The descriptor to poll for input."""
        return self._epoll.fileno()

    @property
    def open_count(self) -> int:
        """How many connections are open."""
        return len(self._visitors)

    def serve(self, now_s: float) -> list[Admitted]:
        """Do what can be done without waiting, and give who was admitted."""
        admitted: list[Admitted] = []
        for descriptor, _ in self._epoll.poll(0, HELLO_PER_ADDRESS_MAX):
            if descriptor == self._listener.fileno():
                self._accept(now_s)
            elif (visitor := self._visitors.get(descriptor)) is not None:
                self._read(visitor, now_s, admitted)
        return admitted

    def expire(self, now_s: float) -> None:
        """Send the answers whose delay is over and close whoever has had its time."""
        while self._delayed and self._delayed[0][0] <= now_s:
            _, descriptor, visitor = heapq.heappop(self._delayed)
            if self._visitors.get(descriptor) is visitor:
                self._send(visitor, visitor.answer)
                self._close(visitor)
        # Visitors are kept in the order of their arrival; delayed ones stand apart above.
        for visitor in list(self._visitors.values()):
            if visitor.leaves_s > now_s and not visitor.answer:
                break
            if visitor.leaves_s <= now_s:
                if not visitor.is_leaving and not visitor.answer:
                    self._warn(visitor, "said no hello in time", now_s)
                self._close(visitor)

    def deadline(self) -> float | None:
        """When expire() has something to do next."""
        times = [self._delayed[0][0]] if self._delayed else []
        for visitor in self._visitors.values():
            if not visitor.answer:
                times.append(visitor.leaves_s)
                break
        return min(times, default=None)

    def close(self) -> None:
        """Close the listener and all connections."""
        for visitor in list(self._visitors.values()):
            self._close(visitor)
        self._epoll.close()
        self._listener.close()
        os.close(self._reserve)

    # --- arriving --------------------------------------------------------------------------

    def _accept(self, now_s: float) -> None:
        for _ in range(HELLO_ACCEPTS_PER_TURN):
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _GONE_ERRORS:
                    self._turn_away(now_s)
                return
            self._welcome(sock, str(address[0]), now_s)

    def _turn_away(self, now_s: float) -> None:
        self._seldom.warn("descriptors", "hello: no descriptor is left for newcomers", now_s)
        os.close(self._reserve)
        with contextlib.suppress(OSError):
            self._listener.accept()[0].close()
        self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _welcome(self, sock: socket.socket, address: str, now_s: float) -> None:
        sock.setblocking(False)
        self._make_room(address, now_s)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            local = str(sock.getsockname()[0])
            self._epoll.register(sock.fileno(), select.EPOLLIN)
        except OSError:
            sock.close()
            return
        hello = ManagerHello(
            self._facts,
            self._endpoints_at(local),
            nonce=os.urandom(32),
            box_nonce=os.urandom(16),
            opened_s=now_s,
            used_keys=self._allow,
        )
        visitor = _Visitor(sock, address, hello, now_s + HELLO_TIMEOUT_S)
        self._visitors[sock.fileno()] = visitor
        self._by_address.setdefault(address, OrderedDict())[sock.fileno()] = None

    def _make_room(self, address: str, now_s: float) -> None:
        same = self._by_address.get(address, ())
        if len(same) >= HELLO_PER_ADDRESS_MAX:
            oldest = self._visitors[next(iter(same))]
        elif len(self._visitors) >= self._open_max:
            oldest = next(iter(self._visitors.values()))
        else:
            return
        self._warn(oldest, "dropped, because too many hellos are open", now_s)
        self._close(oldest)

    # --- proving ---------------------------------------------------------------------------

    def _read(self, visitor: _Visitor, now_s: float, admitted: list[Admitted]) -> None:
        try:
            data = visitor.sock.recv(HELLO_MESSAGE_MAX_BYTES + 4)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._note_leaving(visitor, now_s)
            self._close(visitor)
        elif not visitor.is_leaving:
            visitor.has_spoken = True
            self._proceed(visitor, visitor.hello.receive(data, now_s), now_s, admitted)

    def _note_leaving(self, visitor: _Visitor, now_s: float) -> None:
        if visitor.hello.state != "new":
            return
        if visitor.has_spoken:
            self._warn(visitor, "left in the middle of its hello", now_s)
            return
        # Peers dial all addresses of a manager at once and keep the first that answers.
        key, text = f"silent {visitor.address}", f"hello: {visitor.address} left without a word"
        self._seldom.say(logging.INFO, key, text, now_s)

    def _proceed(
        self, visitor: _Visitor, answer: bytes, now_s: float, admitted: list[Admitted]
    ) -> None:
        hello = visitor.hello
        if hello.state == "proven":
            assert hello.peer is not None, "proven without a peer"
            if hello.peer.public_key in self._allow:
                # Two hellos with one key were under way at the same time.
                self._close(visitor)
                return
            self._allow.admit(hello.peer.public_key, hello.peer.role, now_s)
            admitted.append(Admitted(hello.peer, visitor.address))
            self._say_last(visitor, answer)
        elif hello.state == "refused":
            self._warn(visitor, f"refused ({hello.code}): {hello.text}", now_s)
            delay_s = 0.0
            if hello.code == "wrong_proof":
                delay_s = self._failures.delay_after(visitor.address, now_s)
            if delay_s:
                self._delay(visitor, answer, now_s + delay_s)
            elif answer:
                self._say_last(visitor, answer)
            else:
                self._close(visitor)
        elif answer:
            self._send(visitor, answer)

    def _delay(self, visitor: _Visitor, answer: bytes, until_s: float) -> None:
        visitor.answer = answer
        visitor.is_leaving = True
        visitor.leaves_s = until_s + 1.0
        heapq.heappush(self._delayed, (until_s, visitor.sock.fileno(), visitor))
        # What it sends meanwhile is not read; that it hangs up still is.
        self._epoll.modify(visitor.sock.fileno(), select.EPOLLRDHUP)

    def _say_last(self, visitor: _Visitor, answer: bytes) -> None:
        """Send the last message; the peer hangs up, or its time runs out."""
        self._send(visitor, answer)
        visitor.is_leaving = True
        with contextlib.suppress(OSError):
            visitor.sock.shutdown(socket.SHUT_WR)

    def _send(self, visitor: _Visitor, answer: bytes) -> None:
        # A fresh connection takes 4 KB at once; one that does not is none of ours.
        with contextlib.suppress(OSError):
            visitor.sock.send(answer)

    def _close(self, visitor: _Visitor) -> None:
        descriptor = visitor.sock.fileno()
        if self._visitors.pop(descriptor, None) is None:
            return
        same = self._by_address[visitor.address]
        del same[descriptor]
        if not same:
            del self._by_address[visitor.address]
        self._epoll.unregister(descriptor)
        visitor.sock.close()

    def _warn(self, visitor: _Visitor, what: str, now_s: float) -> None:
        self._seldom.warn(visitor.address, f"hello: {visitor.address} {what}", now_s)


class _Failures:
    """Wrong proofs per address, and how long the answer to the next one waits."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def delay_after(self, address: str, now_s: float) -> float:
        """Count a wrong proof and give the delay of its answer."""
        count, last_s = self._counts.pop(address, (0, now_s))
        count = 1 if now_s - last_s > HELLO_FAILURE_KEPT_S else count + 1
        self._counts[address] = (count, now_s)
        if len(self._counts) > HELLO_ADDRESSES_MAX:
            self._counts.popitem(last=False)
        excess = count - HELLO_FREE_FAILURES
        return min(2.0 ** (excess - 1), PROOF_DELAY_MAX_S) if excess > 0 else 0.0
