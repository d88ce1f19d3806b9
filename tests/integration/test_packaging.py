"""The wheel: whole, nothing else in it, and of use outside the checkout."""

import zipfile
from pathlib import Path

import pytest
from support.journeys import call, entry_points, expected_in_wheel

pytestmark = pytest.mark.slow


def test_the_wheel_holds_every_module_of_every_room_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    about = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert names - about == expected_in_wheel()
    assert {Path(name).name for name in about} == {
        "METADATA",
        "WHEEL",
        "entry_points.txt",
        "top_level.txt",
        "RECORD",
        "LICENSE",
    }


def test_the_wheel_is_typed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert "wqueue/py.typed" in archive.namelist()


def test_every_tool_explains_itself_in_a_fresh_environment(programs: Path, tmp_path: Path) -> None:
    tools = entry_points()
    assert "wq-manager" in tools
    assert "wq-worker" in tools
    for tool in tools:
        assert "Usage" in call([programs / tool, "--help"], tmp_path)


def test_a_script_of_the_user_named_like_a_room_does_not_collide(
    programs: Path, tmp_path: Path
) -> None:
    for room in ("manager", "worker", "protocol", "client", "cli"):
        (tmp_path / f"{room}.py").write_text("MINE = True\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import manager, worker, protocol, client, cli, wqueue\n"
        "assert manager.MINE and worker.MINE and protocol.MINE and client.MINE and cli.MINE\n"
        "wqueue.Task(['true'])\n"
        "assert 'site-packages' in wqueue.__file__, wqueue.__file__\n"
    )
    call([programs / "python", script], tmp_path)


def test_the_checkout_is_left_as_it_was(wheel: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    assert wheel.exists()
    assert not (root / "build").exists()
