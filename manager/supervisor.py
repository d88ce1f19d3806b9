"""Starts the daemon again after a bug or a signal; nothing else.

The supervisor holds the state directory's lock and shares it with the daemon, so no other manager
slips in while one daemon ends and the next begins. The daemon ends when its standard input does:
whoever kills the supervisor has ended both. A daemon that refused to start, or was asked to stop,
is not started again.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from wqueue.manager.limits import LOCK_WAIT_S, RESTARTS_MAX, RESTARTS_WITHIN_S, ROOM_PAUSE_S
from wqueue.manager.options import Options, to_json
from wqueue.protocol.errors import EXIT_BUG, JournalFull, Refused, StoreError
from wqueue.protocol.locate import make_state_dir

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_LOCK_POLL_S = 0.05


def supervise(options: Options) -> int:
    """Run a manager until it ends and give the exit code. Raises Refused when one runs already."""
    state_dir = Path(options.state_dir)
    make_state_dir(state_dir)
    lock = take_lock(state_dir)
    try:
        return _Supervisor(options, state_dir, lock).run()
    finally:
        os.close(lock)


def take_lock(state_dir: Path) -> int:
    """Take the state directory's lock and give its descriptor.

    A daemon whose supervisor was killed ends by itself within moments and is waited for. Raises
    Refused while another manager lives.
    """
    lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    ends = time.monotonic() + LOCK_WAIT_S
    while not _try_lock(lock):
        holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
        if not holder.isdigit() or _is_alive(int(holder)) or time.monotonic() > ends:
            os.close(lock)
            raise Refused(
                f"a manager (pid {holder or 'unknown'}) uses the state directory {state_dir} "
                "already; start another one with: wq-manager --name NAME",
                "locked",
            )
        time.sleep(_LOCK_POLL_S)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class _Supervisor:
    def __init__(self, options: Options, state_dir: Path, lock: int) -> None:
        self._options = options
        self._state_dir = state_dir
        self._lock = lock
        self._daemon: subprocess.Popen[bytes] | None = None
        self._stops = 0

    def run(self) -> int:
        restore = self._catch_signals()
        ends: deque[float] = deque(maxlen=RESTARTS_MAX)
        try:
            while True:
                code = self._run_daemon()
                if code == JournalFull.exit_code:
                    if not ends:
                        return StoreError.exit_code
                    self._wait_for_room()
                    continue
                if self._stops or 0 <= code != EXIT_BUG:
                    return max(code, 0)
                how = f"signal {-code}" if code < 0 else "a bug"
                ends.append(time.monotonic())
                if len(ends) == RESTARTS_MAX and ends[-1] - ends[0] < RESTARTS_WITHIN_S:
                    self._say(
                        f"the daemon ended by {how}, {RESTARTS_MAX} times within "
                        f"{RESTARTS_WITHIN_S:g} s: giving up; nothing that was acknowledged is "
                        f"lost; see {self._state_dir / 'manager.log'}"
                    )
                    return EXIT_BUG
                self._say(f"the daemon ended by {how}: starting it again")
        finally:
            restore()

    def _wait_for_room(self) -> None:
        """Pause before another try; a signal ends the pause, and the next try ends at once."""
        self._say(f"the disk is full: trying again in {ROOM_PAUSE_S:g} s")
        until_s = time.monotonic() + ROOM_PAUSE_S
        while not self._stops and time.monotonic() < until_s:
            time.sleep(0.1)

    def _run_daemon(self) -> int:
        command = [sys.executable, "-m", "wqueue.manager.main", to_json(self._options)]
        # A session of its own: the terminal's Ctrl-C reaches the daemon through us alone.
        with subprocess.Popen(
            [*command, str(os.getpid())],
            stdin=subprocess.PIPE,
            pass_fds=[self._lock],
            start_new_session=True,
        ) as daemon:
            self._daemon = daemon
            if self._stops:
                daemon.terminate()
            code = daemon.wait()
            self._daemon = None
        return code

    def _catch_signals(self) -> Callable[[], None]:
        before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._pass_on)

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        return restore

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        """Ask the daemon to stop; a second time, end it at once, which loses nothing."""
        self._stops += 1
        daemon = self._daemon
        if daemon is not None and daemon.poll() is None:
            daemon.send_signal(signal.SIGTERM if self._stops == 1 else signal.SIGKILL)

    def _say(self, text: str) -> None:
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} ERROR {text}\n"
        sys.stderr.write(line)
        sys.stderr.flush()
        # No daemon runs now, so nobody rotates the log at the same time.
        with contextlib.suppress(OSError), (self._state_dir / "manager.log").open("a") as log:
            log.write(line)
