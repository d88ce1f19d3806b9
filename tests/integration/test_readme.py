"""The README's first run, done as written, with the wheel in a fresh environment (issue 2, M7).

A block after "<!-- first run -->" is run in one shell, command by command, and what it prints must
be what the README shows, numbers and blanks aside; "..." stands for any lines. A block after
"<!-- first run, another terminal -->" is started in the background before the next one.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.journeys import ROOT, clean_environment
from support.processes import wait_until

pytestmark = pytest.mark.slow

BLOCK = re.compile(
    r"<!-- first run(?P<where>, another terminal)? -->\n+```console\n(?P<text>.*?)```", re.DOTALL
)

WAIT_S = 60.0


class Step(NamedTuple):
    """A command and the output that the README shows under it."""

    command: str
    shown: list[str]


def steps_of(text: str) -> list[Step]:
    steps: list[Step] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            steps.append(Step(line[2:], []))
        elif line.startswith("> "):
            steps[-1] = Step(f"{steps[-1].command}\n{line[2:]}", [])
        else:
            steps[-1].shown.append(line)
    return steps


def blocks() -> list[tuple[bool, list[Step]]]:
    """Give the README's blocks in order: is it another terminal's, and its steps."""
    text = (ROOT / "README.md").read_text()
    return [(bool(found["where"]), steps_of(found["text"])) for found in BLOCK.finditer(text)]


def normalized(line: str) -> str:
    """Take out what differs from run to run: numbers, sizes, times, hosts, paths and widths."""
    line = re.sub(r"(/[\w.+-]+){2,}/?", "PATH", line)
    line = re.sub(r"\d+([.:,]\d+)*( ?(ms|s|min|h|kB|MB|GB|[kMGT]))?\b", "N", line)
    line = line.replace(os.uname().nodename, "HOST").replace("headnode", "HOST")
    return re.sub(r"[\s\-─━]+", " ", line).strip()


def assert_alike(shown: list[str], printed: str, command: str) -> None:
    pattern = "".join(
        r"(.*\n)*?" if line.strip() == "..." else re.escape(normalized(line)) + r"\n"
        for line in shown
    )
    got = "".join(normalized(line) + "\n" for line in printed.splitlines())
    assert re.fullmatch(pattern, got), (
        f"the README shows for {command!r}:\n" + "\n".join(shown) + f"\nbut it gave:\n{printed}"
    )


@pytest.fixture
def environment(programs: Path, tmp_path: Path) -> dict[str, str]:
    home = tmp_path / "home"
    home.mkdir()
    env = clean_environment() | {"HOME": str(home), "NO_COLOR": "1", "COLUMNS": "100"}
    for name in ("XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        env.pop(name, None)
    env["TMPDIR"] = str(tmp_path)
    env["PATH"] = f"{programs}:{env['PATH']}"
    return env


@pytest.fixture
def shell(environment: dict[str, str], tmp_path: Path) -> Iterator["Shell"]:
    folder = tmp_path / "work"
    folder.mkdir()
    it = Shell(folder, environment)
    yield it
    it.close()


class Shell:
    """Several terminals in one folder."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self.env = env
        self.others: list[tuple[subprocess.Popen[bytes], Path, Step]] = []

    def run(self, step: Step) -> None:
        done = subprocess.run(
            ["bash", "-c", step.command],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert_alike(step.shown, done.stdout, step.command)

    def start(self, step: Step) -> None:
        log = self.folder.parent / f"terminal-{len(self.others)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {step.command}"],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.others.append((process, log, step))
        lines = sum(line.strip() != "..." for line in step.shown)
        wait_until(
            lambda: len(log.read_text().splitlines()) >= lines or process.poll() is not None,
            WAIT_S,
            f"what the README shows of {step.command!r}",
        )
        assert_alike(["...", *step.shown, "..."], log.read_text(), step.command)

    def close(self) -> None:
        for process, _, _ in reversed(self.others):
            if process.poll() is None:
                process.terminate()
                process.wait(WAIT_S)


def test_the_first_run_does_what_the_readme_shows(shell: Shell) -> None:
    found = blocks()
    assert [is_other for is_other, _ in found] == [True, True, False]
    for is_other, steps in found:
        for step in steps:
            if is_other:
                shell.start(step)
            else:
                shell.run(step)
    for process, _, step in shell.others:
        assert process.wait(WAIT_S) == 0, f"{step.command} ended with {process.returncode}"


def test_every_tool_and_option_that_the_readme_names_exists(programs: Path) -> None:
    text = (ROOT / "README.md").read_text()
    helps: dict[str, str] = {}
    for line in text.splitlines():
        for tool in re.findall(r"\bwq-[a-z]+\b", line):
            if tool not in helps:
                done = subprocess.run(
                    [programs / tool, "--help"], capture_output=True, text=True, check=True
                )
                helps[tool] = done.stdout
        tools = re.findall(r"\bwq-[a-z]+\b", line)
        command = line.partition(" -- ")[0]
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", command):
            if len(set(tools)) == 1 and "sbatch" not in line:
                assert option in helps[tools[0]], f"{tools[0]} has no {option}: {line}"


def test_every_message_that_the_readme_explains_is_one_of_ours() -> None:
    table = (ROOT / "README.md").read_text().partition("## When something is wrong")[2]
    messages = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
    assert len(messages) > 10
    sources = " ".join(
        path.read_text()
        for room in ("protocol", "manager", "worker", "client", "cli")
        for path in (ROOT / room).rglob("*.py")
    )
    spoken = re.sub(r'"\s*\n\s*f?"', "", sources)
    for message in messages:
        fixed = re.sub(r"HOST:PORT| \d+", "", message).strip()
        assert fixed in spoken, f"no source says {fixed!r}"
