"""A real spawner for tests, and waiting for what it reports."""

import select
import time
from collections.abc import Callable
from pathlib import Path

from wqueue.worker.orders import Ended, Kill, Report, Running, Start
from wqueue.worker.process import Spawner
from wqueue.worker.workdir import Workdir

PATIENCE_S = 60.0


class Bench:
    """A spawner with its workdir, and what it has reported so far."""

    def __init__(self, workdir: Workdir, answer_max_s: float = 30.0) -> None:
        self.workdir = workdir
        self.spawner = Spawner(bytes(workdir.path), answer_max_s)
        self.spawner.start()
        self.running: dict[bytes, int] = {}
        self.ended: dict[bytes, Ended] = {}
        self._count = 0
        self._poll = select.poll()
        self._poll.register(self.spawner.fileno(), select.POLLIN)

    def order(self, *command: str | bytes, **more: object) -> Start:
        self._count += 1
        attempt = b"%036d" % self._count
        words = [word.encode() if isinstance(word, str) else word for word in command]
        return Start(attempt, self.workdir.sandbox(attempt), words, **more)  # type: ignore[arg-type]

    def shell(self, line: str, **more: object) -> Start:
        return self.order(line, is_shell=True, **more)

    def begin(self, start: Start) -> bytes:
        self.spawner.send([start])
        self.wait_until(lambda: start.attempt in self.running or start.attempt in self.ended)
        return start.attempt

    def run(self, start: Start) -> Ended:
        self.spawner.send([start])
        return self.wait(start.attempt)

    def kill(self, attempt: bytes, grace_s: float = 0.0) -> Ended:
        self.spawner.send([Kill(attempt, grace_s)])
        return self.wait(attempt)

    def wait(self, attempt: bytes) -> Ended:
        self.wait_until(lambda: attempt in self.ended)
        return self.ended[attempt]

    def wait_until(self, is_true: Callable[[], bool]) -> None:
        limit = time.monotonic() + PATIENCE_S
        while not is_true():
            assert time.monotonic() < limit, "it did not happen"
            due = self.spawner.deadline()
            # What a test looks at may also be a file, so look again soon.
            self._poll.poll(min(50.0, max(0.0, (due or limit) - time.monotonic()) * 1000))
            for report in self.spawner.receive():
                self._take(report)

    def _take(self, report: Report) -> None:
        if isinstance(report, Running):
            assert report.attempt not in self.running, "reported running twice"
            assert report.attempt not in self.ended, "running after its end"
            self.running[report.attempt] = report.pid
        elif isinstance(report, Ended):
            assert report.attempt not in self.ended, "reported ended twice"
            self.ended[report.attempt] = report


def processes_with(text: bytes) -> list[int]:
    """Find processes whose command line holds `text`, zombies left out."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if text in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found
