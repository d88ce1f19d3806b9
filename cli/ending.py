"""The end of waiting: what to say and which exit code to leave with."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from wqueue.cli.failure import (
    SHOWN_MAX,
    Failure,
    count_of_tasks,
    failure_fields,
    failure_lines,
    find_failures,
    with_tails,
)
from wqueue.cli.options import Place
from wqueue.cli.output import tell
from wqueue.cli.progress import shown_progress
from wqueue.cli.views import Fields
from wqueue.protocol.errors import EXIT_INTERRUPTED, EXIT_OK, TaskError, UsageError
from wqueue.protocol.messages import TaskRecord
from wqueue.protocol.outcomes import NOT_EXECUTABLE, NOT_FOUND, SUCCEEDED

if TYPE_CHECKING:
    from wqueue.client import Client
    from wqueue.job import Summary


class Waiting(NamedTuple):
    """How to wait, as the options said."""

    timeout_s: float | None = None
    progress: bool = False
    quiet: bool = False
    pass_exit_code: bool = False


class Ending(NamedTuple):
    """What there is to say at the end of waiting."""

    exit_code: int
    summaries: "Sequence[Summary]" = ()
    failures: Sequence[Failure] = ()

    def fields(self) -> Fields:
        """Give it as plain values."""
        return {
            "jobs": [summary_fields(summary) for summary in self.summaries],
            "failures": failure_fields(self.failures),
        }


def wait_for(client: "Client", jobs: Sequence[int], waiting: Waiting, place: Place) -> Ending:
    """Wait until the jobs have ended, say so on stderr, and decide on the exit code.

    An interrupt leaves the jobs running and says how to come back. Raises WaitTimedOut.
    """
    try:
        with shown_progress(waiting.progress and not waiting.quiet) as show:
            summaries = client.wait(jobs, waiting.timeout_s, on_progress=show)
    except KeyboardInterrupt:
        tell(f"interrupted; the work goes on. Come back: {place.command('wq-wait', *jobs)}")
        return Ending(EXIT_INTERRUPTED)
    failures = failures_of(client, summaries)
    if not waiting.quiet:
        tell(*ending_lines(summaries, failures, place))
    if waiting.pass_exit_code:
        return Ending(passed_exit_code(only_record(client, summaries)), summaries, failures)
    return Ending(exit_code_of(summaries), summaries, failures)


EXIT_OF_OUTCOME = {NOT_FOUND: 127, NOT_EXECUTABLE: 126}
"""What a shell exits with when a command cannot be run; --pass-exit-code does the same."""


def exit_code_of(summaries: Sequence["Summary"]) -> int:
    """Give 0 if every task succeeded, else 1."""
    is_good = all(summary.all_succeeded for summary in summaries)
    return EXIT_OK if is_good else TaskError.exit_code


def passed_exit_code(record: TaskRecord) -> int:
    """Give a task's own exit code, 128 + its signal, or what a shell would say."""
    if record.signal:
        return 128 + record.signal
    if record.exit_code > 0:
        return record.exit_code
    if record.outcome == SUCCEEDED:
        return EXIT_OK
    return EXIT_OF_OUTCOME.get(record.outcome, TaskError.exit_code)


def only_record(client: "Client", summaries: Sequence["Summary"]) -> TaskRecord:
    """Give the record of the only task of the only job. Raises UsageError if there are more."""
    check_single([summary.count for summary in summaries])
    return next(iter(client.results(summaries[0].job, follow=False)))


def check_single(task_counts: Sequence[int]) -> None:
    """Refuse --pass-exit-code where there is more than one exit code."""
    if sum(task_counts) != 1:
        raise UsageError(
            f"--pass-exit-code is for a single task; here are {sum(task_counts)} of them"
        )


def failures_of(client: "Client", summaries: Sequence["Summary"]) -> list[Failure]:
    """Find the first few failures of these jobs."""
    jobs = [summary.job for summary in summaries if summary.failed]
    if not jobs:
        return []
    wanted = min(SHOWN_MAX, sum(summary.failed for summary in summaries))
    return with_tails(client, find_failures(client, jobs, wanted))


def ending_lines(
    summaries: Sequence["Summary"], failures: Sequence[Failure], place: Place
) -> list[str]:
    """Say what became of the jobs: failures first, then a line for each job."""
    lines = failure_lines(failures, sum(summary.failed for summary in summaries))
    lines += [_job_line(summary) for summary in summaries]
    if len(summaries) == 1 and summaries[0].count == 1 and not summaries[0].canceled:
        lines.append(f"what it printed: {place.command('wq-status', f'{summaries[0].job}.0')}")
    return lines


def summary_fields(summary: "Summary") -> Fields:
    """Give what became of a job as plain values."""
    return {
        "job": summary.job,
        "tasks": summary.count,
        "succeeded": summary.succeeded,
        "failed": summary.failed,
        "canceled": summary.canceled,
        "is_ended": summary.is_ended,
    }


def _job_line(summary: "Summary") -> str:
    parts = [
        (summary.succeeded, "succeeded"),
        (summary.failed, "failed"),
        (summary.canceled, "canceled"),
    ]
    said = ", ".join(f"{number} {word}" for number, word in parts if number)
    return f"job {summary.job}: {count_of_tasks(summary.count)}: {said or 'none ended'}"
