"""Which bytes to ask for next, and of whom: the receiving side of all transfers, without I/O.

To ask is to give credit. The sum of what has been asked for and is not yet written stays within
one pool over all peers, one peer takes at most a part of it (so that a stalled one holds up nobody
else), one transfer at most WINDOW_BYTES. Transfers take turns by chunk, peers by transfer.
"""

from collections import deque
from dataclasses import dataclass

from wqueue.manager.file_shell import Peer
from wqueue.protocol.limits import CHUNK_BYTES
from wqueue.protocol.messages import Data, Get
from wqueue.protocol.transfer import Download, Verdict

POOL_BYTES = 8 * 1024 * 1024
"""Credit over all peers: what the manager may have to hold in memory for receiving (wire 5.2)."""

PEER_BYTES = POOL_BYTES // 2
"""Most credit of one peer: another one always finds some."""

ACTIVE_MAX = 64
"""Transfers under way at once: bounds open files."""

PEER_ACTIVE_MAX = 32
"""Transfers under way at once with one peer."""

STALL_S = 60.0
"""A transfer that was asked for data and got none for this long is given up."""

_TRANSFERS = 2**32


@dataclass(eq=False)
class Pull:
    """One transfer on its way in, and when something last came of it."""

    peer: Peer
    download: Download
    progress_s: float = 0.0
    owed: int = 0
    """Bytes asked for that have not come."""
    is_waiting_its_turn: bool = False
    """It may have more to ask for, so it is among those that take turns."""


class Pulls:
    """All transfers on their way in."""

    def __init__(self, pool_bytes: int = POOL_BYTES, peer_bytes: int = PEER_BYTES) -> None:
        self.now_s = 0.0
        """Monotonic seconds as of the last tick: good enough for stalls."""
        self._pool_bytes = pool_bytes
        self._peer_bytes = peer_bytes
        self._used = 0
        self._used_by: dict[Peer, int] = {}
        self._next = 0
        self._pulls: dict[int, Pull] = {}
        self._active: dict[int, Pull] = {}
        self._turns: deque[Pull] = deque()
        self._active_by: dict[Peer, int] = {}
        self._waiting: dict[Peer, deque[int]] = {}

    def __len__(self) -> int:
        return len(self._pulls)

    @property
    def used_bytes(self) -> int:
        """Credit given and not yet back."""
        return self._used

    def add(self, peer: Peer, source: bytes, size: int) -> int:
        """Want `size` > 0 bytes of `source` from `peer`; give the transfer's number."""
        assert size > 0, f"a transfer of {size} bytes"
        self._next = (self._next + 1) % _TRANSFERS
        while self._next in self._pulls:
            self._next = (self._next + 1) % _TRANSFERS
        self._pulls[self._next] = Pull(peer, Download(self._next, source, size))
        self._waiting.setdefault(peer, deque()).append(self._next)
        return self._next

    def requests(self) -> list[tuple[Peer, Get]]:
        """Give what may be asked for now, and count it as asked."""
        self._activate()
        asked: list[tuple[Peer, Get]] = []
        without_room = 0
        while without_room < len(self._turns):
            pull = self._turns.popleft()
            room = self._room(pull.peer)
            gets = pull.download.next_gets(room)
            for get in gets:
                self._note_asked(pull, get)
                asked.append((pull.peer, get))
            if gets or room < CHUNK_BYTES:
                self._turns.append(pull)
                without_room = 0 if gets else without_room + 1
            else:
                # Its window is full or all is asked for; `wrote` brings it back.
                pull.is_waiting_its_turn = False
        return asked

    def take(self, peer: Peer, data: Data, count: int) -> Verdict:
        """Judge arrived data as Download does; that of nobody's transfer is ignored."""
        pull = self._pulls.get(data.transfer)
        if pull is None or pull.peer != peer:
            return "ignore"
        verdict = pull.download.receive(data, count)
        if verdict == "write":
            pull.owed -= count
            pull.progress_s = self.now_s
        return verdict

    def wrote(self, transfer: int, offset: int, length: int) -> bool:
        """Give the credit of a written chunk back; True when the transfer is complete.

        A complete one must be removed.
        """
        pull = self._pulls[transfer]
        pull.download.wrote(offset)
        self._count(pull.peer, -length)
        self._take_turns(pull)
        return pull.download.is_complete

    def remove(self, transfer: int) -> None:
        """Forget a transfer; late data of it is ignored. Unknown numbers are no error."""
        pull = self._pulls.pop(transfer, None)
        if pull is None:
            return
        waiting = self._waiting.get(pull.peer)
        if waiting is not None and transfer in waiting:
            waiting.remove(transfer)
            if not waiting:
                del self._waiting[pull.peer]
            return
        del self._active[transfer]
        if pull.is_waiting_its_turn:
            self._turns.remove(pull)
        self._count(pull.peer, -pull.download.outstanding)
        self._active_by[pull.peer] -= 1
        if not self._active_by[pull.peer]:
            del self._active_by[pull.peer]

    def get(self, transfer: int) -> Pull | None:
        """Give a transfer that is under way or waits."""
        return self._pulls.get(transfer)

    def of_peer(self, peer: Peer) -> list[int]:
        """Give the transfers with one peer."""
        return [transfer for transfer, pull in self._pulls.items() if pull.peer == peer]

    def stalled(self) -> list[int]:
        """Give the transfers whose holder owes data and has sent none for too long."""
        return [
            transfer
            for transfer, pull in self._active.items()
            if pull.owed and self.now_s - pull.progress_s > STALL_S
        ]

    def _activate(self) -> None:
        """Begin waiting transfers, one peer after the other, while there are places."""
        held_up: set[Peer] = set()
        while len(self._active) < ACTIVE_MAX:
            peer = next((peer for peer in self._waiting if peer not in held_up), None)
            if peer is None:
                return
            if self._active_by.get(peer, 0) >= PEER_ACTIVE_MAX:
                held_up.add(peer)
                continue
            waiting = self._waiting.pop(peer)
            pull = self._pulls[waiting.popleft()]
            if waiting:
                self._waiting[peer] = waiting
            pull.progress_s = self.now_s
            self._active[pull.download.transfer] = pull
            self._take_turns(pull)
            self._active_by[peer] = self._active_by.get(peer, 0) + 1

    def _take_turns(self, pull: Pull) -> None:
        if not pull.is_waiting_its_turn:
            pull.is_waiting_its_turn = True
            self._turns.append(pull)

    def _note_asked(self, pull: Pull, get: Get) -> None:
        if not pull.owed:
            pull.progress_s = self.now_s
        pull.owed += get.length
        self._count(pull.peer, get.length)

    def _room(self, peer: Peer) -> int:
        """Give the credit for one more chunk, as far as there is some."""
        pool_room = self._pool_bytes - self._used
        peer_room = self._peer_bytes - self._used_by.get(peer, 0)
        return min(pool_room, peer_room, CHUNK_BYTES)

    def _count(self, peer: Peer, change: int) -> None:
        self._used += change
        used = self._used_by.get(peer, 0) + change
        if used:
            self._used_by[peer] = used
        else:
            self._used_by.pop(peer, None)
