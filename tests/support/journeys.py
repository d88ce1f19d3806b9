"""What a user does from the wheel on: build it, install it elsewhere, follow the README.

Nothing here looks into the checkout once the wheel is built.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

ROOMS = {
    "client": "wqueue",
    "protocol": "wqueue/protocol",
    "manager": "wqueue/manager",
    "worker": "wqueue/worker",
    "cli": "wqueue/cli",
    "batch_scripts": "wqueue/batch_scripts",
}

NOT_PART_OF_A_CLONE = shutil.ignore_patterns(
    ".git",
    ".venv*",
    ".types",
    ".*_cache",
    ".hypothesis",
    "__pycache__",
    "*.egg-info",
    "demo-output",
)


def clean_environment() -> dict[str, str]:
    """Give the environment without what belongs to a checkout, a test or a manager."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WQ_", "PYTHON", "COV_", "VIRTUAL_ENV", "MAKE", "MFLAGS"))
    }


def call(arguments: list[str | Path], folder: Path, timeout_s: float = 300.0) -> str:
    """Run a command that must succeed; give what it printed."""
    done = subprocess.run(
        arguments,
        cwd=folder,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{arguments} gave {done.returncode}\n{done.stdout}"
    return done.stdout


def build_wheel(folder: Path) -> Path:
    """Build the wheel by way of the sdist, from a copy of the tree, as for a release."""
    copy = folder / "copy"
    shutil.copytree(ROOT, copy, ignore=NOT_PART_OF_A_CLONE)
    call([sys.executable, "-m", "build", "--outdir", folder / "dist", "."], copy)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """Install a wheel into a fresh virtual environment; give the folder of its programs."""
    call([sys.executable, "-m", "venv", folder / "venv"], folder)
    programs = folder / "venv" / "bin"
    call([programs / "python", "-m", "pip", "install", "--upgrade", "pip"], folder)
    call([programs / "python", "-m", "pip", "install", wheel], folder)
    return programs


def expected_in_wheel() -> set[str]:
    """List what the wheel must hold of the package: every module and data file of every room."""
    expected = set()
    for folder, package in ROOMS.items():
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".in") or path.name == "py.typed":
                expected.add(f"{package}/{path.relative_to(ROOT / folder).as_posix()}")
    return expected


def entry_points() -> list[str]:
    """List the tools that pyproject.toml declares."""
    return re.findall(r"^(wq-[a-z-]+) = ", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)


def some_sources(count: int) -> list[str]:
    """Give so many sources of the standard library, spread over it, none larger than 100 kB."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    found = [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*.py"))
        if "site-packages" not in path.parts and path.stat().st_size < 100_000
    ]
    return found[:: max(1, len(found) // count)][:count]
