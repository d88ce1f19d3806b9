"""A manager's core on the bench: events in, every effect taken out, nothing left over."""

from collections.abc import Callable
from typing import TypeVar

from wqueue.manager.core.core import Core
from wqueue.manager.core.events import (
    ClientHeard,
    Effect,
    Event,
    JobSubmitted,
    Now,
    Reply,
    Restored,
    Send,
    WorkerHeard,
    WorkerRegistered,
)
from wqueue.manager.core.limits import Settings
from wqueue.protocol.codec import encode_spec
from wqueue.protocol.messages import (
    AttemptResult,
    ClientToManager,
    Dispatch,
    FromWorker,
    HeldAttempt,
    JobSpec,
    OutputResult,
    Register,
    Result,
    ResultAck,
    TaskTemplate,
    Usage,
)
from wqueue.protocol.outcomes import SUCCEEDED
from wqueue.protocol.resources import Resources

T = TypeVar("T")

CLIENT = 9
WALL_S = 1.7e9
EMPTY = Restored(
    epoch=1, next_job=1, next_worker=1, jobs=[], attempts=[], publishing=[], workers=[]
)


def array_of(count: int, **changes: object) -> JobSpec:
    """Make the description of an array of `count` tasks; `changes` are fields."""
    names = TaskTemplate.__struct_fields__
    of_template = {name: value for name, value in changes.items() if name in names}
    of_job = {name: value for name, value in changes.items() if name not in names}
    template = TaskTemplate([b"work", b"{}"], is_array=True, **of_template)  # type: ignore[arg-type]
    return JobSpec(template, count=count, **of_job)  # type: ignore[arg-type]


class Bench:
    """Feeds one core and checks its invariants after each event."""

    def __init__(self, restored: Restored = EMPTY, settings: Settings | None = None) -> None:
        self.core = Core(settings or Settings())
        self.now_s = 100.0
        self.effects: list[Effect] = []
        self._submissions = 0
        self.feed(restored)

    def feed(self, event: Event, later_s: float = 0.001) -> list[Effect]:
        """Feed one event after `later_s`; the effects are also kept in `effects`."""
        self.now_s += later_s
        self.effects = self.core.handle(event, Now(self.now_s, WALL_S + self.now_s))
        self.core.check()
        return self.effects

    def submit(self, spec: JobSpec, submission: bytes = b"", client: int = CLIENT) -> int:
        """Submit and watch a job; give its number."""
        self._submissions += 1
        name = submission or self._submissions.to_bytes(16, "big")
        event = JobSubmitted(
            client, b"owner", self._submissions, name, spec, encode_spec(spec), True, watch=True
        )
        self.feed(event)
        return self.core.state.submissions[b"owner", name][0]

    def join(
        self,
        session: int,
        cores: int = 1,
        inventory: list[HeldAttempt] | None = None,
        name: bytes = b"",
        features: list[str] | None = None,
    ) -> list[bytes]:
        """Let a worker register; give the attempts it is handed at once."""
        worker_id = name or session.to_bytes(16, "big")
        register = Register(
            bytes(32),
            session,
            Resources(cores * 1000),
            f"host{session}",
            1,
            features=features or [],
            inventory=inventory or [],
        )
        self.feed(WorkerRegistered(session, worker_id, f"tcp://w{session}", register))
        return self.dispatched(session)

    def hear(self, session: int, message: FromWorker) -> list[Effect]:
        """Let a worker say something."""
        return self.feed(WorkerHeard(session, message))

    def ask(self, message: ClientToManager) -> list[Effect]:
        """Let the client ask for something."""
        return self.feed(ClientHeard(CLIENT, "owner", b"owner", message))

    def finish(
        self,
        session: int,
        attempt: bytes,
        outcome: str = SUCCEEDED,
        outputs: list[OutputResult] | None = None,
        wall_s: float = 1.0,
    ) -> list[Effect]:
        """Let a worker report one result."""
        exit_code = 0 if outcome == SUCCEEDED else 1
        result = AttemptResult(
            attempt, outcome, exit_code, usage=Usage(wall_s), outputs=outputs or []
        )
        return self.hear(session, Result([result]))

    # --- looking at effects -----------------------------------------------------------------

    def all(self, kind: type[T]) -> list[T]:
        """Give the effects of one kind."""
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def one(self, kind: type[T]) -> T:
        """Give the only effect of one kind."""
        found = self.all(kind)
        assert len(found) == 1, f"{len(found)} effects are {kind.__name__}: {self.effects}"
        return found[0]

    def sent(self, session: int, kind: type[T]) -> list[T]:
        """Give the messages of one kind sent to a worker by the last event."""
        messages = [send.message for send in self.all(Send) if send.session == session]
        return [message for message in messages if isinstance(message, kind)]

    def replied(self, kind: type[T]) -> list[T]:
        """Give the messages of one kind sent to clients by the last event."""
        return [r.message for r in self.all(Reply) if isinstance(r.message, kind)]

    def dispatched(self, session: int) -> list[bytes]:
        """Give the attempts that the last event dispatched to a worker."""
        return [a.attempt for d in self.sent(session, Dispatch) for a in d.assignments]

    def acknowledged(self, session: int) -> dict[bytes, str]:
        """Give the attempts that the last event acknowledged, with the verdict."""
        return {a: ack.verdict for ack in self.sent(session, ResultAck) for a in ack.attempts}

    def kinds(self, is_wanted: Callable[[Effect], bool] = lambda _: True) -> list[str]:
        """Give the names of the last event's effects, messages by their own."""
        names = []
        for effect in filter(is_wanted, self.effects):
            inner = getattr(effect, "message", effect)
            names.append(type(inner).__name__)
        return names
