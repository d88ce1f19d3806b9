"""How many workers this process has descriptors for, computed once at start (wire 1.13)."""

from msgspec import Struct

from wqueue.manager.limits import (
    CLIENT_DESCRIPTORS,
    HELLO_OPEN_MAX,
    SPARE_DESCRIPTORS,
    WORKER_DESCRIPTORS,
)


class Limits(Struct, frozen=True):
    """What the descriptors are divided into."""

    descriptors: int
    hellos: int
    clients: int
    workers: int

    def sentence(self) -> str:
        """Say what this process has room for."""
        room = f"{self.workers} workers and {self.clients} clients"
        return f"{self.descriptors} descriptors, so up to {room}"


def divide(descriptors: int) -> Limits:
    """Share descriptors out; where there are few, every part shrinks, workers last."""
    spare = min(SPARE_DESCRIPTORS, descriptors // 4)
    hellos = min(HELLO_OPEN_MAX, descriptors // 8)
    clients = min(CLIENT_DESCRIPTORS, descriptors // 8)
    workers = (descriptors - spare - hellos - clients) // WORKER_DESCRIPTORS
    return Limits(descriptors, hellos, clients // 2, workers)
