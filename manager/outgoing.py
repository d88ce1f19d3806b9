"""What waits to be sent to one peer on one door: in order, held back until commits allow it. Pure.

A message that relies on a record waits for its commit, and what is behind it waits too, so a peer
never sees things out of order. File content stands in a line of its own behind all control. Of
Progress for one job at most two wait: the older is never replaced, or a steady stream of results
would keep pushing it behind the next commit and the client would see nothing.
"""

from collections import deque

from wqueue.protocol.codec import Message
from wqueue.protocol.messages import Data, Progress


class _Item:
    __slots__ = ("after", "message")

    def __init__(self, message: Message | None, after: int) -> None:
        self.message = message
        self.after = after


class Outgoing:
    """The lines of one peer on one door."""

    __slots__ = ("_content", "_control", "_progress", "is_urgent")

    def __init__(self) -> None:
        self._control: deque[_Item] = deque()
        self._content: deque[tuple[Data, bytes]] = deque()
        self._progress: dict[int, list[_Item]] = {}
        self.is_urgent = False
        """Whether more than progress waits: progress alone may be held back a moment."""

    def __bool__(self) -> bool:
        return bool(self._control or self._content)

    def add(self, message: Message, after: int = 0) -> None:
        """Put a message at the end of the line; it waits for the commit of record `after`."""
        item = _Item(message, after)
        if isinstance(message, Progress):
            waiting = self._progress.setdefault(message.job, [])
            if len(waiting) == 2:
                waiting.pop().message = None
            waiting.append(item)
            self.is_urgent = self.is_urgent or message.is_ended
        else:
            self.is_urgent = True
        self._control.append(item)

    def add_content(self, message: Data, content: bytes) -> None:
        """Put a piece of a file at the end of the other line."""
        self._content.append((message, content))
        self.is_urgent = True

    def take(self, committed: int) -> list[Message]:
        """Take the messages that may go now."""
        line = self._control
        taken: list[Message] = []
        while line and line[0].after <= committed:
            message = line.popleft().message
            if message is None:
                continue
            if isinstance(message, Progress):
                waiting = self._progress[message.job]
                del waiting[0]
                if not waiting:
                    del self._progress[message.job]
            taken.append(message)
        if not line:
            self.is_urgent = bool(self._content)
        return taken

    def take_content(self) -> tuple[Data, bytes] | None:
        """Take the next piece of a file."""
        if not self._content:
            return None
        piece = self._content.popleft()
        self.is_urgent = bool(self._control or self._content)
        return piece

    @property
    def waits_for(self) -> int | None:
        """The record whose commit lets the next message go; None when no message waits."""
        return self._control[0].after if self._control else None
