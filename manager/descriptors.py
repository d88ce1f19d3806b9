"""How many workers this process has descriptors for, computed once at start (wire 1.13)."""

import resource

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


def raise_descriptors() -> int:
    """Raise this process's soft limit of open files to the hard one and give it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = 1_048_576
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def divide(descriptors: int) -> Limits:
    """Share descriptors out; where there are few, every part shrinks, workers last."""
    spare = min(SPARE_DESCRIPTORS, descriptors // 4)
    hellos = min(HELLO_OPEN_MAX, descriptors // 8)
    clients = min(CLIENT_DESCRIPTORS, descriptors // 8)
    workers = (descriptors - spare - hellos - clients) // WORKER_DESCRIPTORS
    return Limits(descriptors, hellos, clients // 2, workers)
