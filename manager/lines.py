"""What waits for its turn: a line for each peer, in its order, and the peers take turns. Pure.

However much one peer has put in, another waits for one item of each other peer at most.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from wqueue.manager.peers import Peer

T = TypeVar("T")


def _always(peer: Peer) -> bool:
    return True


class Lines(Generic[T]):
    """The lines of all peers that have something waiting."""

    def __init__(self, items_max: int, cost_max: float = math.inf) -> None:
        """How many items one peer may have waiting, and what they may cost in the caller's unit."""
        self.cost = 0
        """What all that wait cost together."""
        self._items_max = items_max
        self._cost_max = cost_max
        self._lines: dict[Peer, deque[tuple[T, int]]] = {}
        self._costs: dict[Peer, int] = {}

    def __bool__(self) -> bool:
        return bool(self._lines)

    def put(self, peer: Peer, item: T, cost: int = 0) -> bool:
        """Put an item at the end of a peer's line; False when that is too much."""
        line = self._lines.get(peer, ())
        cost_of_peer = self._costs.get(peer, 0) + cost
        if len(line) >= self._items_max or cost_of_peer > self._cost_max:
            return False
        self._lines.setdefault(peer, deque()).append((item, cost))
        self._costs[peer] = cost_of_peer
        self.cost += cost
        return True

    def take(self, may_go: Callable[[Peer], bool] = _always) -> tuple[Peer, T] | None:
        """Take the next item of the peer whose turn it is; of those that may go now."""
        peer = next((peer for peer in self._lines if may_go(peer)), None)
        if peer is None:
            return None
        line = self._lines.pop(peer)
        item, cost = line.popleft()
        self.cost -= cost
        self._costs[peer] -= cost
        if line:
            self._lines[peer] = line
        else:
            del self._costs[peer]
        return peer, item

    def forget(self, peer: Peer) -> None:
        """Drop all that waits of a peer that is gone."""
        if self._lines.pop(peer, None) is not None:
            self.cost -= self._costs.pop(peer)
