"""Sending by the doors: lines per peer and door leave at the end of a turn, a batch each.

No send ever blocks, and none is lost without a word: a peer that takes nothing more is cut, since
credit should have stopped us long before (wire 1.7); one that has no link left is on its way out.
"""

from collections.abc import Callable, Mapping, Sequence

import zmq

from wqueue.manager.doors import Door
from wqueue.manager.limits import PROGRESS_EVERY_S
from wqueue.manager.log import LOG
from wqueue.manager.outgoing import Outgoing
from wqueue.manager.peers import Link, Peer
from wqueue.protocol.codec import Message, encode_batch, encode_batches
from wqueue.protocol.errors import LocalProtocolError
from wqueue.protocol.limits import ANNOUNCE_TOPIC
from wqueue.protocol.messages import Announcement, Data, FromManagerBatch, Reattach


class Sender:
    """The sending half of the wire."""

    def __init__(
        self,
        epoch: int,
        doors: Mapping[str, Door],
        on_full: Callable[[Peer], None],
        on_gone: Callable[[Peer], None],
    ) -> None:
        """`on_full` hears of peers that take nothing more, `on_gone` of those without a link."""
        self._epoch = epoch
        self._doors = doors
        self._on_full = on_full
        self._on_gone = on_gone
        self._announced = 0
        self._to_flush: dict[Link, None] = {}
        self._gated: dict[Link, None] = {}
        self._committed = 0

    @property
    def has_to_send(self) -> bool:
        """Whether anything waits for a commit or for its turn on a standing link."""
        return bool(self._to_flush or self._gated)

    def put(self, peer: Peer, door: str, message: Message, after: int = 0) -> None:
        """Put a message in line; without a link it waits for one."""
        self._line(peer, door).add(message, after)
        link = peer.links.get(door)
        if link is not None:
            self._to_flush[link] = None

    def put_content(self, peer: Peer, door: str, message: Data, content: bytes) -> None:
        """Put a piece of a file in line, behind all control."""
        self._line(peer, door).add_content(message, content)
        link = peer.links.get(door)
        if link is not None:
            self._to_flush[link] = None

    @staticmethod
    def _line(peer: Peer, door: str) -> Outgoing:
        line = peer.outgoing.get(door)
        if line is None:
            line = peer.outgoing[door] = Outgoing()
        return line

    def begin(self, link: Link) -> None:
        """Send by a new link what has waited for it."""
        if link.peer.outgoing.get(link.door):
            self._to_flush[link] = None

    def forget(self, link: Link) -> None:
        """Send nothing more by this link."""
        self._to_flush.pop(link, None)
        self._gated.pop(link, None)

    def flush(self, committed: int, now_s: float) -> float | None:
        """Send all that may go; give when the oldest held-back progress was last sent."""
        if committed != self._committed:
            self._committed = committed
            self._to_flush.update(self._gated)
            self._gated.clear()
        links, self._to_flush = self._to_flush, {}
        for link in links:
            line = link.peer.outgoing[link.door]
            if not line.is_urgent and now_s - link.flushed_s < PROGRESS_EVERY_S:
                self._to_flush[link] = None
            else:
                self._flush_link(link, line, now_s)
        return min((link.flushed_s for link in self._to_flush), default=None)

    def _flush_link(self, link: Link, line: Outgoing, now_s: float) -> None:
        link.flushed_s = now_s
        it = self._doors[link.door].socket
        try:
            for payload in self._encode(link, line.take(self._committed)):
                it.send(link.routing, zmq.NOBLOCK | zmq.SNDMORE)
                it.send(payload, zmq.NOBLOCK)
            while (piece := line.take_content()) is not None:
                it.send(link.routing, zmq.NOBLOCK | zmq.SNDMORE)
                it.send(
                    encode_batch(self._next_header(link), [piece[0]]), zmq.NOBLOCK | zmq.SNDMORE
                )
                it.send(piece[1], zmq.NOBLOCK)
        except zmq.Again:
            if not link.peer.is_dropped:
                LOG.error("%s: %s takes nothing more; cut", link.door, link.peer.name)
            self._on_full(link.peer)
            return
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._on_gone(link.peer)
            return
        if line.waits_for is not None:
            self._gated[link] = None

    def _encode(self, link: Link, messages: list[Message]) -> list[bytes]:
        sent = link.sent
        try:
            return list(encode_batches(lambda: self._next_header(link), messages))
        except LocalProtocolError as error:
            # One message that no frame can hold must not take the others with it, nor the manager.
            link.sent = sent
            if len(messages) == 1:
                LOG.error("%s: not sent to %s: %s", link.door, link.peer.name, error)
                return []
        half = len(messages) // 2
        return [*self._encode(link, messages[:half]), *self._encode(link, messages[half:])]

    def _next_header(self, link: Link) -> FromManagerBatch:
        link.sent += 1
        return FromManagerBatch(self._epoch, link.peer.session, link.sent, link.seen)

    def challenge(self, door: str, routing: bytes, count: int) -> None:
        """Tell a sender without a session to begin again."""
        header = FromManagerBatch(self._epoch, 0, count, 0)
        self._try_send(door, [routing, encode_batch(header, [Reattach()])])

    def announce(self, announcements: Sequence[Announcement]) -> None:
        """Tell everybody who listens on announce."""
        self._announced += 1
        header = FromManagerBatch(self._epoch, 0, self._announced, 0)
        self._try_send("announce", [ANNOUNCE_TOPIC, encode_batch(header, announcements)])

    def _try_send(self, door: str, frames: list[bytes]) -> None:
        # What nobody takes is no loss here: the next heartbeat or challenge says the same.
        try:
            self._doors[door].socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
