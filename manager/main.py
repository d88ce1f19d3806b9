"""The daemon process: options to objects, run the loop, exit codes.

Started by the supervisor with the options as JSON and the supervisor's pid; its standard input is
the supervisor's pipe. The order of a start: keys, journal (which raises the epoch), ZAP, doors,
hello, files, the core; only then is the info file written, so whoever finds it finds a manager
that answers. All sockets and databases are opened before the first peer is let in (wire 1.13).
"""

import contextlib
import faulthandler
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import zmq

from wqueue._version import __version__
from wqueue.manager.core.core import Core
from wqueue.manager.core.limits import Settings
from wqueue.manager.descriptors import divide
from wqueue.manager.files import Files
from wqueue.manager.hello import HelloDoor
from wqueue.manager.keys import load_keys, manager_facts
from wqueue.manager.log import LOG, close_log, open_log
from wqueue.manager.loop import Loop, Waker
from wqueue.manager.options import Options, from_json
from wqueue.manager.ports import bind_door, listen_for_hello, recall_ports, remember_ports
from wqueue.manager.report import Facts
from wqueue.manager.requests import Requests
from wqueue.manager.shell import Shell
from wqueue.manager.store import Store, StoreReader
from wqueue.manager.wire import Wire, WireFacts
from wqueue.protocol.credentials import write_private
from wqueue.protocol.descriptors import raise_descriptors
from wqueue.protocol.errors import EXIT_BUG, EXIT_OK, StoreError, UsageError, WqueueError
from wqueue.protocol.handshake import ManagerFacts
from wqueue.protocol.locate import INFO_NAME, PASSWORD_NAME, Info, write_info

DESCRIPTORS_MIN = 200
"""Descriptors without which a manager would serve nobody."""

JOURNAL_NAME = "journal.sqlite"
LOG_NAME = "manager.log"


class Daemon:
    """One run of the daemon, from options to the end."""

    def __init__(self, options: Options, supervisor_pid: int) -> None:
        self._options = options
        self._supervisor_pid = supervisor_pid
        self._state_dir = Path(options.state_dir)
        self._written: list[Path] = []
        self._closing = contextlib.ExitStack()

    def run(self) -> None:
        """Serve until asked to stop. Raises WqueueError when it cannot begin."""
        with self._closing:
            loop, shell = self._build()
            try:
                loop.run()
            except Exception:
                # A bug, whatever its class: tell what led to it; the supervisor starts anew.
                LOG.exception("a bug ended the manager; its last events were:")
                shell.log_recent()
                raise SystemExit(EXIT_BUG) from None
            for path in self._written:
                path.unlink(missing_ok=True)

    def _build(self) -> tuple[Loop, Shell]:
        options, state_dir = self._options, self._state_dir
        limits = divide(raise_descriptors(DESCRIPTORS_MIN))
        keys = load_keys(state_dir)
        waker = Waker()
        self._closing.callback(waker.close)
        store = Store(state_dir / JOURNAL_NAME, waker.wake)
        restored = store.open()
        self._closing.callback(_close_store, store)
        facts = manager_facts(
            keys,
            epoch=restored.epoch,
            project=options.name,
            state_dir=state_dir,
            password_file=options.password_file,
            has_password=options.has_password,
        )
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._closing.callback(context.term)
        wire = Wire(context, WireFacts(facts.epoch, facts.secret_key))
        self._closing.callback(wire.close)
        hello = self._open_doors(wire, facts, limits.hellos)
        settings = _settings(options)
        core = Core(settings)
        shell = Shell(core, store, wire, waker.wake, is_checking=options.is_checking_invariants)
        shell.files = Files(state_dir, shell)
        shell.files.start(restored)
        self._closing.callback(shell.files.close)
        host, addresses = self._addresses()
        view = self._view(facts, host)
        shell.requests = Requests(shell, view, StoreReader(state_dir / JOURNAL_NAME))
        self._closing.callback(shell.requests.close)
        shell.begin_turn()
        shell.restore(restored)
        loop = Loop(
            shell,
            wire,
            hello,
            waker,
            facts=facts,
            limits=limits,
            heartbeat_s=settings.heartbeat_s,
            parent=sys.stdin.fileno(),
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: loop.ask_to_stop())
        self._publish(facts, host, addresses)
        LOG.info("limits: %s", limits.sentence())
        return loop, shell

    def _view(self, facts: ManagerFacts, host: str) -> Facts:
        return Facts(
            name=self._options.name,
            server_id=facts.server_id,
            host=host,
            port=self._port,
            software=f"wqueue {__version__}",
            started_monotonic_s=time.monotonic(),
            state_dir=os.fsencode(self._state_dir),
        )

    def _open_doors(self, wire: Wire, facts: ManagerFacts, hellos: int) -> HelloDoor:
        options = self._options
        remembered = recall_ports(self._state_dir)
        listener, remark = listen_for_hello(
            options.listen, options.port, options.ports, remembered.get("hello")
        )
        if remark:
            LOG.warning("%s", remark)
        self._port = int(listener.getsockname()[1])
        ports = {"hello": self._port}
        for name, door in wire.doors.items():
            ports[name] = bind_door(
                lambda port, door=door: door.bind(options.listen, port),  # type: ignore[misc]
                self._port,
                options.ports,
                remembered.get(name),
            )
        if ports != remembered:
            remember_ports(self._state_dir, ports)

        def endpoints_at(local: str) -> dict[str, str]:
            return {name: f"tcp://{local}:{ports[name]}" for name in wire.doors}

        hello = HelloDoor(listener, facts, endpoints_at, wire.allow, hellos)
        self._closing.callback(hello.close)
        return hello

    def _addresses(self) -> tuple[str, list[str]]:
        options = self._options
        if options.advertise:
            return options.advertise[0], list(options.advertise)
        if options.listen not in ("0.0.0.0", ""):
            return options.listen, [options.listen]
        host = socket.gethostname()
        found = [
            entry.address
            for entries in psutil.net_if_addrs().values()
            for entry in entries
            if entry.family == socket.AF_INET and not entry.address.startswith("127.")
        ]
        return host, [host, *found]

    def _publish(self, facts: ManagerFacts, host: str, addresses: list[str]) -> None:
        """Tell where we are: in files for tools and scripts, in a few lines for people."""
        options, state_dir = self._options, self._state_dir
        info = Info(
            name=options.name,
            server_id=facts.server_id.hex(),
            epoch=facts.epoch,
            host=host,
            addresses=addresses,
            port=self._port,
            supervisor_pid=self._supervisor_pid,
            daemon_pid=os.getpid(),
            manager_key=facts.public_key.hex(),
            version=__version__,
            state_dir=str(state_dir),
        )
        for path in (state_dir / INFO_NAME, options.info_file and Path(options.info_file)):
            if path:
                self._write(path, partial(write_info, path, info))
        if options.port_file:
            path = Path(options.port_file)
            self._write(path, partial(write_private, path, f"{self._port}\n".encode()))
        LOG.info(
            "manager %r listens on %s:%d (wqueue %s, start %d)",
            options.name,
            host,
            self._port,
            __version__,
            facts.epoch,
        )
        LOG.info("state directory %s, password file %s", state_dir, state_dir / PASSWORD_NAME)
        LOG.info("start workers with: wq-worker %s %d", host, self._port)

    def _write(self, path: Path, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from error
        self._written.append(path)


def _settings(options: Options) -> Settings:
    given = {
        "worker_grace_s": options.worker_grace_s,
        "reattach_wait_s": options.reattach_wait_s,
        "manager_grace_s": options.manager_grace_s,
    }
    return Settings(**{name: value for name, value in given.items() if value is not None})


def _close_store(store: Store) -> None:
    try:
        store.close()
    except StoreError as error:
        LOG.error("the journal was not closed cleanly: %s", error)


def main() -> None:
    """Run the daemon: the supervisor's child, never called by hand."""
    faulthandler.enable()
    options = from_json(sys.argv[1])
    open_log(Path(options.state_dir) / LOG_NAME)
    try:
        Daemon(options, int(sys.argv[2])).run()
    except WqueueError as error:
        LOG.error("%s", error)
        sys.exit(error.exit_code)
    except Exception:
        LOG.exception("a bug ended the manager at its start")
        sys.exit(EXIT_BUG)
    finally:
        close_log()
    sys.exit(EXIT_OK)


if __name__ == "__main__":
    main()
