"""A peer as the wire sees it: its proven key, its links, what it may say. Pure.

A peer lives from its proof on hello to the loss of any of its links: one session, one set of TCP
connections. Its number is what the core calls a worker's session or a client.
"""

from wqueue.manager.outgoing import Outgoing
from wqueue.protocol import messages as m
from wqueue.protocol.codec import Message

DOOR_OF_WORKER_MESSAGE: dict[type, str] = {
    **dict.fromkeys((m.ResultAck, m.Get, m.Data, m.GetFailed), "result"),
    **dict.fromkeys(
        (
            m.Registered, m.Describe, m.Forget, m.Dispatch, m.Cancel, m.TakeBack, m.Leave,
            m.Reattach, m.Refusal,
        ),
        "task",
    ),
}  # fmt: skip
"""The door by which a message reaches a worker."""

FIRST_MESSAGE: dict[str, type] = {"task": m.Register, "result": m.Attach, "client": m.Open}
"""What a peer says first on a door, and never again."""

_FOR_WORKERS = frozenset({"owner", "worker"})
_FOR_CLIENTS = frozenset({"owner", "client"})
_FOR_READERS = frozenset({"owner", "client", "observer"})

ROLES_THAT_MAY: dict[str, dict[type, frozenset[str]]] = {
    "task": dict.fromkeys(
        (m.Register, m.WorkerHeartbeat, m.Started, m.Returned, m.Bye), _FOR_WORKERS
    ),
    "result": dict.fromkeys((m.Attach, m.Result, m.Get, m.Data, m.GetFailed), _FOR_WORKERS),
    "client": {
        **dict.fromkeys((m.Open, m.Watch, m.GetResults, m.Query), _FOR_READERS),
        **dict.fromkeys(
            (m.Declare, m.Submit, m.CancelTasks, m.Get, m.Data, m.GetFailed), _FOR_CLIENTS
        ),
        m.Control: frozenset({"owner"}),
    },
}
"""Who may say what, by door: the one table of roles."""


class Link:
    """One connection of a peer: its address on the door's ROUTER and both ends' counts."""

    __slots__ = ("descriptor", "door", "flushed_s", "is_open", "peer", "routing", "seen", "sent")

    def __init__(self, peer: "Peer", door: str, routing: bytes, descriptor: int) -> None:
        self.peer = peer
        self.door = door
        self.routing = routing
        self.descriptor = descriptor
        self.is_open = False
        self.seen = 0
        self.sent = 0
        self.flushed_s = 0.0


class Peer:
    """One proven peer. `session` is the number it gives its connections by itself."""

    __slots__ = (
        "address", "announce", "bad_messages", "credential", "ending", "ending_by_s",
        "is_dropped", "is_trusted", "key", "kind", "links", "name", "number", "outgoing", "role",
        "session", "token_tag",
    )  # fmt: skip

    def __init__(
        self, number: int, key: bytes, role: str, credential: bytes, token_tag: bytes, address: str
    ) -> None:
        self.number = number
        self.key = key
        self.role = role
        self.credential = credential
        self.token_tag = token_tag
        self.address = address
        self.kind = ""
        self.name = f"{role} at {address}"
        self.session = 0
        self.links: dict[str, Link] = {}
        self.announce: Link | None = None
        """Its link on announce, which it listens by and never speaks."""
        self.outgoing: dict[str, Outgoing] = {}
        self.bad_messages = 0
        self.is_dropped = False
        self.is_trusted = False
        self.ending: set[str] = set()
        """Doors still to be drained before the loss of a link is told."""
        self.ending_by_s: float | None = None
        """When a door that is never empty is waited for no longer."""

    def why_not(self, link: Link, message: Message) -> str:
        """Say why this message is not allowed here and now; an empty string when it is."""
        kind = type(message)
        roles = ROLES_THAT_MAY[link.door].get(kind)
        if roles is None or self.role not in roles:
            return f"a credential for {self.role} may not send {kind.__name__} here"
        is_first = kind is FIRST_MESSAGE[link.door]
        if is_first == link.is_open:
            word = "again" if is_first else f"before {FIRST_MESSAGE[link.door].__name__}"
            return f"{kind.__name__} came {word}"
        if is_first and kind is not m.Attach and self.kind:
            return f"{kind.__name__} came in a session that is a {self.kind}'s"
        if kind is m.Attach and self.kind != "worker":
            return "Attach came before Register"
        return ""
