import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.spawner_bench import Bench, processes_with

from wqueue.worker import orders
from wqueue.worker.workdir import Workdir


@pytest.fixture
def hasty(workdir: Workdir) -> Iterator[Bench]:
    made = Bench(workdir, answer_max_s=0.3)
    yield made
    made.spawner.stop()


@pytest.fixture
def hanging_program(tmp_path: Path) -> Iterator[Path]:
    """A program that the kernel opens only when we give up our lease on it: a hung file system."""
    program = tmp_path / "hanging"
    program.write_text("#!/bin/sh\necho it ran\n")
    program.chmod(0o555)
    descriptor = os.open(program, os.O_RDONLY)
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        pytest.skip(f"no file leases here: {error}")
    yield program
    os.close(descriptor)
    signal.signal(signal.SIGIO, before)


def test_a_killed_spawner_is_replaced_and_running_tasks_are_adopted(bench: Bench) -> None:
    line = "touch flag; until [ -e go ]; do sleep .01; done; echo done; exit 7"
    start = bench.shell(line, outputs=[b"flag"])
    attempt = bench.begin(start)
    sandbox = Path(os.fsdecode(start.sandbox))
    bench.wait_until((sandbox / "flag").exists)
    old = bench.spawner.pid()
    os.kill(old, signal.SIGKILL)
    bench.wait_until(lambda: bench.spawner.pid() != old)
    assert bench.run(bench.order("true")).exit_code == 0
    assert attempt not in bench.ended
    (sandbox / "go").touch()
    ended = bench.wait(attempt)
    assert (ended.how, ended.exit_code, ended.stdout) == (orders.EXITED, 7, b"done\n")
    assert ended.outputs[0].kind == orders.OK
    assert not sandbox.exists()


def test_an_adopted_task_can_be_killed_with_all_that_left_it(bench: Bench) -> None:
    attempt = bench.begin(bench.shell("setsid sleep 54331 & sleep 54331"))
    bench.wait_until(lambda: len(processes_with(b"sleep\x0054331")) == 2)
    old = bench.spawner.pid()
    os.kill(old, signal.SIGKILL)
    bench.wait_until(lambda: bench.spawner.pid() != old)
    assert bench.kill(attempt, 0.05).signal == signal.SIGTERM
    assert processes_with(b"sleep\x0054331") == []


def test_a_killed_spawner_leaves_no_task_behind_the_worker(bench: Bench) -> None:
    bench.begin(bench.shell("setsid sleep 54332 & (setsid sleep 54332 &) ; sleep 54332"))
    bench.wait_until(lambda: len(processes_with(b"sleep\x0054332")) == 3)
    os.kill(bench.spawner.pid(), signal.SIGKILL)
    bench.spawner.stop()
    assert processes_with(b"sleep\x0054332") == []


def test_every_start_is_answered_once_however_often_the_spawner_is_killed(bench: Bench) -> None:
    starts = [bench.shell(f"sleep .0{n % 10}; exit {n % 5}") for n in range(80)]
    bench.spawner.send(starts)
    for at in (0, 20, 40, 60):
        bench.wait(starts[at].attempt)
        os.kill(bench.spawner.pid(), signal.SIGKILL)
    for number, start in enumerate(starts):
        ended = bench.wait(start.attempt)
        if ended.how == orders.EXITED:
            assert ended.exit_code == number % 5
        else:
            assert ended.how == orders.SANDBOX_FAILED
            assert "lost" in ended.text
    kept = [start for start in starts if bench.ended[start.attempt].how == orders.EXITED]
    assert len(kept) > 40


def test_a_stopped_spawner_is_replaced(hasty: Bench) -> None:
    hasty.run(hasty.order("true"))
    old = hasty.spawner.pid()
    os.kill(old, signal.SIGSTOP)
    ended = hasty.run(hasty.order("sh", "-c", "exit 5"))
    assert ended.exit_code == 5
    assert hasty.spawner.pid() != old
    assert not Path(f"/proc/{old}").exists()


def test_only_the_task_whose_program_hangs_fails(hasty: Bench, hanging_program: Path) -> None:
    line = "touch flag; until [ -e go ]; do sleep .01; done; exit 6"
    running = hasty.shell(line)
    hasty.begin(running)
    sandbox = Path(os.fsdecode(running.sandbox))
    hasty.wait_until((sandbox / "flag").exists)
    hangs = hasty.order(os.fsencode(hanging_program))
    behind = [hasty.order("sh", "-c", f"exit {n}") for n in range(5)]
    hasty.spawner.send([hangs, *behind])
    ended = hasty.wait(hangs.attempt)
    assert (ended.how, ended.text) == (
        orders.SANDBOX_FAILED,
        "starting the command hung for more than 0.3 s",
    )
    assert [hasty.wait(start.attempt).exit_code for start in behind] == [0, 1, 2, 3, 4]
    (sandbox / "go").touch()
    assert hasty.wait(running.attempt).exit_code == 6
    assert hasty.ended[hangs.attempt] == ended


def test_a_fifo_is_no_program_and_hangs_nothing(bench: Bench, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    fifo.chmod(0o755)
    ended = bench.run(bench.order(os.fsencode(fifo)))
    assert ended.how == orders.NOT_EXECUTABLE
    script = tmp_path / "script"
    script.write_text(f"#!{fifo}\n")
    script.chmod(0o755)
    assert bench.run(bench.order(os.fsencode(script))).how == orders.NOT_EXECUTABLE


def test_an_idle_spawner_needs_no_attention(bench: Bench) -> None:
    bench.run(bench.order("true"))
    assert bench.spawner.deadline() is None


def test_a_worker_inside_a_task_does_not_pass_on_its_own_marks(
    workdir: Workdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WQ_ATTEMPT", "00")
    inner = Bench(workdir)
    try:
        spawner = Path(f"/proc/{inner.spawner.pid()}/environ").read_bytes()
        assert b"\0WQ_ATTEMPT=" not in b"\0" + spawner
    finally:
        inner.spawner.stop()
