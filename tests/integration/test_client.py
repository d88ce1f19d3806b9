"""wqueue.Client against a real manager and real workers."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from support.processes import Manager, Site, wait_until

from wqueue import (
    STDOUT,
    Client,
    InputBuffer,
    JobRange,
    ManagerUnreachable,
    NoSuchTask,
    NotAuthorized,
    OutputFile,
    Refused,
    Task,
    TaskRecord,
    UsageError,
    WaitTimedOut,
)

pytestmark = pytest.mark.slow

PATIENCE_S = 60.0

Connect = Callable[..., Client]


@pytest.fixture
def connect(manager: Manager) -> Iterator[Connect]:
    """Make clients of the manager, as the owner or in another role; all are closed at the end."""
    made: list[Client] = []

    def new(role: str = "owner", on_connection: Callable[[str], None] | None = None) -> Client:
        secret = manager.state_dir / ("password" if role == "owner" else f"secrets/{role}")
        made.append(
            Client(
                info_file=manager.info_file,
                password_file=secret,
                on_connection=on_connection,
                manager_grace_s=PATIENCE_S,
            )
        )
        return made[-1]

    yield new
    for client in made:
        client.close()


@pytest.fixture
def client(connect: Connect) -> Client:
    return connect()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of the submitting program."""
    path = tmp_path / "work"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


def outcomes(records: list[TaskRecord]) -> list[str]:
    return [record.outcome for record in records]


def restart(manager: Manager) -> None:
    """Kill -9 of the daemon; the supervisor starts another."""
    old = manager.daemon_pid
    manager.kill_daemon()
    wait_until(lambda: manager.info().get("daemon_pid") != old)


def has_grown(jobs: list[int], wanted: int) -> bool:
    return len(jobs) > wanted


# --- without workers: what the manager alone says ---------------------------------------------


def test_a_job_is_known_by_number_to_every_client(client: Client, connect: Connect) -> None:
    job = client.submit(Task("true", name="first", tag="t", cores=0.5))
    other = connect().job(job.id)
    assert (other.id, other.count) == (job.id, 1)
    [row] = client.jobs([JobRange(job.id)])
    assert (row.name, row.tag, row.command, row.resources.cores_milli) == (
        "first",
        "t",
        b"true",
        500,
    )
    [task] = client.tasks([JobRange(job.id)])
    assert task.state == "ready"
    assert client.queue().counts.ready == 1
    assert client.workers() == []


def test_an_unknown_job_is_an_error_and_the_client_goes_on(client: Client) -> None:
    job = client.submit(Task("true"))
    with pytest.raises(NoSuchTask):
        client.job(99)
    with pytest.raises(NoSuchTask):
        client.wait([job.id, 99], PATIENCE_S)
    with pytest.raises(NoSuchTask):
        client.progress(99)
    with pytest.raises(NoSuchTask):
        list(client.results(99))
    with pytest.raises(NoSuchTask):
        client.fetch(99, 0, STDOUT)
    assert client.progress(job).counts.ready == 1


@pytest.mark.parametrize("number", [-1, 2**63, 2**70, "7"])
def test_a_number_that_the_wire_cannot_carry_costs_only_its_call(
    client: Client, number: int
) -> None:
    job = client.submit(Task("true"))
    for call in (
        lambda: client.job(number),
        lambda: client.wait(number, 0),
        lambda: list(client.results(job, number)),
        lambda: client.cancel(JobRange(job.id, 0, number)),
        lambda: list(client.tasks([JobRange(number)])),
        lambda: client.fetch(job, number, STDOUT),
    ):
        with pytest.raises(UsageError, match="is not"):
            call()
    assert client.progress(job).counts.ready == 1


def test_waiting_ends_when_the_time_is_over_and_the_work_goes_on(client: Client) -> None:
    job = client.submit(Task("true"))
    with pytest.raises(WaitTimedOut, match="1 of 1 jobs had not ended"):
        job.wait(0.1)
    with pytest.raises(WaitTimedOut):
        next(job.results(timeout_s=0.1))
    assert list(job.results(follow=False)) == []
    assert job.progress().counts.ready == 1


def test_what_is_canceled_has_ended(client: Client) -> None:
    array = client.submit_array(Task("echo {}"), count=10)
    single = client.submit(Task("true"))
    assert client.cancel([JobRange(array.id, 3, 4), single]) == 3
    assert single.wait(PATIENCE_S).canceled == 1
    assert array.summary().canceled == 2
    assert not array.summary().is_ended
    assert array.cancel() == 8
    summary = array.wait(PATIENCE_S)
    assert (summary.count, summary.canceled, summary.is_ended) == (10, 10, True)
    assert not summary.all_succeeded


def test_an_array_of_a_million_is_accepted_as_its_description(client: Client) -> None:
    job = client.submit_array(Task("echo {}"), count=1_000_000)
    assert job.count == 1_000_000
    assert job.progress().counts.ready == 1_000_000
    assert job.cancel() == 1_000_000


def test_a_large_description_is_uploaded(client: Client) -> None:
    values = [f"value {number} {'x' * 50}" for number in range(20_000)]
    job = client.submit_array(Task("echo {}"), values=values)
    assert job.count == 20_000
    assert job.progress().counts.ready == 20_000


def test_listings_come_page_by_page(client: Client) -> None:
    jobs = client.submit_many([Task("true")] * 1500)
    array = client.submit_array(Task("echo {}"), count=2500)
    assert [row.job for row in client.jobs()][-1] == array.id
    assert len(client.jobs()) == 1501
    assert [row.index for row in client.tasks([JobRange(array.id)])] == list(range(2500))
    assert len(list(client.tasks([JobRange(array.id)], limit=7))) == 7
    assert len({job.id for job in jobs}) == 1500


def test_bad_input_files_are_refused_before_anything_is_submitted(
    client: Client, folder: Path
) -> None:
    (folder / "sub").mkdir()
    for name, sentence in [("missing.txt", "does not exist"), ("sub", "directories")]:
        with pytest.raises(UsageError, match=sentence) as caught:
            client.submit(Task("true", inputs=[name]))
        assert name in str(caught.value)
    assert client.jobs() == []


def test_many_threads_may_share_a_client(client: Client) -> None:
    found: list[int] = []

    def work() -> None:
        for _ in range(20):
            found.append(client.submit(Task("true")).id)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(set(found)) == 100


def test_roles_are_kept_apart(manager: Manager, connect: Connect) -> None:
    with pytest.raises(NotAuthorized, match="worker's secret"):
        connect("worker")
    observer = connect("observer")
    assert observer.queue().jobs == 0
    with pytest.raises(NotAuthorized):
        observer.submit(Task("true"))
    with pytest.raises(NotAuthorized):
        connect("client").shutdown()
    assert observer.queue().jobs == 0
    assert manager.is_running


def test_the_first_connection_fails_at_once(site: Site, tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(ManagerUnreachable):
        Client(state_dir=tmp_path / "nothing")
    with pytest.raises(ManagerUnreachable):
        Client("127.0.0.1:1", password_file=_some_password(tmp_path))
    assert time.monotonic() - begun < PATIENCE_S
    assert site.programs == []


def _some_password(folder: Path) -> Path:
    path = folder / "password"
    path.write_text("correct horse battery staple\n")
    path.chmod(0o600)
    return path


def test_a_closed_client_says_so(client: Client) -> None:
    client.close()
    client.close()
    with pytest.raises(UsageError, match="closed"):
        client.submit(Task("true"))
    with pytest.raises(UsageError, match="closed"):
        client.queue()


def test_a_forked_child_is_told_to_make_its_own_client(client: Client) -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            client.queue()
        except UsageError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    assert b"fork" in os.read(read, 1000)
    os.close(read)
    assert client.queue().jobs == 0


def test_a_program_that_forgets_to_close_ends_in_silence(site: Site, manager: Manager) -> None:
    code = (
        "import sys, wqueue; client = wqueue.Client(info_file=sys.argv[1]);"
        "print(client.submit(wqueue.Task('true')).id)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(manager.info_file)],
        env=site.env,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == (b"1\n", b"", 0)


def test_shutdown_is_obeyed(client: Client, manager: Manager) -> None:
    client.shutdown()
    assert manager.wait() == 0


# --- a manager that comes and goes --------------------------------------------------------------


def test_waiting_goes_on_over_a_kill_of_the_manager(
    site: Site, manager: Manager, connect: Connect
) -> None:
    news: list[str] = []
    client = connect(on_connection=news.append)
    job = client.submit_array(Task("echo {}"), count=20)
    manager.kill_daemon()
    site.start_worker(manager)
    summary = job.wait(PATIENCE_S)
    assert summary.all_succeeded
    assert sorted(record.index for record in job.results()) == list(range(20))
    assert [line.partition(":")[0] for line in news] == ["connected", "lost", "connected"]


def test_a_submission_is_taken_once_however_often_it_is_sent(
    manager: Manager, client: Client
) -> None:
    jobs: list[int] = []
    is_over = threading.Event()

    def submit() -> None:
        while not is_over.is_set():
            jobs.extend(job.id for job in client.submit_many([Task("true")] * 50))

    thread = threading.Thread(target=submit)
    thread.start()
    for _ in range(2):
        wanted = len(jobs) + 100
        wait_until(partial(has_grown, jobs, wanted))
        restart(manager)
    is_over.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert len(jobs) == len(set(jobs))
    assert {row.job for row in client.jobs()} == set(jobs)


def test_a_manager_that_stays_away_is_given_up(manager: Manager) -> None:
    with Client(info_file=manager.info_file, manager_grace_s=0.5) as client:
        job = client.submit(Task("true"))
        manager.kill_all()
        with pytest.raises(ManagerUnreachable, match="has been away"):
            job.wait(PATIENCE_S)
        with pytest.raises(ManagerUnreachable):
            client.queue()


# --- real work ----------------------------------------------------------------------------------


def test_a_task_runs_and_its_record_tells(
    site: Site, manager: Manager, client: Client, folder: Path
) -> None:
    site.start_worker(manager)
    (folder / "in.txt").write_text("some words")
    job = client.submit(
        Task(
            'cat in.txt buffer > "$OUT"; echo done; echo oops >&2',
            inputs=["in.txt", InputBuffer(b" and more", "buffer")],
            outputs=["out/result.txt"],
            env={"OUT": "out/result.txt"},
        )
    )
    assert job.wait(PATIENCE_S).all_succeeded
    [record] = job.results()
    assert (record.outcome, record.exit_code) == ("succeeded", 0)
    assert client.stdout(record) == b"done\n"
    assert client.stderr(record) == b"oops\n"
    assert (folder / "out/result.txt").read_text() == "some words and more"
    with pytest.raises(NoSuchTask, match="no output 5"):
        client.output(record, 5)


def test_a_failing_task_is_an_outcome_and_no_exception(
    site: Site, manager: Manager, client: Client
) -> None:
    site.start_worker(manager)
    jobs = client.submit_many([Task("exit 3"), Task(["/no/such/program"]), Task("true")])
    summaries = client.wait(jobs, PATIENCE_S)
    assert [summary.failed for summary in summaries] == [1, 1, 0]
    records = {record.job: record for record in client.results(jobs)}
    assert [records[job.id].outcome for job in jobs] == ["exit_nonzero", "not_found", "succeeded"]
    assert records[jobs[0].id].exit_code == 3


def test_an_array_has_files_of_its_own_per_task(
    site: Site, manager: Manager, client: Client, folder: Path
) -> None:
    site.start_worker(manager)
    values = [f"data/{number}.txt" for number in range(30)]
    (folder / "data").mkdir()
    for value in values:
        (folder / value).write_text(f"content of {value}")
    job = client.submit_array(
        Task("tr a-z A-Z < {/} > {/.}.up", inputs=["{}={/}"], outputs=["up/{/.}.up={/.}.up"]),
        values=values,
    )
    assert job.wait(PATIENCE_S).all_succeeded
    for number, value in enumerate(values):
        assert (folder / f"up/{number}.up").read_text() == f"content of {value}".upper()


def test_a_client_without_trust_uploads_and_fetches(
    site: Site, manager: Manager, connect: Connect, folder: Path
) -> None:
    site.start_worker(manager)
    client = connect("client")
    content = os.urandom(5_000_000)
    (folder / "big").write_bytes(content)
    (folder / "big").chmod(0o755)
    job = client.submit(
        Task(
            "cat big > copy; head -c 10 big > small; test -x big",
            inputs=["big"],
            outputs=["sub/copy=copy", "small"],
        )
    )
    assert job.wait(PATIENCE_S).all_succeeded
    assert (folder / "sub/copy").read_bytes() == content
    assert (folder / "small").read_bytes() == content[:10]
    assert sorted(path.name for path in folder.rglob(".*")) == []


def test_large_output_is_fetched(site: Site, manager: Manager, client: Client) -> None:
    site.start_worker(manager)
    job = client.submit(Task("seq 1 200000; seq 1 300000 > kept", outputs=[OutputFile("kept")]))
    [record] = job.results(timeout_s=PATIENCE_S)
    printed = "".join(f"{number}\n" for number in range(1, 200_001)).encode()
    kept = "".join(f"{number}\n" for number in range(1, 300_001)).encode()
    assert client.stdout(record) == printed
    assert client.output(record, 0) == kept
    assert client.fetch(job, 0, 0) == kept


def test_an_output_is_saved_whole_or_not_at_all(
    site: Site, manager: Manager, client: Client, folder: Path
) -> None:
    site.start_worker(manager)
    job = client.submit(Task("seq 1 100000 > kept", outputs=[OutputFile("kept")]))
    [record] = job.results(timeout_s=PATIENCE_S)
    assert client.output(record, 0, to=folder / "a/b") == b""
    assert (folder / "a/b").read_bytes() == client.output(record, 0)
    (folder / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        client.output(record, 0, to=folder / "file/x")
    assert sorted(path.name for path in folder.rglob("*")) == ["a", "b", "file"]


def test_ten_thousand_separate_tasks_have_ten_thousand_results(
    site: Site, manager: Manager, client: Client
) -> None:
    site.start_worker(manager, "--cores", 4)
    jobs = client.submit_many([Task(["true"]) for _ in range(10_000)])
    seen: dict[int, int] = {}
    for record in client.results(jobs, timeout_s=4 * PATIENCE_S):
        seen[record.job] = seen.get(record.job, 0) + 1
        assert record.outcome == "succeeded"
    assert seen == {job.id: 1 for job in jobs}
    assert all(summary.all_succeeded for summary in client.wait(jobs, PATIENCE_S))


def test_an_array_of_ten_thousand_gives_each_result_once(
    site: Site, manager: Manager, client: Client
) -> None:
    site.start_worker(manager, "--cores", 4)
    job = client.submit_array(Task(["true"]), count=10_000)
    records = list(job.results(timeout_s=4 * PATIENCE_S))
    assert sorted(record.index for record in records) == list(range(10_000))
    assert [record.event for record in records] == list(range(1, 10_001))
    again = list(job.results(cursor=9_990))
    assert again == records[9_990:]


def test_results_come_once_each_over_restarts_of_the_manager(
    site: Site, manager: Manager, client: Client
) -> None:
    site.start_worker(manager)
    job = client.submit_array(Task("echo {}"), count=400)
    records = []
    for record in job.results(timeout_s=4 * PATIENCE_S):
        records.append(record)
        if len(records) in (50, 200):
            restart(manager)
    assert sorted(record.index for record in records) == list(range(400))
    assert outcomes(records) == ["succeeded"] * 400
    for record in records:
        assert client.stdout(record) == f"{record.index}\n".encode()


def test_running_tasks_are_canceled(site: Site, manager: Manager, client: Client) -> None:
    site.start_worker(manager)
    job = client.submit(Task("sleep 600"))
    wait_until(lambda: job.progress().counts.running == 1)
    assert job.cancel() == 1
    assert job.wait(PATIENCE_S).canceled == 1


def test_a_file_changed_after_submission_is_the_outcome_of_its_task(
    site: Site, manager: Manager, client: Client, folder: Path
) -> None:
    (folder / "in").write_text("before")
    job = client.submit(Task("cat in", inputs=["in"]))
    (folder / "in").write_text("afterwards")
    site.start_worker(manager)
    [record] = job.results(timeout_s=PATIENCE_S)
    assert record.outcome == "input_missing"


def test_an_empty_list_of_jobs_is_waited_for_in_no_time(client: Client) -> None:
    assert client.submit_many([]) == []
    assert client.wait([]) == []
    assert list(client.results([])) == []
    with pytest.raises(Refused):
        client.fetch(client.submit(Task("true")), 0, STDOUT)
