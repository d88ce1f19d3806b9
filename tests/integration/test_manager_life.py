"""A manager's life: ports, the lock, clean ends, kill -9 of either process."""

import os
import signal
import socket
import stat
from pathlib import Path

import msgspec
import pytest
from support.disks import fill, small_disk
from support.door_peer import DoorPeer
from support.processes import Manager, Site, is_alive, wait_until

from wqueue.protocol.messages import Registered


def ports_of(state_dir: Path) -> dict[str, int]:
    ports: dict[str, int] = msgspec.json.decode((state_dir / "ports").read_bytes())["ports"]
    return ports


def wait_until_replaced(manager: Manager, pid: int) -> None:
    """Kill that daemon and wait for the next, or for the supervisor's end."""
    os.kill(pid, signal.SIGKILL)

    def is_replaced() -> bool:
        has_new = manager.info().get("daemon_pid") != pid and is_alive(manager.daemon_pid)
        return has_new or not manager.is_running

    manager.may_end = True
    wait_until(is_replaced, what="the next daemon")


def listen(port: int = 0) -> socket.socket:
    taken = socket.socket()
    taken.bind(("127.0.0.1", port))
    taken.listen()
    return taken


# --- the first start --------------------------------------------------------------------------


def test_the_first_start_makes_keys_and_password_files_for_the_owner_alone(
    manager: Manager,
) -> None:
    names = ["keys", "password", "info.json", "manager.log", "secrets/worker", "secrets/observer"]
    for name in names:
        assert stat.S_IMODE((manager.state_dir / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE(manager.state_dir.stat().st_mode) == 0o700


def test_a_clean_end_removes_the_info_file_and_keeps_the_keys(site: Site) -> None:
    manager = site.start_manager()
    password = (manager.state_dir / "password").read_text()
    info = manager.info()
    assert manager.stop() == 0
    assert not (manager.state_dir / "info.json").exists()
    assert not manager.info_file.exists()
    again = site.start_manager()
    assert (again.state_dir / "password").read_text() == password
    assert again.info()["server_id"] == info["server_id"]
    assert again.info()["epoch"] == info["epoch"] + 1


def test_the_port_file_names_the_port(site: Site) -> None:
    path = site.folder / "port"
    manager = site.start_manager("--port-file", path)
    assert int(path.read_text()) == manager.port


# --- ports ------------------------------------------------------------------------------------


def test_a_state_directory_keeps_its_ports(site: Site) -> None:
    manager = site.start_manager()
    ports = ports_of(manager.state_dir)
    assert manager.stop() == 0
    again = site.start_manager()
    assert ports_of(again.state_dir) == ports
    assert again.port == ports["hello"]


def test_an_explicit_port_that_is_taken_is_an_error_that_names_the_holder(site: Site) -> None:
    with listen() as taken:
        port = taken.getsockname()[1]
        manager = site.start_manager("--port", port, is_awaited=False)
        assert manager.wait() == 6
    assert f"port {port} is taken" in manager.output()
    assert f"(pid {os.getpid()})" in manager.output()


def test_a_remembered_port_that_is_taken_is_an_error(site: Site) -> None:
    manager = site.start_manager()
    port = manager.port
    assert manager.stop() == 0
    with listen(port):
        again = site.start_manager(is_awaited=False)
        assert again.wait() == 6
    assert f"this state directory's own port {port} is taken" in again.output()


def test_the_default_port_moves_on_and_says_so(site: Site) -> None:
    state = site.folder / "state-default"
    command = ["--state-dir", state, "--listen", "127.0.0.1", "--info-file", site.folder / "info"]
    try:
        taken = listen(9123)
    except OSError:
        taken = listen()
    with taken:
        program = site.start("manager", *command)
        program.wait_for_line("port 9123 is taken; using ")
        wait_until((site.folder / "info").exists)
    assert 9123 < ports_of(state)["hello"] < 9223
    assert program.stop() == 0


def test_all_ports_are_within_the_range_that_was_named(site: Site) -> None:
    with listen() as near:
        low = near.getsockname()[1]
    manager = site.start_manager("--ports", f"{low}-{low + 20}", "--port", 0)
    assert all(low <= port <= low + 20 for port in ports_of(manager.state_dir).values())


# --- one manager per state directory ----------------------------------------------------------


def test_a_second_manager_on_a_state_directory_is_refused(site: Site, manager: Manager) -> None:
    second = site.start_manager(is_awaited=False)
    assert second.wait() == 6
    assert f"(pid {manager.pid})" in second.output()
    assert "--name" in second.output()
    assert manager.is_running


# --- violent ends -----------------------------------------------------------------------------


def test_the_supervisor_starts_a_killed_daemon_again(site: Site, manager: Manager) -> None:
    before = manager.info()
    manager.kill_daemon()
    wait_until(lambda: manager.info().get("daemon_pid") != before["daemon_pid"])
    manager.wait_until_ready()
    assert manager.info()["port"] == before["port"]
    assert manager.info()["epoch"] == before["epoch"] + 1
    with DoorPeer(manager) as peer:
        peer.open()


def test_the_daemon_dies_with_its_supervisor_and_the_next_start_works(site: Site) -> None:
    manager = site.start_manager()
    daemon_pid = manager.daemon_pid
    manager.kill()
    again = site.start_manager()
    assert not is_alive(daemon_pid)
    with DoorPeer(again) as peer:
        peer.open()


def test_both_killed_and_the_next_start_works_on_the_same_port(site: Site) -> None:
    manager = site.start_manager()
    port = manager.port
    manager.kill_all()
    again = site.start_manager()
    assert again.port == port


def test_three_ends_by_signal_within_a_minute_end_the_supervisor(site: Site) -> None:
    manager = site.start_manager()
    for _ in range(3):
        wait_until_replaced(manager, manager.daemon_pid)
    assert manager.wait() == 70
    assert "giving up" in manager.output()


def test_ctrl_c_ends_cleanly(site: Site) -> None:
    manager = site.start_manager()
    manager.may_end = True
    manager.signal(signal.SIGINT)
    assert manager.wait() == 0


def test_workers_hear_of_the_end(site: Site) -> None:
    manager = site.start_manager()
    with DoorPeer(manager, "worker", "secrets/worker") as peer:
        assert isinstance(peer.register(), Registered)
        assert manager.stop() == 0
        peer.wait_until_lost("task")


# --- a manager that stands still --------------------------------------------------------------


@pytest.mark.slow
def test_a_manager_that_stood_still_gives_everybody_a_new_chance(
    site: Site, manager: Manager
) -> None:
    with DoorPeer(manager) as peer:
        peer.open()
        os.kill(manager.daemon_pid, signal.SIGSTOP)
        try:
            with pytest.raises(AssertionError):
                peer.wait(lambda: False, "nothing", timeout_s=16.0)
        finally:
            os.kill(manager.daemon_pid, signal.SIGCONT)
        wait_until(lambda: manager.count_lines("stood still"))


# --- usage ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ports", "9-1"], "LOW-HIGH"),
        (["--port", "9000", "--ports", "9100-9200"], "is not between"),
        (["--no-password", "--password-file", "f"], "exclude each other"),
        (["--password-file", "missing"], "cannot read the password file"),
        (["--listen", "192.0.2.1"], "cannot listen on"),
        (["--name", "../x"], "cannot be called"),
        (["--port-file", "missing/port"], "cannot write"),
        (["--info-file", "missing/info"], "cannot write"),
    ],
)
def test_a_wrong_option_is_one_clear_line(site: Site, arguments: list[str], said: str) -> None:
    done = site.run("manager", *arguments)
    assert done.returncode in (2, 4)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_human_password_is_taken_and_a_short_one_refused(site: Site) -> None:
    path = site.folder / "pw"
    path.write_text("short\n")
    path.chmod(0o600)
    done = site.run("manager", "--password-file", path)
    assert done.returncode == 2
    assert "too short" in done.stderr


def test_a_daemon_killed_on_a_full_disk_comes_back_when_there_is_room(
    site: Site, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", "4m") as disk:
        manager = site.start_manager(state_dir=disk / "state")
        done = site.run("submit", "--state-dir", manager.state_dir, "--", "true")
        assert done.stdout == "1\n"
        filler = fill(disk)
        pid = manager.daemon_pid
        manager.may_end = True
        os.kill(pid, signal.SIGKILL)
        manager.wait_for_line("the disk is full: trying again")
        filler.unlink()
        wait_until(
            lambda: manager.info().get("daemon_pid") != pid and is_alive(manager.daemon_pid),
            what="the next daemon",
        )
        shown = site.run("status", "--state-dir", manager.state_dir, "1", "--json")
        assert shown.returncode == 0, shown.stderr
        manager.stop()
