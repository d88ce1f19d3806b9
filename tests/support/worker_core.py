"""A worker's core under test: one event at a time, whole lists of effects, check() after each."""

from typing import TypeVar

from wqueue.protocol.attempts import pack_attempt
from wqueue.protocol.messages import (
    Announcement,
    Assignment,
    Describe,
    Dispatch,
    FileRef,
    InputSpec,
    OutputSpec,
    Registered,
    ResultFromManager,
    TaskFromManager,
    TaskTemplate,
)
from wqueue.protocol.resources import Resources
from wqueue.worker.core.core import Core
from wqueue.worker.core.events import (
    Began,
    Connect,
    Connected,
    Effect,
    Ended,
    Event,
    Heard,
    Reported,
    Restored,
    ResultsOpened,
)
from wqueue.worker.core.settings import Settings

E = TypeVar("E")

UID = b"J" * 16


def attempt_id(index: int, number: int = 1, uid: bytes = UID) -> bytes:
    return pack_attempt(uid, index, 1, number)


def file_ref(content: str, size: int = 10, mode: int = 0o644) -> FileRef:
    return FileRef(content.encode().ljust(32, b"."), size, mode)


def one_job(
    *command: bytes,
    cores: float = 1.0,
    memory_mb: int = 0,
    gpus: int = 0,
    files: tuple[str, ...] = (),
    outputs: tuple[bytes, ...] = (),
    uid: bytes = UID,
    is_shell: bool = False,
    is_array: bool = False,
    env: tuple[tuple[bytes, bytes], ...] = (),
) -> Describe:
    template = TaskTemplate(
        list(command or (b"true",)),
        is_shell,
        is_array,
        list(env),
        Resources(int(cores * 1000), memory_mb, 0, gpus),
        [InputSpec(name.encode(), i) for i, name in enumerate(files)],
        [OutputSpec(name) for name in outputs],
    )
    return Describe(uid, 7, template, [file_ref(name) for name in files])


def dispatch(*indexes: int, uid: bytes = UID) -> Dispatch:
    return Dispatch([Assignment(attempt_id(i, uid=uid), b"v%d" % i) for i in indexes])


class Bench:
    """A core and the time it is told."""

    def __init__(self, now_s: float = 100.0, **settings: object) -> None:
        defaults: dict[str, object] = {
            "resume_secret": b"R" * 32,
            "resources": Resources(2000, 1000, 1000),
            "kill_grace_s": 5.0,
        }
        self.now_s = now_s
        self.core = Core(Settings(**(defaults | settings)), now_s)  # type: ignore[arg-type]
        self.sequences = {"task": 0, "result": 0, "announce": 0}

    @property
    def session(self) -> int:
        return self.core.statistics().session

    def feed(self, event: Event) -> list[Effect]:
        effects = self.core.handle(event, self.now_s)
        self.core.check()
        return effects

    def hear(
        self, *messages: TaskFromManager | ResultFromManager | Announcement, door: str = "task"
    ) -> list[Effect]:
        self.sequences[door] += 1
        return self.feed(Heard(self.session, door, self.sequences[door], list(messages)))

    def connect(self, epoch: int = 1) -> list[Effect]:
        self.sequences = dict.fromkeys(self.sequences, 0)
        return self.feed(Connected(self.session, epoch, "HOST:9123"))

    def register(
        self, *, unwanted: tuple[bytes, ...] = (), grace_s: float | None = None
    ) -> list[Effect]:
        return self.hear(Registered(3, 5.0, 30.0, [], list(unwanted), grace_s))

    def run(self, *ids: bytes) -> list[Effect]:
        return self.feed(Reported([Began(i) for i in ids]))

    def end(self, *ids: bytes, **facts: object) -> list[Effect]:
        facts = {"how": "exited", "exit_code": 0} | facts
        reports: list[Began | Ended] = [Ended(i, **facts) for i in ids]  # type: ignore[arg-type]
        return self.feed(Reported(reports))


def live_bench(**settings: object) -> Bench:
    """Give a core that is registered and has its result link."""
    bench = Bench(**settings)  # type: ignore[arg-type]
    assert bench.feed(Restored()) == [Connect(1, 0.0, 0.0)]
    bench.connect()
    bench.register()
    bench.feed(ResultsOpened(bench.session))
    return bench


def only(kind: type[E], effects: list[Effect]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]
