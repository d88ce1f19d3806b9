"""Real wq-* processes for integration tests: started in a folder of their own, ended by pid.

A Site is a small world below tmp_path: its own home, state directories, no WQ_* variables. What it
starts it ends; a program that ended without having been asked fails the test at teardown. What the
programs wrote is printed at teardown, which pytest shows for failing tests only.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WAIT_S = 30.0
"""Default patience: far more than anything needs, since a loaded machine is no failure."""

POLL_S = 0.02
"""How often a condition is looked at."""

END_S = 15.0
"""From SIGTERM to SIGKILL at teardown."""

LOG_TAIL_LINES = 200
"""Lines shown of each program when a test fails."""


def wait_until(
    predicate: Callable[[], Any], timeout_s: float = WAIT_S, what: str = "the condition"
) -> Any:
    """Look at `predicate` until it gives something true, and give that; fail after `timeout_s`."""
    ends = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > ends:
            raise AssertionError(f"{what} did not come true within {timeout_s:g} s")
        time.sleep(POLL_S)


def is_alive(pid: int) -> bool:
    """Tell whether a process of that pid runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


class Program:
    """One started process; what it writes to stdout and stderr goes to one file."""

    def __init__(self, name: str, arguments: list[str], folder: Path, env: dict[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.may_end = False
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                arguments,
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.pid = self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended yet."""
        return self.process.poll() is None

    def output(self) -> str:
        """All it has written so far."""
        return self.log.read_text(errors="backslashreplace")

    def wait(self, timeout_s: float = WAIT_S) -> int:
        """Expect it to end by itself and give its exit code (-N: signal N)."""
        self.may_end = True
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.name} did not end within {timeout_s:g} s\n{self.output()}"
            ) from None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def stop(self, timeout_s: float = WAIT_S) -> int:
        """End it with SIGTERM and give its exit code."""
        self.may_end = True
        self.process.terminate()
        return self.wait(timeout_s)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.may_end = True
        self.process.kill()
        self.process.wait(WAIT_S)

    def wait_for_line(self, text: str, timeout_s: float = WAIT_S) -> None:
        """Wait until it has written `text`."""

        def is_there() -> bool:
            assert text in self.output() or self.is_running or self.may_end, (
                f"{self.name} ended with {self.process.returncode}\n{self.output()}"
            )
            return text in self.output()

        wait_until(is_there, timeout_s, f"{text!r} in the output of {self.name}")


class Manager(Program):
    """A wq-manager: supervisor and daemon."""

    state_dir: Path
    info_file: Path

    def wait_until_ready(self, timeout_s: float = WAIT_S) -> None:
        """Wait until the info file names a running daemon of this supervisor."""

        def is_there() -> bool:
            assert self.is_running, (
                f"{self.name} ended with {self.process.returncode}\n{self.output()}"
            )
            return self.info().get("supervisor_pid") == self.pid and is_alive(self.daemon_pid)

        wait_until(is_there, timeout_s, f"the info file of {self.name}")

    def info(self) -> dict[str, Any]:
        """The info file, or nothing while there is none."""
        try:
            info: dict[str, Any] = json.loads(self.info_file.read_text())
        except FileNotFoundError:
            return {}
        return info

    @property
    def port(self) -> int:
        """The hello port."""
        return int(self.info()["port"])

    @property
    def daemon_pid(self) -> int:
        """The process that does the work; this Program is its supervisor."""
        return int(self.info()["daemon_pid"])

    def kill_daemon(self) -> None:
        """Kill -9 of the daemon alone: the supervisor starts another."""
        os.kill(self.daemon_pid, signal.SIGKILL)

    def kill_all(self) -> None:
        """Kill -9 of supervisor and daemon, as a crash of the host would look to the peers."""
        daemon_pid = self.daemon_pid
        self.may_end = True
        self.process.kill()
        with_pid_gone(daemon_pid)
        self.process.wait(WAIT_S)
        wait_until(lambda: not is_alive(daemon_pid), what="the end of the daemon")

    def log_text(self) -> str:
        """The manager's own log file."""
        path = self.state_dir / "manager.log"
        return path.read_text(errors="backslashreplace") if path.exists() else ""

    def count_lines(self, text: str) -> int:
        """How many lines of the manager's log hold `text`."""
        return sum(text in line for line in self.log_text().splitlines())


def with_pid_gone(pid: int) -> None:
    """Kill -9 one process that may be gone already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


class Site:
    """One test's world: managers, workers and tools below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs: list[Program] = []
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("WQ_")}
        self.env |= {
            "HOME": str(self._make("home")),
            "XDG_STATE_HOME": str(self._make("state-home")),
            "XDG_RUNTIME_DIR": str(self._make("runtime")),
            "TMPDIR": str(self._make("tmp")),
            "PYTHONSAFEPATH": "1",
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }

    def _make(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    @staticmethod
    def command(tool: str, *arguments: object) -> list[str]:
        """The argument vector that runs a tool: "submit" is wq-submit."""
        return [sys.executable, "-m", f"wqueue.cli.{tool}", *map(str, arguments)]

    def start(
        self, tool: str, *arguments: object, name: str = "", env: dict[str, str] | None = None
    ) -> Program:
        """Start any tool in the background."""
        program = Program(
            name or f"{tool}-{len(self.programs)}",
            self.command(tool, *arguments),
            self.folder,
            self.env | (env or {}),
        )
        self.programs.append(program)
        return program

    def start_manager(
        self,
        *options: object,
        name: str = "manager",
        state_dir: Path | None = None,
        is_awaited: bool = True,
        env: dict[str, str] | None = None,
        prefix: tuple[str, ...] = (),
    ) -> Manager:
        """Start a manager on 127.0.0.1, by default on a free port, and wait until it is there.

        A second start with the same `name` uses the same state directory. With `is_awaited` False
        the caller says what it waits for. `prefix` is a command that runs the manager's.
        """
        state = state_dir or self.folder / f"state-{name}"
        defaults: list[object] = ["--state-dir", state, "--info-file", state / "info-for-test.json"]
        if "--listen" not in options:
            defaults += ["--listen", "127.0.0.1"]
        if "--port" not in options and not (state / "ports").exists():
            defaults += ["--port", 0]
        manager = Manager(
            f"{name}-{len(self.programs)}",
            [*prefix, *self.command("manager", *defaults, *options)],
            self.folder,
            self.env | (env or {}),
        )
        manager.state_dir = state
        manager.info_file = state / "info-for-test.json"
        self.programs.append(manager)
        if is_awaited:
            manager.wait_until_ready()
        return manager

    def start_worker(
        self,
        manager: Manager,
        *options: object,
        workdir: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> Program:
        """Start a worker of that manager, by default with two cores and a workdir of its own."""
        number = len(self.programs)
        defaults: list[object] = ["--info-file", manager.info_file]
        defaults += ["--workdir", workdir or self.folder / f"workdir-{number}"]
        if "--cores" not in options:
            defaults += ["--cores", 2]
        return self.start("worker", *defaults, *options, name=f"worker-{number}", env=env)

    def run(
        self,
        tool: str,
        *arguments: object,
        timeout_s: float = 60.0,
        env: dict[str, str] | None = None,
        stdin: str = "",
        cwd: Path | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a tool to its end and give what it wrote and its exit code."""
        return subprocess.run(
            self.command(tool, *arguments),
            cwd=cwd or self.folder,
            env=self.env | (env or {}),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def close(self) -> None:
        """End everything, print what it wrote, and fail if a program had ended unasked."""
        unasked = [p for p in self.programs if not p.may_end and not p.is_running]
        running = [p for p in self.programs if p.is_running]
        for program in reversed(running):
            program.process.terminate()
            program.process.send_signal(signal.SIGCONT)
        ends = time.monotonic() + END_S
        stubborn = [p for p in reversed(running) if not _ended_by(p, ends)]
        for manager in self.programs:
            if isinstance(manager, Manager) and (pid := manager.info().get("daemon_pid")):
                wait_for_daemon(int(pid), manager)
        for program in self.programs:
            _show(program)
        assert not unasked, "ended unasked: " + ", ".join(
            f"{p.name} with {p.process.returncode}" for p in unasked
        )
        assert not stubborn, "had to be killed: " + ", ".join(p.name for p in stubborn)


def wait_for_daemon(pid: int, manager: Manager) -> None:
    """See the daemon end after its supervisor; kill it (if it is ours) when it does not."""
    ends = time.monotonic() + END_S
    while is_alive(pid) and time.monotonic() < ends:
        time.sleep(POLL_S)
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return
    if os.fsencode(manager.state_dir) in command:
        with_pid_gone(pid)


def _ended_by(program: Program, ends: float) -> bool:
    try:
        program.process.wait(max(0.05, ends - time.monotonic()))
    except subprocess.TimeoutExpired:
        program.process.kill()
        program.process.wait(WAIT_S)
        return False
    return True


def _show(program: Program) -> None:
    lines = program.output().splitlines()
    code = program.process.returncode
    head = f"--- {program.name} (pid {program.pid}, exit {code}), last {LOG_TAIL_LINES} lines"
    sys.stdout.write("\n".join([head, *lines[-LOG_TAIL_LINES:], ""]))


@contextmanager
def new_site(folder: Path) -> Iterator[Site]:
    """Give a Site below `folder` and end what it started."""
    site = Site(folder)
    try:
        yield site
    finally:
        site.close()
