"""What the loop waits for: sockets and descriptors, each with what to do when it has something."""

from collections.abc import Callable
from typing import Any

import zmq

from wqueue.protocol.poller import Poller


class Poll:
    """A Poller that knows whom to call."""

    def __init__(self) -> None:
        self._poller = Poller()
        self._handlers: dict[Any, Callable[[], None]] = {}

    def watch(self, source: "zmq.Socket[bytes] | int", handler: Callable[[], None]) -> None:
        """Call `handler` whenever `source` can be read."""
        self._poller.register(source, is_sent_on=not isinstance(source, int))
        self._handlers[source] = handler

    def forget(self, source: "zmq.Socket[bytes] | int") -> None:
        """Watch `source` no more."""
        if self._handlers.pop(source, None) is not None:
            self._poller.unregister(source)

    def serve(self, timeout_s: float | None) -> None:
        """Wait until something can be read, at most `timeout_s`, and call whom it concerns."""
        # Rounded up: a wait that ends a moment too early would be followed by one of no time.
        timeout_ms = None if timeout_s is None else max(0, int(timeout_s * 1000.0 + 0.999))
        for source in self._poller.poll(timeout_ms):
            # One handler may have closed what another one is for.
            handler = self._handlers.get(source)
            if handler is not None:
                handler()
