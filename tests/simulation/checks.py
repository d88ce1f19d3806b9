"""What must hold whatever happens: watched from outside the cores."""

from typing import TYPE_CHECKING

from wqueue.protocol.attempts import unpack_attempt
from wqueue.protocol.messages import Dispatch, Progress, ResultAck, Submitted

if TYPE_CHECKING:
    from simulation.model_store import Tables


class Checks:
    """The checkers' memory: it survives every process."""

    def __init__(self) -> None:
        self.acknowledged: dict[int, bytes] = {}
        self.starts: dict[bytes, int] = {}
        self.names: dict[tuple[int, int], bytes] = {}
        self._staged: dict[bytes, None] = {}

    def started(self, attempt: bytes) -> None:
        """No attempt is begun twice, on whatever worker."""
        assert attempt not in self.starts, "an attempt was started twice"
        self.starts[attempt] = 1

    def sent_to_worker(self, tables: "Tables", message: object) -> None:
        """A task whose result is committed never runs again."""
        if not isinstance(message, Dispatch):
            return
        jobs = {added.job_uid: number for number, added in tables.jobs.items()}
        for assignment in message.assignments:
            uid, index, _, _ = unpack_attempt(assignment.attempt)
            number = jobs.get(uid)
            assert number is None or index not in tables.ended[number], "an ended task runs again"

    def released(self, tables: "Tables", message: object) -> None:
        """What a peer is told is committed."""
        match message:
            case Dispatch():
                uids = {added.job_uid for added in tables.jobs.values()}
                for assignment in message.assignments:
                    assert unpack_attempt(assignment.attempt)[0] in uids, "dispatched uncommitted"
            case Submitted():
                assert message.job in tables.jobs, "acknowledged a job that is not committed"
            case ResultAck(verdict="recorded"):
                for attempt in message.attempts:
                    assert self._is_recorded(tables, attempt), "acknowledged an unkept result"
            case Progress():
                assert message.events <= len(tables.ended[message.job]), "told of the uncommitted"
            case _:
                pass

    def _is_recorded(self, tables: "Tables", attempt: bytes) -> bool:
        if any(failed.attempt == attempt for failed in tables.failed):
            return True
        return any(
            row.attempt == attempt for rows in tables.ended.values() for row in rows.values()
        )

    def staged(self, attempt: bytes) -> None:
        """Outputs of this attempt lie in staging, which outlives the manager process."""
        self._staged[attempt] = None

    def discarded(self, attempt: bytes) -> None:
        """Staging of this attempt is gone."""
        self._staged.pop(attempt, None)

    def published(self, tables: "Tables", job: int, index: int, attempt: bytes) -> None:
        """Only staged outputs of the committed winner get names, one attempt's of each task."""
        assert attempt in tables.publishing or self._is_recorded(tables, attempt), (
            "outputs got names before the winner was committed"
        )
        assert attempt in self._staged, "outputs got names without having been staged"
        known = self.names.setdefault((job, index), attempt)
        assert known == attempt, f"two attempts of {job}.{index} gave names to their outputs"

    def at_the_end(self, tables: "Tables") -> None:
        """Every acknowledged job is done, each task once, and names belong to the winners."""
        for job in self.acknowledged:
            assert job in tables.jobs, f"job {job} was acknowledged and is lost"
        for (job, index), attempt in self.names.items():
            row = tables.ended[job].get(index)
            assert row is not None, f"task {job}.{index} has outputs and did not end"
            assert row.attempt == attempt, f"the outputs of {job}.{index} are a loser's"
