"""Options to objects to loop.run(): a worker process from its start to its exit code."""

import ctypes
import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from msgspec import Struct

from wqueue.protocol.credentials import Credential
from wqueue.protocol.descriptors import need_descriptors
from wqueue.protocol.errors import ManagerUnreachable, UsageError
from wqueue.protocol.link import Proven, ask_server_id, dial_first
from wqueue.protocol.locate import Found, find_credential, find_manager
from wqueue.worker.core.core import Core
from wqueue.worker.core.session import BACK_OFF_MAX_S, BACK_OFF_MIN_S
from wqueue.worker.core.settings import Settings
from wqueue.worker.loop import Loop
from wqueue.worker.machine import Machine, Wishes, measure
from wqueue.worker.outbox import Outbox
from wqueue.worker.process import Spawner
from wqueue.worker.workdir import Workdir, open_workdir

PR_SET_PDEATHSIG = 1

DESCRIPTORS_MIN = 100
"""Descriptors for links, threads, files under way and the spawner."""

CACHE_SHARE = 2
"""The cache may take one part in so many of the disk that the worker offers."""

Say = Callable[[str, str], None]


class Options(Struct, frozen=True):
    """What the command line said; None where it said nothing."""

    manager: str | None = None
    info_file: str | None = None
    state_dir: str | None = None
    name: str | None = None
    password_file: str | None = None
    wishes: Wishes = Wishes()
    features: list[str] = []
    workdir: str | None = None
    idle_timeout_s: float = 900.0
    connect_timeout_s: float = 900.0
    wall_time_s: float | None = None
    manager_grace_s: float | None = None
    is_single_shot: bool = False
    dies_with_parent: bool = False

    def find(self) -> Found:
        """Find the manager anew: it may have moved since."""
        return find_manager(self.manager, self.info_file, self.state_dir, self.name)


def run(options: Options, say: Say) -> int:
    """Be a worker; give the exit code. Raises WqueueError when it cannot begin.

    `say` gets a level ("info", "warning", "error") and a line for people.
    """
    # House rule: broken invariants end the process, so they must be looked at.
    if not __debug__:
        raise UsageError("python -O takes the checks of invariants away; run without it")
    need_descriptors(DESCRIPTORS_MIN)
    began_s = time.monotonic()
    stop_signals: deque[str] = deque()
    wake = _catch_signals(stop_signals)
    if options.dies_with_parent:
        _die_with_parent()
    found = _first_look(options, stop_signals, wake, say)
    if found is None:
        return 0
    credential, server_id = found
    workdir = open_workdir(server_id, Path(options.workdir) if options.workdir else None)
    try:
        machine = measure(workdir.path, options.wishes)
        offer = machine.resources
        say(
            "info",
            f"using {offer.cores_milli / 1000:g} cores, {offer.memory_mb} MB memory, "
            f"{offer.disk_mb} MB disk, {offer.gpus} gpus in {workdir.path}",
        )
        spent_s = time.monotonic() - began_s
        settings = _settings(options, machine, workdir, spent_s)
        return _serve(options, settings, credential, workdir, stop_signals, wake, say)
    finally:
        workdir.close()


def _serve(
    options: Options,
    settings: Settings,
    credential: Credential,
    workdir: Workdir,
    stop_signals: deque[str],
    wake: int,
    say: Say,
) -> int:
    def dial() -> tuple[Proven, str]:
        found = options.find()
        proven = dial_first(found.addresses, found.port, credential, role="worker")
        return proven, f"{found.host}:{found.port}"

    outbox = Outbox(workdir.outbox)
    spawner = Spawner(os.fsencode(workdir.path))
    try:
        swept = workdir.sweep([kept.sandbox for kept in outbox.pending()])
        if swept.process_count:
            say("warning", f"ended {swept.process_count} processes that an earlier worker left")
        spawner.start()
        core = Core(settings, time.monotonic())
        return Loop(core, workdir, outbox, spawner, dial, say).run(stop_signals, wake)
    finally:
        spawner.stop()
        outbox.close()


def _settings(options: Options, machine: Machine, workdir: Workdir, spent_s: float) -> Settings:
    offer = machine.resources
    gpu_ids = machine.gpu_ids[: offer.gpus]
    gpu_ids += [str(number) for number in range(len(gpu_ids), offer.gpus)]
    wall_time_s = options.wall_time_s
    return Settings(
        resume_secret=os.urandom(32),
        resources=offer,
        host=machine.host,
        pid=os.getpid(),
        software=machine.software,
        python=machine.python,
        features=options.features,
        workdir=os.fsencode(workdir.path),
        gpu_ids=gpu_ids,
        cache_bytes_max=offer.disk_mb * 2**20 // CACHE_SHARE,
        idle_timeout_s=options.idle_timeout_s,
        connect_timeout_s=max(0.0, options.connect_timeout_s - spent_s),
        wall_time_s=None if wall_time_s is None else max(0.0, wall_time_s - spent_s),
        manager_grace_s=options.manager_grace_s,
        is_single_shot=options.is_single_shot,
    )


def _first_look(
    options: Options, stop_signals: deque[str], wake: int, say: Say
) -> tuple[Credential, bytes] | None:
    """Find the credential and the server id; wait for a manager that is not there yet.

    None when the worker was asked to stop meanwhile.
    """
    ends_s = time.monotonic() + options.connect_timeout_s
    delay_s = BACK_OFF_MIN_S
    has_complained = False
    while not stop_signals:
        try:
            found = options.find()
            credential = find_credential(found, options.password_file)
            server_id = credential.server_id or found.server_id
            return credential, server_id or ask_server_id(found.addresses, found.port)
        except ManagerUnreachable as error:
            left_s = ends_s - time.monotonic()
            if left_s <= 0:
                raise ManagerUnreachable(
                    f"no manager answered for {options.connect_timeout_s:g} s: {error}"
                ) from error
            if not has_complained:
                has_complained = True
                say("warning", f"{error}; trying again for up to {options.connect_timeout_s:g} s")
            # Not sleep(): a signal shall be heard at once.
            select.select([wake], [], [], min(delay_s, left_s))
            delay_s = min(BACK_OFF_MAX_S, delay_s * 2)
    return None


def _catch_signals(stop_signals: deque[str]) -> int:
    """Note signals that ask to end, and give a descriptor that is readable when one came."""
    wake_out, wake_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def note(number: int, frame: FrameType | None) -> None:
        stop_signals.append(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, note)
    signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
    return wake_out


def _die_with_parent() -> None:
    """Have SIGTERM sent to this process when its parent ends, however that ends."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
