"""A worker written from the specification alone does a real manager's work."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.foreign_worker import ForeignWorker
from support.processes import Manager, Program, Site, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def worker(manager: Manager, tmp_path: Path) -> Iterator[ForeignWorker]:
    it = ForeignWorker(manager.state_dir / "password", tmp_path / "foreign")
    it.hello("127.0.0.1", manager.port)
    yield it
    it.end()


def submit(site: Site, manager: Manager, *arguments: object) -> Program:
    program = site.start("submit", "--info-file", manager.info_file, "--wait", *arguments)
    program.may_end = True
    return program


def has_ended(program: Program) -> int:
    wait_until(lambda: not program.is_running, what=f"the end of {program.name}")
    assert program.process.returncode is not None
    return program.process.returncode


def test_a_foreign_worker_registers_runs_reports_and_leaves(
    site: Site, manager: Manager, worker: ForeignWorker
) -> None:
    answer = worker.register()
    assert (answer[1], answer[4], answer[5]) == (1, [], [])
    (site.folder / "in.txt").write_text("from far away\n")
    line = "tr a-z A-Z < in.txt > out.txt; echo printed; echo complained >&2"
    program = submit(site, manager, "--input", "in.txt", "--output", "out.txt", "--", line)
    attempt = worker.run_one()
    assert worker.await_acknowledgement(attempt) == "recorded"
    assert has_ended(program) == 0, program.output()
    assert (site.folder / "out.txt").read_text() == "FROM FAR AWAY\n"
    worker.await_heartbeat()
    worker.leave()


def test_a_failure_reported_by_a_foreign_worker_is_shown(
    site: Site, manager: Manager, worker: ForeignWorker
) -> None:
    worker.register()
    program = submit(site, manager, "--", "exit 3")
    attempt = worker.run_one()
    assert worker.await_acknowledgement(attempt) == "recorded"
    assert has_ended(program) == 1
    worker.leave()


def test_a_foreign_worker_delivers_its_result_to_the_next_manager_process(
    site: Site, manager: Manager, worker: ForeignWorker
) -> None:
    worker.register()
    program = submit(site, manager, "--", "echo survived")
    epoch = worker.epoch
    # The daemon goes before it can acknowledge: the worker must bring the result again.
    worker.is_mute = True
    attempt = worker.run_one()
    manager.kill_daemon()
    worker.close()
    wait_until(lambda: manager.info().get("epoch", epoch) > epoch, what="the next daemon")
    worker.hello("127.0.0.1", manager.port)
    answer = worker.register()
    assert answer[4] == [attempt]
    assert worker.epoch > epoch
    assert worker.await_acknowledgement(attempt) == "recorded"
    assert has_ended(program) == 0, program.output()
    worker.leave()
