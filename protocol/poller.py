"""Waiting for ZeroMQ sockets and plain descriptors at once, without asking each of them each time.

zmq_poll asks every socket before and after it sleeps, two system calls each: with a manager's ten
sockets that was most of what a turn of its loop cost. Here one epoll sleeps on all descriptors, and
only those sockets are asked that can have something: the ones whose descriptor fired, the ones that
had something last time and may have more, and the ones that are also sent on, because a send may
swallow the sign that something arrived.
"""

import select

import zmq

# Plain numbers: operators on the library's enumerations cost microseconds, many times a turn.
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)


class Poller:
    """One epoll over sockets and descriptors, for input only. Not thread-safe."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sources: dict[int, zmq.Socket[bytes] | int] = {}
        self._descriptors: dict[zmq.Socket[bytes], int] = {}
        self._sent_on: dict[zmq.Socket[bytes], None] = {}
        self._unsure: dict[zmq.Socket[bytes], None] = {}

    def register(self, source: "zmq.Socket[bytes] | int", *, is_sent_on: bool = False) -> None:
        """Watch a socket or descriptor; `is_sent_on` for sockets that messages are also sent on."""
        descriptor = source if isinstance(source, int) else source.fileno()
        self._epoll.register(descriptor, select.EPOLLIN)
        self._sources[descriptor] = source
        if not isinstance(source, int):
            self._descriptors[source] = descriptor
            # What arrived before is asked for once: its sign may have been taken already.
            self._unsure[source] = None
            if is_sent_on:
                self._sent_on[source] = None

    def unregister(self, source: "zmq.Socket[bytes] | int") -> None:
        """Watch a source no more; to be called before it is closed."""
        if isinstance(source, int):
            descriptor = source
        else:
            descriptor = self._descriptors.pop(source)
            self._sent_on.pop(source, None)
            self._unsure.pop(source, None)
        del self._sources[descriptor]
        self._epoll.unregister(descriptor)

    def poll(self, timeout_ms: int | None = None) -> "list[zmq.Socket[bytes] | int]":
        """Give the sources with something to read, waiting at most `timeout_ms` (None: for ever).

        May come back early with nothing: a socket's own housekeeping wakes it too.
        """
        unsure, self._unsure = self._unsure | self._sent_on, {}
        ready = [source for source in unsure if _has_input(source)]
        wait_s = 0.0 if ready else -1.0 if timeout_ms is None else timeout_ms / 1000.0
        found: dict[zmq.Socket[bytes] | int, None] = dict.fromkeys(ready)
        for descriptor, _ in self._epoll.poll(wait_s):
            source = self._sources.get(descriptor)
            if source is None or source in found:
                continue
            if isinstance(source, int) or _has_input(source):
                found[source] = None
        self._unsure = {source: None for source in found if not isinstance(source, int)}
        return list(found)

    def close(self) -> None:
        """Close the epoll; the sources stay open."""
        self._epoll.close()


def _has_input(source: "zmq.Socket[bytes]") -> bool:
    events = source.getsockopt(_EVENTS)
    assert isinstance(events, int), events
    return bool(events & _POLLIN)
