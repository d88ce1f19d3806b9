"""What becomes of a manager with a bug in it, and of one that runs out of descriptors."""

import subprocess
import textwrap

import pytest
from support.door_peer import DoorPeer
from support.processes import Manager, Site, wait_until

from wqueue.manager.descriptors import divide
from wqueue.protocol.credentials import read_credential
from wqueue.protocol.errors import Refused
from wqueue.protocol.link import dial
from wqueue.protocol.messages import CancelTasks, JobRange, Query

PLANTED_BUG = """
    from wqueue.manager.core import core
    from wqueue.manager.core.events import ClientHeard
    from wqueue.protocol.messages import CancelTasks

    def handle(self, event, now, handle=core.Core.handle):
        if isinstance(event, ClientHeard) and isinstance(event.message, CancelTasks):
            assert event.message.ranges[0].job != 666, "the planted bug"
        return handle(self, event, now)

    core.Core.handle = handle
"""


@pytest.fixture
def buggy(site: Site) -> Manager:
    """A manager whose core fails at the job 666, as a bug would."""
    folder = site.folder / "bug"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(textwrap.dedent(PLANTED_BUG))
    return site.start_manager(env={"PYTHONPATH": str(folder)})


def set_off(manager: Manager) -> None:
    """Set the bug off and wait for the next daemon, or the supervisor's end."""
    before = manager.info()
    with DoorPeer(manager) as peer:
        peer.open()
        peer.send("client", CancelTasks(1, [JobRange(666)]))
        peer.wait_until_lost("client")
    wait_until(
        lambda: not manager.is_running or manager.info().get("epoch", 0) > before["epoch"],
        what="the next daemon",
    )


def test_a_bug_is_logged_with_what_led_to_it_and_the_daemon_starts_again(buggy: Manager) -> None:
    set_off(buggy)
    buggy.wait_until_ready()
    assert buggy.count_lines("the planted bug") >= 1
    assert buggy.count_lines("job=666") == 1
    assert buggy.count_lines("the last event came from test (pid") == 1
    assert buggy.count_lines("the daemon ended by a bug: starting it again") == 1
    with DoorPeer(buggy) as peer:
        peer.open()
        peer.send("client", Query(1, "queue"))


def test_no_secret_of_a_worker_is_in_the_log(buggy: Manager) -> None:
    with DoorPeer(buggy, "worker", "secrets/worker") as worker:
        worker.register()
        set_off(buggy)
    assert buggy.count_lines("WorkerRegistered") == 1
    blank = repr(bytes(32))
    assert buggy.count_lines(f"resume_secret={blank}") == 1


def test_a_bug_that_comes_back_ends_the_manager_with_a_clear_message(buggy: Manager) -> None:
    buggy.may_end = True
    for _ in range(3):
        buggy.wait_until_ready()
        set_off(buggy)
    assert buggy.wait() == 70
    assert "giving up; nothing that was acknowledged is lost" in buggy.output()


def test_newcomers_beyond_the_descriptors_are_refused_in_one_line(site: Site) -> None:
    ulimit = ("sh", "-c", 'ulimit -n 400; exec "$@"', "sh")
    manager = site.start_manager(prefix=ulimit)
    limits = divide(400)
    assert manager.count_lines(f"up to {limits.workers} workers and {limits.clients} clients") == 1
    credential = read_credential(manager.state_dir / "password")
    for _ in range(limits.clients):
        dial("127.0.0.1", manager.port, credential, role="owner")
    with pytest.raises(Refused, match="clients, all in use"):
        dial("127.0.0.1", manager.port, credential, role="owner")


@pytest.mark.parametrize("tool", ["manager", "worker"])
def test_a_program_without_enough_descriptors_says_so(site: Site, tool: str) -> None:
    command = site.command(tool, "--state-dir", site.folder / "state")
    few = ["sh", "-c", 'ulimit -n 60; exec "$@"', "sh", *command]
    done = subprocess.run(few, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "only 60 open files are allowed" in done.stderr


@pytest.mark.parametrize("descriptors", [256, 1024, 4096, 20_000, 1_048_576])
def test_descriptors_are_never_given_out_twice(descriptors: int) -> None:
    limits = divide(descriptors)
    assert limits.workers * 3 + limits.clients * 2 + limits.hellos < descriptors
    assert limits.workers > 0
