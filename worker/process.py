"""The worker's handle on its spawner process."""

from collections.abc import Iterable

from wqueue.worker.orders import Kill, Report, Start


class Spawner:
    """Starts tasks, learns how they end, and survives the loss of the process that does it.

    For use by one thread, the loop's. None of the methods blocks for longer than a moment. Every
    Start that was sent is answered by one Ended (see orders.py), also when the spawner process is
    killed or hangs: then it is replaced, running tasks are adopted and watched by this handle
    itself, those not yet begun are given to the new process, and only the one it hung on fails.
    """

    def __init__(self, workdir: bytes) -> None: ...

    def start(self) -> None:
        """Become child subreaper and start the spawner process."""

    def fileno(self) -> int:
        """Give one descriptor (an epoll) that is readable when receive() has something to do."""
        raise NotImplementedError

    def send(self, orders: Iterable[Start | Kill]) -> None:
        """Pass orders on, as one batch. Never blocks: what does not fit now goes later."""

    def receive(self) -> list[Report]:
        """Give the reports that have come, in order: Running and Ended only.

        Also does what is due: sends what waited, watches adopted tasks. Call it when fileno() is
        readable and at the time that deadline() tells.
        """
        raise NotImplementedError

    def deadline(self) -> float | None:
        """Give the monotonic time at which receive() wants to be called even without news."""
        raise NotImplementedError

    def stop(self) -> None:
        """End the spawner, all tasks and every child that is left; takes a second at most."""
