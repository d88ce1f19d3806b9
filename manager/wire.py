"""The doors task, result, client and announce: frames to messages of known peers, and back.

Whoever speaks here has proven a key on hello, and ZAP has put that key on every frame: it decides
who is speaking, never the routing id, which the peer chooses (wire 1.5). Nothing here blocks.
Sends are gathered during a turn and leave at its end, one batch per peer and door.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import zmq
from msgspec import Struct

from wqueue.manager.doors import Address, Context, Door
from wqueue.manager.hello import Admitted
from wqueue.manager.limits import (
    BAD_MESSAGES_MAX,
    BATCHES_PER_TURN,
    CHUNKS_PER_TURN,
    DROP_GRACE_S,
    LAST_WORDS_MAX_S,
    LINK_UNUSED_S,
    UNTAKEN_MAX_BYTES,
)
from wqueue.manager.log import LOG, Seldom, one_line
from wqueue.manager.peers import DOOR_OF_WORKER_MESSAGE, FIRST_MESSAGE, Link, Peer
from wqueue.manager.sender import Sender
from wqueue.manager.zap import AllowList, Zap
from wqueue.protocol.codec import (
    CLIENT_TO_MANAGER,
    RESULT_TO_MANAGER,
    TASK_TO_MANAGER,
    BatchDecoder,
    Message,
)
from wqueue.protocol.errors import RemoteProtocolError
from wqueue.protocol.limits import ANNOUNCE_TOPIC
from wqueue.protocol.link import check_data
from wqueue.protocol.messages import (
    Announcement,
    Data,
    Refusal,
    ToManagerBatch,
)

_DECODERS: dict[str, BatchDecoder[ToManagerBatch, Message]] = {
    "task": TASK_TO_MANAGER,  # type: ignore[dict-item]
    "result": RESULT_TO_MANAGER,  # type: ignore[dict-item]
    "client": CLIENT_TO_MANAGER,  # type: ignore[dict-item]
}

ROUTERS = ("task", "client", "result")
"""The doors by which peers speak, in the order in which they are heard."""


class Heard(NamedTuple):
    """What a peer said in one batch; `content` is the second frame of a Data message.

    `size` is that of the first frame, in bytes.
    """

    peer: Peer
    door: str
    messages: list[Message]
    content: bytes | None
    size: int


class WireFacts(Struct, frozen=True):
    """What the wire must know of this manager."""

    epoch: int
    secret_key: bytes


class Wire:
    """All CURVE sockets of the manager and the peers behind them."""

    def __init__(self, context: Context, facts: WireFacts) -> None:
        self.allow = AllowList()
        self.zap = Zap(context, self.allow, self._on_connected)
        self._facts = facts
        self._seldom = Seldom()
        names = (*ROUTERS, "announce")
        self.doors = {n: Door(context, n, facts.secret_key, self._seldom) for n in names}
        self.peers: dict[int, Peer] = {}
        self.worker_count = 0
        """How many of the peers have proven the role of a worker."""
        self._by_key: dict[str, Peer] = {}
        self._by_descriptor: dict[tuple[str, int], Link] = {}
        self._next_number = 1
        self._sender = Sender(facts.epoch, self.doors, self.cut, self._begin_end)
        self._unknown: dict[tuple[str, bytes], int] = {}
        self._ending: dict[int, Peer] = {}
        self._lost: list[Peer] = []
        self._to_cut: list[tuple[float, Peer]] = []
        self._unused: dict[tuple[str, int], tuple[float, Address]] = {}

    # --- peers ---------------------------------------------------------------------------------

    def admit(self, admitted: Admitted) -> None:
        """Take note of a peer that hello has admitted; its key is on the allow-list already."""
        it = admitted.peer
        credential = it.credential_role.encode() + b":" + it.kid
        peer = Peer(
            self._next_number, it.public_key, it.role, credential, it.token_tag, admitted.address
        )
        self._next_number += 1
        self.peers[peer.number] = peer
        self.worker_count += peer.role == "worker"
        self._by_key[it.public_key.hex()] = peer

    def expire(self, now_s: float) -> None:
        """Forget peers that proved a key and opened no session, and cut what must go."""
        for key in self.allow.expire(now_s):
            peer = self._by_key.get(key.hex())
            if peer is not None:
                self._forget(peer)
        while self._to_cut and self._to_cut[0][0] <= now_s:
            self._cut(self._to_cut.pop(0)[1])
        while (due_s := self._unused_until()) is not None and due_s <= now_s:
            name, descriptor = next(iter(self._unused))
            _, address = self._unused.pop((name, descriptor))
            if self.doors[name].open.get(descriptor) == address:
                self.doors[name].cut(descriptor)

    def _unused_until(self) -> float | None:
        return next((until_s for until_s, _ in self._unused.values()), None)

    def deadline(self) -> float | None:
        """When expire() has something to do next."""
        to_cut_s = self._to_cut[0][0] if self._to_cut else None
        times = (to_cut_s, self.allow.deadline(), self._unused_until())
        return min((at_s for at_s in times if at_s is not None), default=None)

    def drop(self, peer: Peer, now_s: float) -> None:
        """Let a peer say nothing more, and cut its links when the last words had time to arrive."""
        if not peer.is_dropped:
            peer.is_dropped = True
            self.allow.revoke(peer.key)
            self._to_cut.append((now_s + DROP_GRACE_S, peer))

    def refuse_for_good(self, peer: Peer, code: str, text: str, now_s: float) -> None:
        """Tell a client why its session ends, and drop it."""
        if not peer.is_dropped:
            LOG.warning("client: %s is dropped: %s", peer.name, text)
            self._sender.put(peer, "client", Refusal(code, text, is_fatal=True))
            self.drop(peer, now_s)

    def has_untaken(self, peer: Peer) -> bool:
        """Tell whether much of what was sent to a client has not arrived at its machine yet."""
        link = peer.links.get("client")
        door = self.doors["client"]
        return link is not None and door.untaken_bytes(link.descriptor) > UNTAKEN_MAX_BYTES

    def cut(self, peer: Peer) -> None:
        """End a peer's links at once; the loss is told like any other."""
        peer.is_dropped = True
        self.allow.revoke(peer.key)
        self._cut(peer)

    def _cut(self, peer: Peer) -> None:
        for link in peer.links.values():
            self.doors[link.door].cut(link.descriptor)
        if not peer.links:
            self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        self.allow.revoke(peer.key)
        if self.peers.pop(peer.number, None) is not None:
            self.worker_count -= peer.role == "worker"
        self._by_key.pop(peer.key.hex(), None)
        self._ending.pop(peer.number, None)
        for link in peer.links.values():
            self._by_descriptor.pop((link.door, link.descriptor), None)
            self._sender.forget(link)
            self.doors[link.door].cut(link.descriptor)
        peer.links.clear()
        # The descriptor may be another peer's by now.
        if peer.announce is not None and self._is_standing(peer.announce):
            del self._by_descriptor["announce", peer.announce.descriptor]
            self.doors["announce"].cut(peer.announce.descriptor)
        peer.announce = None

    def _is_standing(self, link: Link) -> bool:
        return self._by_descriptor.get((link.door, link.descriptor)) is link

    # --- what the monitors tell ----------------------------------------------------------------

    def read_monitor(self, name: str, now_s: float) -> None:
        """Read one door's monitor: strangers are logged, peers that lost a link begin to end."""
        door = self.doors[name]
        door.read_monitor(lambda fd: (name, fd) in self._by_descriptor, now_s)
        for descriptor in door.lost:
            link = self._by_descriptor.get((name, descriptor))
            if link is not None and name == "announce":
                # Only heard of by who sends there: its session goes on, or ends by its other doors.
                del self._by_descriptor[name, descriptor]
            elif link is not None:
                self._begin_end(link.peer)
        door.lost.clear()
        for descriptor in door.accepted:
            self._unused.pop((name, descriptor), None)
            if descriptor in door.open:
                self._unused[name, descriptor] = (now_s + LINK_UNUSED_S, door.open[descriptor])
        door.accepted.clear()

    def _on_connected(self, door: str, address: str) -> None:
        self.doors[door].expect(address)

    def _begin_end(self, peer: Peer) -> None:
        # What it said before it went still lies in the sockets and is heard first.
        if peer.number in self.peers and peer.number not in self._ending:
            self._ending[peer.number] = peer
            peer.ending = set(peer.links)

    @property
    def is_anyone_ending(self) -> bool:
        """Whether a lost peer's last words are still to be read."""
        return bool(self._ending)

    def take_lost(self) -> list[Peer]:
        """Take the peers whose sessions are over since the last call."""
        lost, self._lost = self._lost, []
        return lost

    def _drained(self, name: str) -> None:
        for peer in list(self._ending.values()):
            self._stop_listening(peer, name)

    def _not_drained(self, name: str, now_s: float) -> None:
        for peer in list(self._ending.values()):
            if peer.ending_by_s is None:
                peer.ending_by_s = now_s + LAST_WORDS_MAX_S
            elif peer.ending_by_s <= now_s:
                self._stop_listening(peer, name)

    def _stop_listening(self, peer: Peer, name: str) -> None:
        peer.ending.discard(name)
        if not peer.ending:
            self._forget(peer)
            self._lost.append(peer)

    # --- hearing -------------------------------------------------------------------------------

    def hear(self, name: str, now_s: float) -> Iterator[Heard]:
        """Take what has come in by one door, within the bounds of a turn."""
        it = self.doors[name].socket
        chunks = 0
        for _ in range(BATCHES_PER_TURN):
            try:
                routing = it.recv(zmq.NOBLOCK)
            except zmq.Again:
                if self._ending:
                    self._drained(name)
                return
            frame = it.recv(copy=False)
            more = self._rest_of(it) if frame.more else []
            heard = self._understand(name, routing, frame, more, now_s)
            if heard is not None:
                yield heard
            if more:
                chunks += 1
                if chunks == CHUNKS_PER_TURN:
                    break
        if self._ending:
            self._not_drained(name, now_s)

    @staticmethod
    def _rest_of(it: zmq.Socket[bytes]) -> list[bytes]:
        """Take a message's further frames; of those that nobody may send only that they were."""
        second = it.recv(copy=False)
        has_more = second.more
        while has_more:
            has_more = it.recv(copy=False).more
        return [second.bytes, b""] if second.more else [second.bytes]

    def _understand(
        self,
        name: str,
        routing: bytes,
        frame: zmq.Frame,
        more: list[bytes],
        now_s: float,
    ) -> Heard | None:
        peer = self._by_key.get(str(frame.get("User-Id")))
        if peer is None:
            self._challenge(name, routing, frame)
            return None
        if peer.is_dropped:
            return None
        link = peer.links.get(name)
        if link is None:
            link = self._new_link(peer, name, routing, frame, now_s)
        link.seen += 1
        try:
            header, messages = _DECODERS[name].decode(frame.buffer)
            self._check(link, header)
            content = check_data(messages, more)
        except RemoteProtocolError as error:
            self._on_bad(link, "bad_message", str(error), now_s)
            return None
        allowed = [msg for msg in messages if self._is_allowed(link, msg, now_s)]
        return Heard(peer, name, allowed, content, len(frame)) if allowed else None

    def _new_link(
        self, peer: Peer, name: str, routing: bytes, frame: zmq.Frame, now_s: float
    ) -> Link:
        descriptor = int(frame.get(zmq.SRCFD))
        # Whatever ended on this descriptor before must be known before it is anybody else's.
        self.read_monitor(name, now_s)
        old = self._by_descriptor.get((name, descriptor))
        if old is not None:
            self._begin_end(old.peer)
        link = Link(peer, name, routing, descriptor)
        peer.links[name] = link
        self._by_descriptor[name, descriptor] = link
        self._unused.pop((name, descriptor), None)
        self.allow.use(peer.key)
        if descriptor not in self.doors[name].open:
            self._begin_end(peer)
        self._sender.begin(link)
        return link

    def _check(self, link: Link, header: ToManagerBatch) -> None:
        if header.token_tag != link.peer.token_tag:
            raise RemoteProtocolError("the token is not this session's")
        # Batches that do not decode count too: a peer that is kept must be understood again.
        if header.sequence != link.seen:
            raise RemoteProtocolError(f"batch {header.sequence} came as number {link.seen}")

    def _is_allowed(self, link: Link, message: Message, now_s: float) -> bool:
        why = link.peer.why_not(link, message)
        if why:
            request = getattr(message, "request", 0)
            self._on_bad(link, "not_authorized", why, now_s, request)
            return False
        if type(message) is FIRST_MESSAGE[link.door]:
            link.is_open = True
        return True

    def _on_bad(self, link: Link, code: str, text: str, now_s: float, request: int = 0) -> None:
        """Count a bad message; answer it, or drop a peer that goes on."""
        peer = link.peer
        if peer.is_dropped:
            return
        peer.bad_messages += 1
        if peer.bad_messages == 1:
            LOG.warning("%s: %s: %s", link.door, peer.name, one_line(text))
        is_fatal = peer.bad_messages > BAD_MESSAGES_MAX
        self._sender.put(peer, link.door, Refusal(code, text[:1000], request, is_fatal))
        if is_fatal:
            LOG.warning("%s: %s goes on sending bad messages; dropped", link.door, peer.name)
            self.drop(peer, now_s)

    def _challenge(self, name: str, routing: bytes, frame: zmq.Frame) -> None:
        """Tell a sender without a session to begin again; cut it when it goes on."""
        key = (name, routing)
        self._unknown[key] = self._unknown.get(key, 0) + 1
        if self._unknown[key] > BAD_MESSAGES_MAX:
            del self._unknown[key]
            self.doors[name].cut(int(frame.get(zmq.SRCFD)))
            return
        if len(self._unknown) > 10_000:
            self._unknown.pop(next(iter(self._unknown)))
        self._sender.challenge(name, routing, self._unknown.get(key, 1))

    # --- saying --------------------------------------------------------------------------------

    def send(self, peer: Peer, message: Message, after: int = 0) -> None:
        """Put a message in line for a peer; it leaves at the end of a turn, once it may."""
        door = "client" if peer.kind == "client" else DOOR_OF_WORKER_MESSAGE[type(message)]
        self._sender.put(peer, door, message, after)

    def send_content(self, peer: Peer, message: Data, content: bytes) -> None:
        """Put a piece of a file in line for a peer, behind all control."""
        self._sender.put_content(
            peer, "client" if peer.kind == "client" else "result", message, content
        )

    def announce(self, announcements: Sequence[Announcement]) -> None:
        """Tell everybody who listens on announce."""
        self._sender.announce(announcements)

    def flush(self, committed: int, now_s: float) -> float | None:
        """Send all that may go; give the time at which held-back progress wants to go."""
        return self._sender.flush(committed, now_s)

    @property
    def has_to_send(self) -> bool:
        """Whether anything waits for a commit or for its turn on a standing link."""
        return self._sender.has_to_send

    def hear_subscriptions(self, now_s: float) -> None:
        """Take subscriptions to the one topic; ignore all others."""
        it = self.doors["announce"].socket
        for _ in range(BATCHES_PER_TURN):
            try:
                frame = it.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            if frame.bytes == b"\x01" + ANNOUNCE_TOPIC:
                it.setsockopt(zmq.SUBSCRIBE, ANNOUNCE_TOPIC)
                self._note_listener(frame, now_s)

    def _note_listener(self, frame: zmq.Frame, now_s: float) -> None:
        """Remember whose link this is, to cut it when the session ends."""
        descriptor = int(frame.get(zmq.SRCFD))
        self.read_monitor("announce", now_s)
        door = self.doors["announce"]
        peer = self._by_key.get(str(frame.get("User-Id")))
        if peer is None:
            door.cut(descriptor)
        elif descriptor in door.open:
            peer.announce = Link(peer, "announce", b"", descriptor)
            self._by_descriptor["announce", descriptor] = peer.announce
            self._unused.pop(("announce", descriptor), None)

    def close(self) -> None:
        """Close all doors, then the ZAP handler."""
        for door in self.doors.values():
            door.close()
        self.zap.answer_all()
        self.zap.close()
