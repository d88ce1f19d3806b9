"""Who may connect to which door: the allow-list of proven keys, and the ZAP handler that asks it.

libzmq asks at every new CURVE connection and never again, so forgetting a key keeps its owner out
but does not cut a link that stands (wire 1.4). Only 200 and 400 are ever answered: 300 would make
the peer try for ever (wire 1.2). The answer's User-Id is the key in hex, since pyzmq decodes it as
UTF-8 (wire 7.6).
"""

from collections import OrderedDict
from collections.abc import Callable

import zmq

from wqueue.manager.limits import KEYS_SEEN_MAX, PROOF_UNUSED_S

ENDPOINT = "inproc://zeromq.zap.01"

DOORS_BY_ROLE = {
    "owner": frozenset({"task", "result", "announce", "client"}),
    "worker": frozenset({"task", "result", "announce"}),
    "client": frozenset({"client", "announce"}),
    "observer": frozenset({"client"}),
}
"""Which doors a role opens; hello is open to all. The ZAP domain of a door is its name."""


class _Entry:
    __slots__ = ("connected", "is_used", "proved_s", "role")

    def __init__(self, role: str, proved_s: float) -> None:
        self.role = role
        self.proved_s = proved_s
        self.is_used = False
        self.connected: set[str] = set()


class AllowList:
    """The keys that were proven on hello. Pure."""

    def __init__(self) -> None:
        self._entries: dict[bytes, _Entry] = {}
        self._unused: OrderedDict[bytes, float] = OrderedDict()
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        """Tell whether this key was proven before: every session needs a fresh one."""
        return key in self._seen or key in self._entries

    def admit(self, key: bytes, role: str, now_s: float) -> None:
        """Let a proven key through the doors of its role, once each."""
        assert key not in self, "a key is proven once"
        assert role in DOORS_BY_ROLE, role
        self._entries[key] = _Entry(role, now_s)
        self._unused[key] = now_s
        self._seen[key] = None
        if len(self._seen) > KEYS_SEEN_MAX:
            self._seen.popitem(last=False)

    def may_connect(self, door: str, key: bytes) -> bool:
        """Tell whether this key may open `door` now; a second link on one door is refused."""
        entry = self._entries.get(key)
        if entry is None or door not in DOORS_BY_ROLE[entry.role] or door in entry.connected:
            return False
        entry.connected.add(door)
        return True

    def use(self, key: bytes) -> None:
        """Keep the key as long as its session, since it has one now."""
        self._unused.pop(key, None)

    def revoke(self, key: bytes) -> None:
        """Forget a key; its owner must prove a new one."""
        self._entries.pop(key, None)
        self._unused.pop(key, None)

    def expire(self, now_s: float) -> list[bytes]:
        """Forget the keys that opened no session in time, and give them."""
        late = []
        for key, proved_s in self._unused.items():
            if now_s - proved_s < PROOF_UNUSED_S:
                break
            late.append(key)
        for key in late:
            self.revoke(key)
        return late

    def deadline(self) -> float | None:
        """When expire() has something to do next."""
        for proved_s in self._unused.values():
            return proved_s + PROOF_UNUSED_S
        return None


class Zap:
    """The ZAP handler: a ROUTER in the manager's own poll loop, bound before any CURVE door."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        allow: AllowList,
        on_connected: Callable[[str, str], None],
    ) -> None:
        """Bind the handler; `on_connected` hears door and address of each key that is let in."""
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.bind(ENDPOINT)
        self._allow = allow
        self._on_connected = on_connected

    def answer_all(self) -> None:
        """Answer every question that waits."""
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.socket.send_multipart(self._answer(frames))

    def _answer(self, frames: list[bytes]) -> list[bytes]:
        sender, empty, version, request, domain, address, _identity, mechanism, *keys = frames
        head = [sender, empty, b"1.0", request]
        is_well_formed = version == b"1.0" and mechanism == b"CURVE" and len(keys) == 1
        door = domain.decode("ascii", "replace")
        if is_well_formed and self._allow.may_connect(door, keys[0]):
            self._on_connected(door, address.decode("ascii", "replace"))
            return [*head, b"200", b"OK", keys[0].hex().encode(), b""]
        return [*head, b"400", b"prove first", b"", b""]

    def close(self) -> None:
        """Close the handler; only after every CURVE socket (wire 1.10)."""
        self.socket.close(linger=0)
