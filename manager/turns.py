"""Whose request for file content comes next: the sending side of all transfers, without I/O.

Peers take turns, a peer's requests are answered in their order, and no more content is read ahead
than a bound, whatever was asked for.
"""

from collections import deque
from dataclasses import dataclass

from wqueue.manager.file_shell import Peer
from wqueue.protocol.limits import CHUNK_BYTES
from wqueue.protocol.messages import Get, GetFailed

READ_AHEAD_BYTES = 4 * 1024 * 1024
"""Content being read or read and not yet sent, over all peers: four turns' worth of chunks."""

TURN_CHUNKS = 4
"""Most Data messages sent in one turn of the loop, so that control never waits long (wire 5.2)."""

REQUESTS_MAX = 4096
"""Most requests of one peer that wait: far above any window; more is refused."""


@dataclass(eq=False)
class Slot:
    """One request and what became of it: None while it is being read."""

    peer: Peer
    get: Get
    answer: bytes | GetFailed | None = None

    @property
    def cost(self) -> int:
        """Most bytes that the answer can hold."""
        return min(self.get.length, CHUNK_BYTES)


class Turns:
    """All requests that wait to be read or sent."""

    def __init__(self, read_ahead_bytes: int = READ_AHEAD_BYTES) -> None:
        self._read_ahead_bytes = read_ahead_bytes
        self._held_bytes = 0
        self._unread: dict[Peer, deque[Slot]] = {}
        self._begun: dict[Peer, deque[Slot]] = {}

    def ask(self, peer: Peer, get: Get) -> bool:
        """Take a request; False when the peer has too many."""
        unread = self._unread.setdefault(peer, deque())
        if len(unread) >= REQUESTS_MAX:
            return False
        unread.append(Slot(peer, get))
        return True

    def next_reads(self) -> list[Slot]:
        """Give the requests to be read now, one of each peer in turn, within the read-ahead."""
        reads: list[Slot] = []
        while self._unread:
            peer, unread = next(iter(self._unread.items()))
            length = unread[0].cost
            if self._held_bytes and self._held_bytes + length > self._read_ahead_bytes:
                break
            slot = unread.popleft()
            del self._unread[peer]
            if unread:
                self._unread[peer] = unread
            self._held_bytes += length
            self._begun.setdefault(peer, deque()).append(slot)
            reads.append(slot)
        return reads

    def answer(self, slot: Slot, answer: bytes | GetFailed) -> None:
        """Note what was read for a slot; the peer may have gone meanwhile."""
        slot.answer = answer

    def next_sends(self, most: int = TURN_CHUNKS) -> list[Slot]:
        """Give up to `most` answered slots to send now, peers in turn, each peer's in order."""
        sends: list[Slot] = []
        not_ready = 0
        while self._begun and not_ready < len(self._begun) and len(sends) < most:
            peer = next(iter(self._begun))
            begun = self._begun.pop(peer)
            if begun[0].answer is None:
                not_ready += 1
            else:
                not_ready = 0
                slot = begun.popleft()
                self._held_bytes -= slot.cost
                sends.append(slot)
            if begun:
                self._begun[peer] = begun
        return sends

    @property
    def is_any_ready(self) -> bool:
        """Tell whether something could be sent at once."""
        return any(begun[0].answer is not None for begun in self._begun.values())

    def forget(self, peer: Peer) -> None:
        """Drop all requests of a peer that is gone."""
        self._unread.pop(peer, None)
        for slot in self._begun.pop(peer, ()):
            self._held_bytes -= slot.cost
