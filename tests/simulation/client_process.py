"""A client that submits, watches, cancels and collects, and survives what the others do."""

from collections.abc import Callable
from hashlib import sha256

from simulation.checks import Checks
from simulation.faults import Faults
from simulation.manager_process import ManagerProcess
from simulation.network import Link
from simulation.schedule import Schedule
from wqueue.protocol.codec import encode_spec
from wqueue.protocol.messages import (
    CancelTasks,
    ClientToManager,
    Done,
    GetResults,
    JobRange,
    JobSpec,
    Progress,
    Refusal,
    Results,
    Submit,
    Submitted,
    Watch,
)

ASK_AGAIN_S = 2.0


class Wanted:
    """One job the client wants done, and how far it is."""

    def __init__(self, number: int, spec: JobSpec) -> None:
        self.submission = sha256(f"submission {number}".encode()).digest()[:16]
        self.spec = spec
        self.job = 0
        self.cursor = 0
        self.got: dict[int, str] = {}
        self.canceled = 0
        self.cancel: JobRange | None = None
        self.is_ended = False
        self.is_asking = False


class ClientProcess:
    """Sends again what was not answered whenever it has a new link."""

    def __init__(
        self,
        specs: list[JobSpec],
        schedule: Schedule,
        faults: Faults,
        checks: Checks,
        find_manager: Callable[[], ManagerProcess | None],
    ) -> None:
        self._schedule = schedule
        self._faults = faults
        self._checks = checks
        self._find_manager = find_manager
        self.wanted = [Wanted(number, spec) for number, spec in enumerate(specs)]
        self._link: Link | None = None
        self._manager: ManagerProcess | None = None
        self._connection = 0
        self._requests: dict[int, Wanted] = {}
        self._asked = 0
        self._connect()

    @property
    def is_done(self) -> bool:
        """Tell whether every job has ended and every result was collected."""
        return all(
            wanted.is_ended and len(wanted.got) + wanted.canceled == wanted.spec.count
            for wanted in self.wanted
        )

    def cancel_later(self, wanted: Wanted, tasks: JobRange, at_s: float) -> None:
        """Cancel some tasks of a job after `at_s`, if the job is known by then."""

        def cancel() -> None:
            if wanted.job:
                wanted.cancel = JobRange(wanted.job, tasks.first, tasks.last)
                self._ask(wanted, lambda n: CancelTasks(n, [wanted.cancel or tasks]))

        self._schedule.after(at_s, cancel)

    def _connect(self) -> None:
        manager = self._find_manager()
        if manager is None:
            self._schedule.soon(self._connect, 1.0)
            return
        link = Link(self._schedule, self._faults)
        self._link = link
        self._manager = manager
        self._connection = manager.connect_client(link, self._hear)
        link.when_lost(lambda: self._schedule.soon(self._connect, 1.0))
        self._requests.clear()
        for wanted in self.wanted:
            wanted.is_asking = False
            if not wanted.job:
                self._submit(wanted)
            else:
                self._watch(wanted)
            if wanted.cancel is not None:
                tasks = wanted.cancel
                self._ask(wanted, lambda n, tasks=tasks: CancelTasks(n, [tasks]))  # type: ignore[misc]

    def _submit(self, wanted: Wanted) -> None:
        spec = encode_spec(wanted.spec)
        self._ask(wanted, lambda n: Submit(n, wanted.submission, spec, watch=True))

    def _watch(self, wanted: Wanted) -> None:
        self._ask(wanted, lambda n: Watch(n, [wanted.job]))

    def _ask(self, wanted: Wanted, make: Callable[[int], ClientToManager]) -> None:
        self._asked += 1
        message = make(self._asked)
        self._requests[self._asked] = wanted
        link, manager, connection = self._link, self._manager, self._connection
        if link is not None and manager is not None:
            link.carry("in", lambda: manager.hear_client(connection, message))

    def _hear(self, message: object) -> None:
        match message:
            case Submitted():
                wanted = self._requests.get(message.request)
                if wanted is not None:
                    assert wanted.job in (0, message.job), "one submission became two jobs"
                    wanted.job = message.job
                    self._checks.acknowledged.setdefault(message.job, message.job_uid)
            case Progress():
                self._progress(message)
            case Results():
                self._results(message)
            case Refusal():
                self._refused(message)
            case Done():
                pass
            case _:
                raise AssertionError(f"a client got {type(message).__name__}")

    def _refused(self, message: Refusal) -> None:
        assert message.code == "store_full", f"refused: {message.text}"
        wanted = self._requests[message.request]

        def ask_again() -> None:
            if not wanted.job:
                self._submit(wanted)

        self._schedule.after(ASK_AGAIN_S, ask_again)

    def _progress(self, message: Progress) -> None:
        for wanted in self.wanted:
            if wanted.job != message.job:
                continue
            if message.is_ended:
                wanted.is_ended = True
                wanted.canceled = wanted.spec.count - message.events
            if message.events > wanted.cursor and not wanted.is_asking:
                self._collect(wanted)

    def _collect(self, wanted: Wanted) -> None:
        wanted.is_asking = True
        self._ask(wanted, lambda n: GetResults(n, wanted.job, wanted.cursor, 5))

    def _results(self, message: Results) -> None:
        wanted = self._requests.get(message.request)
        if wanted is None:
            return
        wanted.is_asking = False
        for record in message.records:
            if record.event <= wanted.cursor:
                continue
            assert record.event == wanted.cursor + 1, "an event was left out"
            assert record.index not in wanted.got, f"task {record.index} was delivered twice"
            wanted.cursor = record.event
            wanted.got[record.index] = record.outcome
        if message.records:
            self._collect(wanted)
