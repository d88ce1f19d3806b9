"""A Desk: one manager with one worker, and a person who runs the tools on it."""

import json
import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.processes import WAIT_S, Manager, Program, Site, new_site

Ran = subprocess.CompletedProcess[str]


class Desk:
    """Runs tools in a folder, with the manager named by the environment."""

    def __init__(self, site: Site, manager: Manager) -> None:
        self.site = site
        self.manager = manager
        self.env = {"WQ_INFO_FILE": str(manager.info_file)}

    @property
    def folder(self) -> Path:
        """Where the tools run."""
        return self.site.folder

    def run(
        self,
        tool: str,
        *arguments: object,
        stdin: str = "",
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Ran:
        """Run a tool to its end."""
        return self.site.run(tool, *arguments, stdin=stdin, env=self.env | (env or {}), cwd=cwd)

    def start(self, tool: str, *arguments: object, env: dict[str, str] | None = None) -> Program:
        """Start a tool in the background; it may end when it likes."""
        program = self.site.start(tool, *arguments, env=self.env | (env or {}))
        program.may_end = True
        return program

    def submit(self, *arguments: object, stdin: str = "") -> int:
        """Submit, expect it to be taken, and give the job's number."""
        ran = self.run("submit", *arguments, stdin=stdin)
        assert ran.returncode == 0, ran.stderr
        return int(ran.stdout)

    def submit_and_wait(self, *arguments: object, stdin: str = "") -> tuple[int, Ran]:
        """Submit with --wait and give the job's number and what the tool said."""
        ran = self.run("submit", "--wait", *arguments, stdin=stdin)
        assert ran.stdout.strip().isdigit(), ran.stderr
        return int(ran.stdout), ran

    def status(self, *arguments: object) -> dict[str, Any]:
        """Give what wq-status --json says."""
        ran = self.run("status", "--json", *arguments)
        assert ran.returncode == 0, ran.stderr
        value: dict[str, Any] = json.loads(ran.stdout)
        return value

    def tasks(self, job: int) -> list[dict[str, Any]]:
        """Give all tasks of a job in order."""
        tasks: list[dict[str, Any]] = self.status("-T", job)["tasks"]
        return tasks

    def printed(self, job: int) -> list[str]:
        """Give what each task of a job printed."""
        return [task["record"]["stdout"]["text"] for task in self.tasks(job)]

    def jobs_ever(self) -> int:
        """Count the jobs there have been."""
        return int(self.status("-Q")["queue"]["jobs"])

    def on_terminal(self, tool: str, *arguments: object, env: dict[str, str] | None = None) -> str:
        """Run a tool whose stdout and stderr are a terminal and give all that it drew."""
        near, far = pty.openpty()
        colours = {"NO_COLOR": "", "TERM": "xterm-256color"}
        process = subprocess.Popen(
            self.site.command(tool, *arguments),
            cwd=self.folder,
            env=self.site.env | self.env | colours | (env or {}),
            stdin=far,
            stdout=far,
            stderr=far,
        )
        os.close(far)
        try:
            drawn = b"".join(_read_all(near))
            process.wait(WAIT_S)
        finally:
            process.kill()
            process.wait()
            os.close(near)
        return drawn.decode()


def _read_all(terminal: int) -> Iterator[bytes]:
    ends = time.monotonic() + WAIT_S
    while time.monotonic() < ends:
        if not select.select([terminal], [], [], 1.0)[0]:
            continue
        try:
            content = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            return
        if not content:
            return
        yield content
    raise AssertionError("the tool did not end")


@contextmanager
def new_desk(folder: Path, *, workers: int = 1) -> Iterator[Desk]:
    """Start a manager and workers below `folder` and end them afterwards."""
    with new_site(folder) as site:
        manager = site.start_manager()
        for _ in range(workers):
            site.start_worker(manager)
        yield Desk(site, manager)
