import json
import typing

import msgspec
import pytest

from wqueue.cli.views import (
    count_sentence,
    describe_end,
    instant,
    is_failure,
    job_fields,
    queue_fields,
    record_fields,
    resources_sentence,
    task_fields,
    worker_fields,
)
from wqueue.protocol.messages import (
    STDERR,
    STDOUT,
    Counts,
    JobRow,
    OutputResult,
    QueueRow,
    TaskRecord,
    TaskRow,
    Usage,
    WorkerRow,
)
from wqueue.protocol.outcomes import CANCELED, EXIT_NONZERO, INPUT_MISSING, SIGNAL, SUCCEEDED
from wqueue.protocol.resources import Resources

COUNTS = Counts(blocked=1, held=2, ready=3, assigned=4, running=5, unknown=6, done=10, failed=2)
RECORD = TaskRecord(7, 3, 1, EXIT_NONZERO, exit_code=2, host="node1", worker=4, tries=1)
JOB = JobRow(7, "", "t", "default", 1.0, "running", 31, COUNTS, b"caf\xe9 {}", 1.5e9)
QUEUE = QueueRow(
    "default",
    b"\x01" * 16,
    3,
    "head",
    9123,
    "0.1.0",
    5.0,
    COUNTS,
    2,
    1,
    4,
    0,
    1,
    Resources(),
    Resources(),
)
WORKER = WorkerRow(
    4, "live", "node1", "10.0.0.1", 99, Resources(4000, 8192), Resources(1000), 1, 2, 30, 1, 0.5
)


def test_waiting_and_running_add_up_the_states_they_stand_for() -> None:
    fields = queue_fields(QUEUE)
    assert (fields["waiting"], fields["running"], fields["complete"]) == (6, 15, 10)
    assert fields["server_id"] == "01" * 16


def test_a_job_shows_names_that_are_not_utf8_with_escapes() -> None:
    fields = job_fields(JOB)
    assert fields["command"] == "caf\\xe9 {}"
    assert fields["name"] is None
    assert fields["submitted"] == "2017-07-14T02:40:00.000Z"
    assert fields["ended"] is None


def test_a_task_that_ended_badly_is_failed_and_one_that_ended_well_is_done() -> None:
    failed = task_fields(TaskRow(7, 3, "done", b"x", record=RECORD))
    good = task_fields(TaskRow(7, 3, "done", b"x", record=TaskRecord(7, 3, 1, SUCCEEDED, 0)))
    waiting = task_fields(TaskRow(7, 4, "ready", b"x", reason="no worker"))
    assert (failed["state"], good["state"], waiting["state"]) == ("failed", "done", "ready")
    assert failed["record"]["exit_code"] == 2
    assert (waiting["record"], waiting["reason"], waiting["worker"]) == (None, "no worker", None)


def test_a_canceled_task_has_not_failed() -> None:
    assert not is_failure(TaskRecord(7, 3, 1, CANCELED))
    assert is_failure(RECORD)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (RECORD, "exit code 2"),
        (TaskRecord(7, 3, 1, SIGNAL, signal=11), "killed by signal 11 (SIGSEGV)"),
        (TaskRecord(7, 3, 1, SIGNAL, signal=250), "killed by signal 250"),
        (TaskRecord(7, 3, 1, INPUT_MISSING, text="in.txt is not there"), "in.txt is not there"),
        (TaskRecord(7, 3, 1, INPUT_MISSING), "an input file was not there"),
        (TaskRecord(7, 3, 1, "of_a_later_version"), "of_a_later_version"),
    ],
)
def test_every_end_has_a_line(record: TaskRecord, said: str) -> None:
    assert describe_end(record).startswith(said)


def test_what_a_task_printed_is_text_with_its_size_and_absent_when_it_did_not_come_along() -> None:
    outputs = [OutputResult(STDOUT, 3, inline=b"a\xff\n"), OutputResult(STDERR, 10**9)]
    fields = record_fields(TaskRecord(7, 3, 1, SUCCEEDED, 0, outputs=outputs))
    assert fields["stdout"] == {"size": 3, "text": "a\\xff\n"}
    assert fields["stderr"] == {"size": 10**9, "text": None}
    assert record_fields(RECORD)["stdout"] is None


def test_an_unknown_measure_is_null_and_not_zero() -> None:
    usage = record_fields(RECORD)["usage"]
    assert (usage["user_s"], usage["memory_peak_mb"], usage["wall_s"]) == (None, None, 0.0)


@pytest.mark.parametrize(
    "fields",
    [
        queue_fields(QUEUE),
        job_fields(JOB),
        task_fields(TaskRow(7, 3, "done", b"\xff", record=RECORD)),
        worker_fields(WORKER),
    ],
    ids=["queue", "job", "task", "worker"],
)
def test_every_row_can_be_written_as_json(fields: dict[str, typing.Any]) -> None:
    assert json.loads(json.dumps(fields)) == fields


def test_no_field_of_a_row_is_forgotten() -> None:
    # A field that the wire gains must be shown, or be named here with the key that covers it.
    covered = {"server_id", "software", "count", "done", "tries", "number", "store_error"}
    covered |= {"submitted_wall_s", "ended_wall_s", "resources", "name", "host"}
    for row, fields in (
        (QUEUE, queue_fields(QUEUE)),
        (JOB, job_fields(JOB)),
        (TaskRow(7, 3, "done", b"x"), task_fields(TaskRow(7, 3, "done", b"x"))),
        (WORKER, worker_fields(WORKER)),
    ):
        names = {field.name for field in msgspec.structs.fields(row)}
        assert names - set(fields) <= covered, type(row).__name__


def test_counts_are_said_without_those_that_are_zero() -> None:
    assert count_sentence(COUNTS) == "8 succeeded, 2 failed, 11 running, 4 assigned, 6 waiting"
    assert count_sentence(Counts(canceled=3)) == "3 canceled"
    assert count_sentence(Counts()) == "none"


def test_resources_are_said_in_words() -> None:
    assert resources_sentence(Resources()) == "1 core"
    needs = Resources(500, 4096, 100, 2, {"licence": 3})
    assert resources_sentence(needs) == "0.5 cores, 4G memory, 100M disk, 2 gpus, 3 licence"


def test_instants_are_utc_and_absent_for_never() -> None:
    assert instant(0.0) is None
    assert instant(1.25) == "1970-01-01T00:00:01.250Z"


def test_usage_has_every_measure_of_the_wire() -> None:
    assert set(record_fields(RECORD)["usage"]) == {f.name for f in msgspec.structs.fields(Usage)}
