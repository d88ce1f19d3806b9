"""The main job: right to the byte whatever happens to workers and manager meanwhile.

The job is the demo's, over a part of the standard library. What is waited for is always an event:
so many tasks ended, a file that appeared, a process that is gone.
"""

import json
import shlex
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import count
import job as demo
import merge
import pytest
from support.journeys import some_sources
from support.processes import Manager, Site, wait_until

import wqueue
from wqueue.protocol.messages import TaskRecord

pytestmark = pytest.mark.slow

LIBRARY = demo.library()

GRACE = ("--worker-grace", "2")
"""A lost worker's tasks go elsewhere after so many seconds; the default is for real networks."""


def wrong_files(names: list[str], output: Path) -> list[str]:
    """Compare every output of the job, byte for byte, with what its functions give here."""
    wrong = []
    counted = []
    for name in sorted(names, key=lambda name: f"{name}.json"):
        source = (LIBRARY / name).read_bytes()
        counts = count.count(source)
        counted.append((name, counts))
        expected = {f"packed/{name}.gz": count.pack(source)}
        expected[f"counts/{name}.json"] = count.encode(counts)
        wrong += [file for file, content in expected.items() if differs(output / file, content)]
    if differs(output / "report.json", merge.encode(merge.merge(counted))):
        wrong.append("report.json")
    return wrong


def differs(path: Path, content: bytes) -> bool:
    return not path.is_file() or path.read_bytes() != content


def leftovers(output: Path) -> list[str]:
    """Name what lies among the outputs and is none of them: staging that was not removed."""
    return [str(path) for path in output.rglob("*") if path.name.startswith(".wq-")]


def merge_and_check(client: wqueue.Client, names: list[str], output: Path) -> None:
    """Run the last task of the job, then look at all that it gave."""
    (summary,) = client.wait(demo.submit_merge(client, names, output), 60)
    assert summary.all_succeeded
    assert wrong_files(names, output) == []
    assert leftovers(output) == []


def wait_for_events(client: wqueue.Client, job: wqueue.Job, events: int) -> None:
    wait_until(lambda: client.progress(job).events >= events, 60, f"{events} ended tasks")


def assert_each_once(records: list[TaskRecord], total: int) -> None:
    """See that every task has exactly one result, and events count without a gap."""
    assert sorted(record.index for record in records) == list(range(total))
    assert sorted(record.event for record in records) == list(range(1, total + 1))
    assert {record.outcome for record in records} == {"succeeded"}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("worker_count", [1, 2, 5])
def test_the_job_is_right_to_the_byte_with_any_number_of_workers(
    site: Site, output: Path, worker_count: int
) -> None:
    manager = site.start_manager()
    for _ in range(worker_count):
        site.start_worker(manager, "--cores", 1)
    names = some_sources(60)
    seen: list[int] = []
    with wqueue.Client(info_file=manager.info_file) as client:
        faults = demo.run(client, LIBRARY, names, output, seen.append, timeout_s=120)
    assert faults == []
    assert max(seen) == len(names)
    assert wrong_files(names, output) == []
    assert leftovers(output) == []


def test_workers_that_come_and_go_in_the_middle_cost_no_result(site: Site, output: Path) -> None:
    manager = site.start_manager(*GRACE)
    first, second = site.start_worker(manager), site.start_worker(manager)
    names = some_sources(160)
    with wqueue.Client(info_file=manager.info_file) as client:
        job = demo.submit_counts(client, LIBRARY, names, output)
        wait_for_events(client, job, 30)
        site.start_worker(manager)
        assert first.stop() == 0
        wait_for_events(client, job, 70)
        second.kill()
        site.start_worker(manager)
        (summary,) = client.wait(job, 120)
        assert summary.all_succeeded
        assert_each_once(list(client.results(job)), len(names))
        merge_and_check(client, names, output)


def test_a_worker_killed_with_finished_results_has_them_delivered_by_the_next(
    site: Site, tmp_path: Path
) -> None:
    manager = site.start_manager("--worker-grace", "60")
    workdir = tmp_path / "shared-workdir"
    worker = site.start_worker(manager, workdir=workdir)
    with wqueue.Client(info_file=manager.info_file) as client:
        tasks = Gated(tmp_path)
        job = client.submit(tasks.task())
        tasks.wait_for_starts(1)
        manager.kill_all()
        tasks.open_gate()
        wait_until(lambda: tasks.ends() == 1, what="the end of the task")
        wait_until(lambda: has_outbox_entry(workdir), what="the result in the outbox")
        worker.kill()
        manager = site.start_manager("--worker-grace", "60")
        site.start_worker(manager, workdir=workdir)
        (record,) = client.results(job, timeout_s=60)
    assert record.outcome == "succeeded"
    assert tasks.starts() == 1


def has_outbox_entry(workdir: Path) -> bool:
    return any(path.stat().st_size for path in workdir.glob("outbox/*"))


class Gated:
    """Tasks that say when they start and end, and end only when the gate is open."""

    def __init__(self, folder: Path) -> None:
        self.gate = folder / "gate"
        self.log = folder / "starts"
        self.end_log = folder / "ends"

    def task(self) -> wqueue.Task:
        gate, log, ends = (shlex.quote(str(p)) for p in (self.gate, self.log, self.end_log))
        return wqueue.Task(
            f"echo start >> {log}; until [ -e {gate} ]; do sleep 0.05; done; "
            f"echo end >> {ends}; echo through"
        )

    def starts(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0

    def ends(self) -> int:
        return len(self.end_log.read_text().splitlines()) if self.end_log.exists() else 0

    def wait_for_starts(self, number: int) -> None:
        wait_until(lambda: self.starts() >= number, what=f"{number} started tasks")

    def open_gate(self) -> None:
        self.gate.touch()


def kill_both(site: Site, manager: Manager) -> Manager:
    manager.kill_all()
    return site.start_manager(*GRACE)


def kill_the_daemon(site: Site, manager: Manager) -> Manager:
    before = manager.daemon_pid
    manager.kill_daemon()
    wait_until(lambda: manager.info().get("daemon_pid", before) != before, what="the next daemon")
    return manager


def stop_and_start(site: Site, manager: Manager) -> Manager:
    assert manager.stop() == 0
    return site.start_manager(*GRACE)


Restart = Callable[[Site, Manager], Manager]


@pytest.mark.parametrize("restart", [kill_both, kill_the_daemon, stop_and_start])
def test_a_manager_that_ends_in_the_middle_costs_nothing(
    site: Site, output: Path, tmp_path: Path, restart: Restart
) -> None:
    manager = site.start_manager(*GRACE)
    for _ in range(2):
        site.start_worker(manager, "--cores", 3)
    names = some_sources(160)
    gated = Gated(tmp_path)
    with wqueue.Client(info_file=manager.info_file) as client, Follower(client) as follower:
        running = client.submit_array(gated.task(), count=3)
        gated.wait_for_starts(3)
        job = demo.submit_counts(client, LIBRARY, names, output)
        follower.follow(job)
        wait_for_events(client, job, 40)
        epoch = client.queue().epoch
        manager = restart(site, manager)
        (summary,) = client.wait(job, 120)
        assert summary.all_succeeded
        assert client.queue().epoch > epoch
        gated.open_gate()
        (summary,) = client.wait(running, 60)
        assert summary.all_succeeded
        records = list(client.results(running))
        assert [record.tries for record in records] == [1, 1, 1]
        assert gated.starts() == 3, "a running task was started again"
        assert_each_once(follower.records(), len(names))
        assert_each_once(list(client.results(job)), len(names))
        merge_and_check(client, names, output)


class Follower:
    """Reads a job's results in a thread, as they come, through whatever happens."""

    def __init__(self, client: wqueue.Client) -> None:
        self.client = client
        self.thread: threading.Thread | None = None
        self.seen: list[TaskRecord] = []
        self.error: Exception | None = None

    def __enter__(self) -> "Follower":
        return self

    def __exit__(self, *_: object) -> None:
        if self.thread:
            self.client.close()
            self.thread.join(30)

    def follow(self, job: wqueue.Job) -> None:
        def read() -> None:
            try:
                for record in self.client.results(job):
                    self.seen.append(record)
            except Exception as error:
                self.error = error

        self.thread = threading.Thread(target=read)
        self.thread.start()

    def records(self) -> list[TaskRecord]:
        assert self.thread
        self.thread.join(60)
        assert not self.thread.is_alive()
        assert self.error is None
        return self.seen


def test_two_managers_and_their_workers_do_not_disturb_each_other(
    site: Site, tmp_path: Path
) -> None:
    names = some_sources(60)
    with ExitStack() as stack:
        sides = []
        for side in ("left", "right"):
            manager = site.start_manager(name=side)
            site.start_worker(manager, "--cores", 1)
            client = stack.enter_context(wqueue.Client(info_file=manager.info_file))
            folder = tmp_path / f"output-{side}"
            folder.mkdir()
            sides.append((client, names[side == "left" :: 2], folder))
        jobs = [demo.submit_counts(client, LIBRARY, part, folder) for client, part, folder in sides]
        for (client, part, folder), job in zip(sides, jobs, strict=True):
            (summary,) = client.wait(job, 120)
            assert summary.all_succeeded
            assert summary.count == len(part)
            merge_and_check(client, part, folder)
            assert len(client.workers()) == 1
            assert client.queue().counts.done == len(part) + 1


def test_a_port_that_is_taken_is_an_error_that_says_so(site: Site, manager: Manager) -> None:
    second = site.start_manager("--port", manager.port, name="second", is_awaited=False)
    assert second.wait() == 6
    assert str(manager.port) in second.output()
    assert "Traceback" not in second.output()


def test_the_default_port_moves_on_and_says_so(site: Site, tmp_path: Path) -> None:
    state = tmp_path / "state-moved"
    info = tmp_path / "moved.json"
    with taken_port(9123):
        program = site.start(
            "manager", "--listen", "127.0.0.1", "--state-dir", state, "--info-file", info
        )
        wait_until(info.exists, what="the info file")
    port = json.loads(info.read_text())["port"]
    assert port != 9123
    program.wait_for_line(str(port))
    assert "9123" in program.output()


@contextmanager
def taken_port(port: int) -> Iterator[None]:
    """Hold a port of 127.0.0.1; that somebody else holds it is as good."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            holder.bind(("127.0.0.1", port))
            holder.listen()
        yield
