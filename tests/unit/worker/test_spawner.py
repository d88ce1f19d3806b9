import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.spawner_bench import Bench, processes_with

from wqueue.protocol.limits import INLINE_BYTES
from wqueue.worker import orders
from wqueue.worker.workdir import remove_sandbox


def folder_of(start: orders.Start) -> Path:
    return Path(os.fsdecode(start.sandbox))


def test_a_command_runs_and_its_words_come_back(bench: Bench) -> None:
    ended = bench.run(bench.order("/bin/sh", "-c", "echo out; echo err >&2; exit 3"))
    assert (ended.how, ended.exit_code, ended.signal) == (orders.EXITED, 3, 0)
    assert (ended.stdout, ended.stderr) == (b"out\n", b"err\n")
    assert ended.wall_s > 0
    assert ended.max_rss_kb > 0
    assert not ended.sandbox_left


def test_a_shell_line_with_syntax_gets_a_shell(bench: Bench) -> None:
    ended = bench.run(bench.shell("echo a b | tr a-z A-Z"))
    assert ended.stdout == b"A B\n"


def test_a_signal_is_told_from_an_exit_code(bench: Bench) -> None:
    ended = bench.run(bench.shell("kill -SEGV $$"))
    assert (ended.how, ended.exit_code, ended.signal) == (orders.SIGNALED, -1, signal.SIGSEGV)


def test_a_broken_pipe_kills_the_writer_as_in_a_shell(bench: Bench) -> None:
    ended = bench.run(bench.shell("yes | head -1"))
    assert (ended.exit_code, ended.stdout, ended.stderr) == (0, b"y\n", b"")


def test_many_tasks_in_one_batch_each_end_once(bench: Bench) -> None:
    starts = [bench.order("/bin/sh", "-c", f"echo {n}; exit {n % 7}") for n in range(60)]
    bench.spawner.send(starts)
    for number, start in enumerate(starts):
        ended = bench.wait(start.attempt)
        assert (ended.exit_code, ended.stdout) == (number % 7, f"{number}\n".encode())
    bench.wait_until(lambda: len(bench.running) == 60)


def test_the_environment_tells_a_task_where_it_is(bench: Bench) -> None:
    start = bench.shell(
        'echo "$WQ_ATTEMPT|$WQ_SANDBOX|$WQ_WORKDIR|$X|$(pwd -P)|$WQ_SPAWNER"',
        env=[(b"X", b"\xff y")],
    )
    words = (bench.run(start).stdout or b"").strip().split(b"|")
    work = bytes(bench.workdir.path)
    assert words == [
        start.attempt.hex().encode(),
        start.sandbox,
        work,
        b"\xff y",
        start.sandbox,
        b"",
    ]


def test_a_task_inherits_nothing_but_its_three_streams(bench: Bench) -> None:
    ended = bench.run(bench.shell("ls -l /proc/self/fd; cat"))
    lines = (ended.stdout or b"").splitlines()
    open_ones = [line.split()[8] for line in lines if b"->" in line and b"/proc" not in line]
    assert open_ones == [b"0", b"1", b"2"]
    masks = bench.run(bench.order("grep", "-E", "Sig(Blk|Ign)", "/proc/self/status")).stdout or b""
    ordinary = 2**31 - 1
    assert [int(line.split()[1], 16) & ordinary for line in masks.splitlines()] == [0, 0]


@pytest.mark.parametrize(
    "name", [b"plain", b"-rf", b"a\nb", b"q'uo\"te", b"f\xfcr \xff", b" ", b"d/e/f", b"$(x)"]
)
def test_weird_names_go_in_and_out(bench: Bench, tmp_path: Path, name: bytes) -> None:
    source = tmp_path / "content"
    source.write_bytes(b"in")
    source.chmod(0o444)
    script = 'cat -- "$1" > "./$2" && printf %s "$3"'
    start = bench.order(
        "sh", "-c", script, "sh", name, name + b".out", name,
        links=[(bytes(source), name, 0o444)],
        outputs=[name + b".out"],
    )  # fmt: skip
    ended = bench.run(start)
    assert ended.stderr == b""
    assert (ended.exit_code, ended.stdout) == (0, name)
    assert [(found.kind, found.inline) for found in ended.outputs] == [(orders.OK, b"in")]
    assert not ended.sandbox_left


def test_inputs_are_links_to_the_cache_and_scripts_can_run(bench: Bench, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\nstat -c %i,%a tools/run\n")
    script.chmod(0o555)
    ended = bench.run(bench.order("tools/run", links=[(bytes(script), b"tools/run", 0o555)]))
    assert ended.stdout == f"{script.stat().st_ino},555\n".encode()
    assert script.exists()


def test_a_script_without_interpreter_line_is_run_by_sh(bench: Bench, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('echo "$1"\n')
    script.chmod(0o555)
    ended = bench.run(bench.order("./s", "a b", links=[(bytes(script), b"s", 0o555)]))
    assert (ended.exit_code, ended.stdout) == (0, b"a b\n")


def test_folders_of_outputs_are_there_before_the_task(bench: Bench) -> None:
    ended = bench.run(bench.shell("echo x > a/b/c", outputs=[b"a/b/c"]))
    assert [found.inline for found in ended.outputs] == [b"x\n"]


def test_a_missing_command_is_told_from_a_missing_interpreter(bench: Bench, tmp_path: Path) -> None:
    ended = bench.run(bench.order("no-such-command"))
    assert (ended.how, ended.text) == (
        orders.NOT_FOUND,
        "command not found: no-such-command is not in PATH",
    )
    assert not ended.sandbox_left
    ended = bench.run(bench.order("./gone"))
    assert (ended.how, ended.text) == (orders.NOT_FOUND, "command not found: ./gone does not exist")
    script = tmp_path / "script"
    script.write_text("#!/no/such/python\n")
    script.chmod(0o555)
    ended = bench.run(bench.order("./s", links=[(bytes(script), b"s", 0o555)]))
    assert (ended.how, ended.text) == (
        orders.NOT_FOUND,
        "./s exists, but its interpreter /no/such/python does not",
    )


def test_a_file_without_the_executable_bit_gets_a_hint(bench: Bench, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o444)
    links = [(bytes(script), b"s", 0o444)]
    ended = bench.run(bench.order("./s", links=links))
    assert ended.how == orders.NOT_EXECUTABLE
    assert "chmod +x" in ended.text
    ended = bench.run(bench.order("s", links=links))
    assert ended.how == orders.NOT_FOUND
    assert "maybe ./s is meant" in ended.text
    ended = bench.run(bench.order("/tmp"))
    assert (ended.how, ended.text) == (
        orders.NOT_EXECUTABLE,
        "/tmp is a folder, not a program",
    )


def test_the_path_of_the_task_counts_and_may_be_relative(bench: Bench, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho mine\n")
    script.chmod(0o555)
    start = bench.order(
        "tool", links=[(bytes(script), b"bin/tool", 0o555)], env=[(b"PATH", b"bin:/usr/bin:/bin")]
    )
    assert bench.run(start).stdout == b"mine\n"
    assert bench.run(bench.order("ls", env=[(b"PATH", b"/nowhere")])).how == orders.NOT_FOUND


def test_a_lost_cache_file_and_names_that_leave_are_refused(bench: Bench, tmp_path: Path) -> None:
    ended = bench.run(bench.order("true", links=[(bytes(tmp_path / "gone"), b"x", 0o444)]))
    assert ended.how == orders.INPUT_MISSING
    for name in (b"../x", b"/x", b"a/../../x", b""):
        assert bench.run(bench.order("true", outputs=[name])).how == orders.SANDBOX_FAILED
    assert bench.run(bench.order("true", b"a" * 3_000_000)).how == orders.NOT_EXECUTABLE


def test_outputs_outside_the_sandbox_are_unsafe(bench: Bench, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    line = (
        f"ln -s {secret} link; ln -s {tmp_path} up; mkdir folder; mkfifo fifo;"
        " echo x > real; ln -s real inner; ln -s loop loop"
    )
    names = [b"link", b"up/secret", b"folder", b"fifo", b"inner", b"absent", b"loop", b"real/x"]
    start = bench.shell(line, outputs=[*names[:1], *names[2:7]])
    kinds = {found.position: found.kind for found in bench.run(start).outputs}
    wanted = [orders.UNSAFE, orders.UNSAFE, orders.UNSAFE, orders.OK, orders.MISSING, orders.UNSAFE]
    assert [kinds[position] for position in range(6)] == wanted
    start = bench.shell(f"rmdir up; ln -s {tmp_path} up", outputs=[b"up/secret"])
    assert [found.kind for found in bench.run(start).outputs] == [orders.UNSAFE]


def test_large_content_stays_on_disk(bench: Bench) -> None:
    size = INLINE_BYTES + 1
    start = bench.shell(
        f"head -c {size} /dev/zero; head -c {size} /dev/zero > big; echo s > small",
        outputs=[b"big", b"small"],
    )
    ended = bench.run(start)
    assert (ended.stdout_size, ended.stdout, ended.stderr) == (size, None, b"")
    assert [(found.size, found.inline) for found in ended.outputs] == [(size, None), (2, b"s\n")]
    assert ended.sandbox_left
    assert (folder_of(start) / "big").stat().st_size == size
    assert Path(f"{folder_of(start)}.out").stat().st_size == size
    remove_sandbox(start.sandbox)
    assert not folder_of(start).exists()
    assert not Path(f"{folder_of(start)}.out").exists()


def test_many_small_outputs_do_not_make_one_huge_report(bench: Bench) -> None:
    names = [b"f%d" % number for number in range(20)]
    line = f"for i in $(seq 0 19); do head -c {INLINE_BYTES} /dev/zero > f$i; done"
    ended = bench.run(bench.shell(line, outputs=names))
    inline = sum(len(found.inline or b"") for found in ended.outputs)
    assert 0 < inline <= orders.INLINE_TOTAL_BYTES
    assert ended.sandbox_left


def test_what_a_task_leaves_in_its_sandbox_is_never_seen_by_the_next(bench: Bench) -> None:
    for _ in range(3):
        start = bench.shell("ls -A; mkdir -p d/e; touch a .b; echo trace; chmod 755 .")
        ended = bench.run(start)
        assert ended.stdout == b"trace\n"
        assert bench.run(bench.shell("ls -A; stat -c %a .")).stdout == b"700\n"


def test_a_sandbox_full_of_files_goes_whatever_the_task_did_to_it(bench: Bench) -> None:
    line = "mkdir -p d/e; ln -s / away; cd d; touch $(seq 300); cd e; touch $(seq 300)"
    start = bench.shell(f"{line}; cd ../..; chmod 0 d/e; chmod 0 d")
    ended = bench.run(start)
    assert (ended.exit_code, ended.sandbox_left) == (0, False)
    sandbox = folder_of(start)
    # An empty one may be kept for another task.
    bench.wait_until(lambda: not sandbox.exists() or not any(sandbox.iterdir()))


def test_background_processes_end_with_their_task(bench: Bench) -> None:
    ended = bench.run(bench.shell("sleep 54321 & exit 4"))
    assert ended.exit_code == 4
    assert processes_with(b"sleep\x0054321") == []


def test_what_left_the_session_is_swept_with_its_task(bench: Bench) -> None:
    ended = bench.run(
        bench.shell("(setsid sleep 54322 &) ; (setsid setsid sleep 54322 &) ; sleep .1")
    )
    assert ended.exit_code == 0
    assert processes_with(b"sleep\x0054322") == []


def test_a_daemon_of_one_task_does_not_hold_up_another(bench: Bench) -> None:
    first = bench.begin(bench.shell("(setsid sleep 54323 &) ; sleep 1000"))
    bench.wait_until(lambda: processes_with(b"sleep\x0054323") != [])
    assert bench.run(bench.order("true")).exit_code == 0
    assert processes_with(b"sleep\x0054323") != []
    assert bench.kill(first).signal == signal.SIGKILL
    assert processes_with(b"sleep\x0054323") == []


def test_strays_without_a_marker_end_when_the_worker_is_idle(bench: Bench) -> None:
    bench.run(bench.shell("env -i setsid sleep 54324 & sleep .1"))
    bench.wait_until(lambda: processes_with(b"sleep\x0054324") == [])


def test_a_kill_with_grace_lets_the_task_say_goodbye(bench: Bench) -> None:
    attempt = bench.begin(
        bench.shell("trap 'echo bye; exit 9' TERM; echo ready > flag; while :; do sleep .01; done")
    )
    flag = Path(os.fsdecode(bench.workdir.sandbox(attempt))) / "flag"
    bench.wait_until(flag.exists)
    ended = bench.kill(attempt, 50.0)
    assert (ended.exit_code, ended.stdout) == (9, b"bye\n")


def test_one_that_ignores_sigterm_is_killed_after_the_grace(bench: Bench) -> None:
    attempt = bench.begin(bench.shell("trap '' TERM; touch flag; while :; do sleep 54325; done"))
    flag = Path(os.fsdecode(bench.workdir.sandbox(attempt))) / "flag"
    bench.wait_until(flag.exists)
    assert bench.kill(attempt, 0.1).signal == signal.SIGKILL
    assert processes_with(b"sleep\x0054325") == []


def test_members_of_the_group_keep_their_grace_when_the_leader_goes_first(bench: Bench) -> None:
    line = (
        'sh -c \'trap "sleep .2; echo late >> log; exit" TERM; touch flag;'
        " while :; do sleep .01; done' & wait"
    )
    start = bench.shell(line, outputs=[b"log"])
    attempt = bench.begin(start)
    bench.wait_until((folder_of(start) / "flag").exists)
    assert bench.kill(attempt, 50.0).outputs[0].inline == b"late\n"


def test_a_start_that_waits_can_be_killed_before_it_begins(bench: Bench) -> None:
    starts = [bench.order("sleep", "1000") for _ in range(20)]
    kills = [orders.Kill(start.attempt) for start in starts]
    bench.spawner.send([*starts, *kills])
    for start in starts:
        bench.wait(start.attempt)
    assert bench.run(bench.order("true")).exit_code == 0
    bench.spawner.send([orders.Kill(starts[0].attempt)])


def test_the_end_of_the_worker_is_the_end_of_its_tasks(bench: Bench) -> None:
    bench.begin(bench.shell("sleep 54326 & setsid sleep 54326"))
    bench.wait_until(lambda: len(processes_with(b"sleep\x0054326")) == 2)
    spawner = bench.spawner.pid()
    bench.spawner.stop()
    assert processes_with(b"sleep\x0054326") == []
    assert not Path(f"/proc/{spawner}").exists()


def test_tasks_die_with_a_worker_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path;"
        "from support.spawner_bench import Bench; from wqueue.worker.workdir import open_workdir;"
        f"b = Bench(open_workdir(bytes(16), Path({str(tmp_path / 'w')!r})));"
        "b.begin(b.shell('setsid sleep 54327 & sleep 54327'));"
        "print('up', flush=True); time.sleep(1000)"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"up\n"
    worker.kill()
    worker.wait()
    worker.stdout.close()
    wait_until_gone(b"sleep\x0054327")


def wait_until_gone(text: bytes) -> None:
    for pid in processes_with(text):
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            assert select.select([descriptor], [], [], 30)[0]
            os.close(descriptor)
