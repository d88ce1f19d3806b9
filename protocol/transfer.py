"""A file on its way, without any I/O: what the receiving side asks for next, and what it takes.

The receiver pulls. It asks for chunks by Get and has at most a window of bytes asked for and not
yet written; to ask is to give credit, so that a slow disk slows the sender and memory is bounded by
the window, not by the file. Chunks may come in any order, repeated, or after they are wanted no
more. Whoever owns a Download sends what next_gets() gives, hands every Data to receive(), writes
the content when told so, and says wrote() when it has left memory.
"""

from typing import Literal

from wqueue.protocol.limits import CHUNK_BYTES, WINDOW_BYTES
from wqueue.protocol.messages import Data, Get

Verdict = Literal["write", "ignore", "short"]
"""What to do with content that came: write it at its offset; drop it, it is late or repeated; give
the transfer up, the file at the holder is shorter than it was said to be."""


class Download:
    """The receiving side of one file of known size."""

    __slots__ = ("_again", "_asked", "_next", "_writing", "size", "source", "transfer", "written")

    def __init__(self, transfer: int, source: bytes, size: int) -> None:
        assert size >= 0, size
        self.transfer = transfer
        self.source = source
        self.size = size
        self.written = 0
        self._next = 0
        # Offset -> length of what was asked for and has not come, and of what is being written.
        self._asked: dict[int, int] = {}
        self._writing: dict[int, int] = {}
        self._again: list[int] = []

    @property
    def outstanding(self) -> int:
        """Give the bytes asked for and not yet written: what this transfer takes of a pool."""
        return sum(self._asked.values()) + sum(self._writing.values())

    @property
    def is_complete(self) -> bool:
        """Tell whether every byte is written. A file of size 0 is complete from the start."""
        return self.written == self.size

    def next_gets(self, credit: int = WINDOW_BYTES) -> list[Get]:
        """Give the requests to send now, for at most `credit` further bytes, within the window."""
        gets: list[Get] = []
        room = min(credit, WINDOW_BYTES - self.outstanding)
        while self._again or self._next < self.size:
            offset = self._again[-1] if self._again else self._next
            length = min(CHUNK_BYTES, self.size - offset)
            if length > room:
                break
            if self._again:
                self._again.pop()
            else:
                self._next += length
            self._asked[offset] = length
            room -= length
            gets.append(Get(self.transfer, self.source, offset, length))
        return gets

    def receive(self, data: Data, count: int) -> Verdict:
        """Judge `count` bytes that came with a Data message of this transfer."""
        wanted = self._asked.get(data.offset)
        if wanted is None:
            return "ignore"
        if count < wanted:
            return "short"
        if count > wanted:
            return "ignore"
        self._writing[data.offset] = self._asked.pop(data.offset)
        return "write"

    def wrote(self, offset: int) -> None:
        """Note that the chunk at `offset`, judged "write", has left memory."""
        self.written += self._writing.pop(offset)
        assert self.written <= self.size, f"{self.written} of {self.size} bytes written"

    def restart(self) -> None:
        """Forget the requests of a link that was lost; next_gets() repeats them on the new one."""
        self._again += reversed(list(self._asked))
        self._asked.clear()


def readable(get: Get, size: int) -> int:
    """Say how many bytes of a file of `size` the holder sends for a Get: none past the end."""
    return max(0, min(get.length, CHUNK_BYTES, size - get.offset))
