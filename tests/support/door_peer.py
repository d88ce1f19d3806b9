"""A peer that speaks to a manager's doors by hand: for tests of the doors themselves."""

import os
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import zmq
from support.processes import Manager

from wqueue.protocol import codec
from wqueue.protocol.credentials import read_credential
from wqueue.protocol.link import Link, Proven, dial
from wqueue.protocol.messages import Attach, Open, Opened, Register, Registered
from wqueue.protocol.resources import Resources

_DECODERS: dict[str, Any] = {
    "task": codec.TASK_FROM_MANAGER,
    "result": codec.RESULT_FROM_MANAGER,
    "client": codec.CLIENT_FROM_MANAGER,
}


class DoorPeer:
    """One proven peer with links to the doors it opens."""

    def __init__(self, manager: Manager, role: str = "owner", secret: str = "password") -> None:
        credential = read_credential(manager.state_dir / secret)
        self.proven: Proven = dial("127.0.0.1", manager.port, credential, role=role)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.links: dict[str, Link[Any]] = {}
        self.heard: list[Any] = []

    def __enter__(self) -> "DoorPeer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for link in self.links.values():
            link.close()
        self.context.destroy(linger=0)

    def connect(self, door: str, is_awaited: bool = True) -> Link[Any]:
        """Open a door and wait until the link stands."""
        endpoint = self.proven.endpoints[door]
        link: Link[Any] = Link(self.context, endpoint, self.proven, _DECODERS[door])
        self.links[door] = link
        if is_awaited:
            self.wait(lambda: link.state != "connecting", f"the door {door}")
            assert link.state == "up", link.reason
        return link

    def wait(self, condition: Callable[[], Any], what: str, timeout_s: float = 20.0) -> Any:
        """Listen on all links until `condition` gives something true, and give that."""
        ends = time.monotonic() + timeout_s
        while not (value := condition()):
            assert time.monotonic() < ends, f"{what} did not come; heard {self.heard}"
            poller = zmq.Poller()
            for link in self.links.values():
                if link.state != "lost":
                    poller.register(link.socket, zmq.POLLIN)
                    poller.register(link.monitor, zmq.POLLIN)
            poller.poll(50)
            self._read()
        return value

    def _read(self) -> None:
        for link in self.links.values():
            if link.state == "lost":
                continue
            for _, messages, content in link.receive():
                self.heard += [(m, content) if content is not None else m for m in messages]
            link.read_monitor()

    def wait_for(self, kind: type, timeout_s: float = 20.0) -> Any:
        """Wait for a message of this kind, take it out of `heard` and give it."""

        def first() -> Any:
            return next((m for m in self.heard if isinstance(m, kind)), None)

        found = self.wait(first, f"a {kind.__name__}", timeout_s)
        self.heard.remove(found)
        return found

    def wait_until_lost(self, door: str, timeout_s: float = 20.0) -> None:
        """Wait until the manager has closed the link to this door."""
        self.wait(lambda: self.links[door].state == "lost", f"the end of {door}", timeout_s)

    def send(self, door: str, *messages: Any) -> None:
        """Send messages in one batch."""
        self.links[door].send(messages)

    def send_frames(self, door: str, frames: Sequence[bytes]) -> None:
        """Send bytes as they are."""
        self.links[door].socket.send_multipart(list(frames))

    def open(self) -> Opened:
        """Open the client door and introduce ourselves."""
        self.connect("client")
        self.send("client", Open(os.urandom(32), 1, "here", os.getpid(), "test", "", os.getuid()))
        opened: Opened = self.wait_for(Opened)
        return opened

    def register(self, **fields: Any) -> Registered:
        """Open the task door and register as a worker of one core; then attach a result link."""
        self.connect("task")
        self.send(
            "task", Register(os.urandom(32), 1, Resources(1000), "here", os.getpid(), **fields)
        )
        registered: Registered = self.wait_for(Registered)
        self.connect("result")
        self.send("result", Attach(1))
        return registered
