"""The only place that blocks: wait for something, hear it, carry out what follows, send.

A turn has bounds: so many batches per door, at most four file chunks, a few milliseconds of
clients' requests, control first. Nothing in it
waits for a disk, another thread or a peer. When the turn is over everything it decided has been
handed to the store and all that may go is on its way; then the loop sleeps until something happens
or a time is reached.
"""

import math
import os
import time

from wqueue.manager.core.events import Now, Resumed, StopRequested
from wqueue.manager.descriptors import Limits
from wqueue.manager.hello import HelloDoor
from wqueue.manager.limits import COMMIT_PAUSE_S, PROGRESS_EVERY_S, READ_AGAIN_S, STOP_MAX_S
from wqueue.manager.log import LOG
from wqueue.manager.shell import Shell
from wqueue.manager.wire import ROUTERS, Wire
from wqueue.protocol.handshake import ManagerFacts
from wqueue.protocol.limits import SILENCE_MAX_S
from wqueue.protocol.messages import ManagerHeartbeat
from wqueue.protocol.poller import Poller

TICK_S = 1.0
"""Interval of the chores: the loop never sleeps longer."""

DRAIN_TURNS_MAX = 1000
"""After a standstill, at most so many turns of reading before the time is looked at."""


class Waker:
    """Wakes the loop from another thread or a signal handler."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """The descriptor to poll for input."""
        return self._descriptor

    def wake(self) -> None:
        """Have the loop begin a turn soon."""
        os.eventfd_write(self._descriptor, 1)

    def rest(self) -> None:
        """Take note of all wakes so far."""
        os.eventfd_read(self._descriptor)

    def close(self) -> None:
        """Close the descriptor; nothing may wake any more."""
        os.close(self._descriptor)


class Loop:
    """The manager's poll loop."""

    def __init__(
        self,
        shell: Shell,
        wire: Wire,
        hello: HelloDoor,
        waker: Waker,
        *,
        facts: ManagerFacts,
        limits: Limits,
        heartbeat_s: float,
        parent: int | None = None,
    ) -> None:
        """`parent` is a pipe from the supervisor: its end of file asks for a stop."""
        self._shell = shell
        self._wire = wire
        self._hello = hello
        self._waker = waker
        self._facts = facts
        self._limits = limits
        self._heartbeat_s = heartbeat_s
        self._parent = parent
        self._beat = 0
        self._beat_at_s = 0.0
        self._tick_at_s = 0.0
        self._progress_at_s: float | None = None
        self._has_more = False
        self._stop_asked = False
        self._stop_by_s = math.inf
        self._poller = Poller()
        self._poller.register(waker.fileno())
        self._poller.register(hello.fileno())
        self._poller.register(wire.zap.socket, is_sent_on=True)
        if parent is not None:
            self._poller.register(parent)
        for door in wire.doors.values():
            self._poller.register(door.socket, is_sent_on=True)
            self._poller.register(door.monitor)

    def ask_to_stop(self) -> None:
        """Ask for a clean end; a signal handler may call this."""
        self._stop_asked = True
        self._waker.wake()

    def run(self) -> None:
        """Run until a stop was asked for and all that was decided is committed and sent."""
        last_s = self._shell.begin_turn().monotonic_s
        while not self._is_over():
            ready = self._ready(self._timeout_ms())
            now = self._shell.begin_turn()
            if now.monotonic_s - last_s > SILENCE_MAX_S / 2:
                self._resume(now.monotonic_s - last_s, ready, now)
            self._turn(ready, now)
            last_s = now.monotonic_s

    def _ready(self, timeout_ms: int) -> dict[object, None]:
        return dict.fromkeys(self._poller.poll(timeout_ms))

    # --- one turn ----------------------------------------------------------------------------

    def _turn(self, ready: dict[object, None], now: Now) -> None:
        self._read(ready, now)
        self._shell.tick()
        self._chores(now)
        self._has_more = self._shell.files.pump()
        self._shell.run_events()
        self._shell.write_records()
        held_s = self._wire.flush(self._shell.store.committed, now.monotonic_s)
        self._progress_at_s = held_s + PROGRESS_EVERY_S if held_s is not None else None
        if self._shell.store.is_overdue(now.monotonic_s):
            # A loop that never blocks keeps the interpreter's lock from the store's thread.
            time.sleep(COMMIT_PAUSE_S)

    def _read(self, ready: dict[object, None], now: Now) -> None:
        shell, wire, now_s = self._shell, self._wire, now.monotonic_s
        if self._waker.fileno() in ready:
            self._waker.rest()
            shell.hear_store()
            shell.run_posted()
        if self._parent is not None and self._parent in ready:
            self._read_parent()
        if wire.zap.socket in ready:
            # While a connection waits for its answer, its address can be learned for certain.
            for name in wire.doors:
                wire.read_monitor(name, now_s)
            wire.zap.answer_all()
        if self._hello.fileno() in ready:
            for admitted in self._hello.serve(now_s):
                wire.admit(admitted)
            self._limit_newcomers()
        for name, door in wire.doors.items():
            if door.monitor in ready:
                wire.read_monitor(name, now_s)
        for name in ROUTERS:
            if wire.doors[name].socket in ready or wire.is_anyone_ending:
                self._hear(name, now_s)
        shell.serve_clients()
        shell.requests.read_on()
        if wire.doors["announce"].socket in ready:
            wire.hear_subscriptions(now_s)
        for peer in wire.take_lost():
            shell.lose(peer)
            self._limit_newcomers()
        if self._stop_asked:
            self._begin_stop(now)

    def _hear(self, name: str, now_s: float) -> None:
        if name == "client" and not self._shell.is_hearing_clients:
            return
        for heard in self._wire.hear(name, now_s):
            self._shell.hear(heard)
            if name == "client" and not self._shell.is_hearing_clients:
                return

    def _chores(self, now: Now) -> None:
        now_s = now.monotonic_s
        if now_s >= self._beat_at_s:
            self._beat += 1
            self._beat_at_s = now_s + self._heartbeat_s
            self._wire.announce([ManagerHeartbeat(self._beat)])
        if now_s >= self._tick_at_s:
            self._tick_at_s = now_s + TICK_S
            self._shell.files.tick(now_s)
        if _is_due(self._hello.deadline(), now_s):
            self._hello.expire(now_s)
        if _is_due(self._wire.deadline(), now_s):
            self._wire.expire(now_s)

    def _resume(self, stood_s: float, ready: dict[object, None], now: Now) -> None:
        """After a standstill, hear everything that came meanwhile before judging any silence."""
        LOG.warning("the manager stood still for %.1f s; every limit begins anew", stood_s)
        for _ in range(DRAIN_TURNS_MAX):
            self._read(ready, now)
            ready = self._ready(0)
            if not ready:
                break
        self._shell.emit(Resumed())
        self._shell.run_events()

    def _timeout_ms(self) -> int:
        shell = self._shell
        if self._has_more or self._wire.is_anyone_ending or shell.has_waiting_clients:
            return 0
        times = [self._beat_at_s, self._tick_at_s, self._stop_by_s]
        if shell.requests.is_holding_back:
            times.append(time.monotonic() + READ_AGAIN_S)
        times += [
            at_s
            for at_s in (
                shell.core.deadline(),
                self._hello.deadline(),
                self._wire.deadline(),
                self._progress_at_s,
            )
            if at_s is not None
        ]
        return max(0, math.ceil((min(times) - time.monotonic()) * 1000))

    def _limit_newcomers(self) -> None:
        workers = self._wire.worker_count
        full: dict[str, str] = {}
        if workers >= self._limits.workers:
            text = f"this manager has descriptors for {self._limits.workers} workers, all in use"
            full["worker"] = text
        if len(self._wire.peers) - workers >= self._limits.clients:
            text = f"this manager has descriptors for {self._limits.clients} clients, all in use"
            full |= dict.fromkeys(("owner", "client", "observer"), text)
        self._facts.full = full

    # --- the end -----------------------------------------------------------------------------

    def _read_parent(self) -> None:
        assert self._parent is not None, "no parent to read"
        if not os.read(self._parent, 4096):
            LOG.warning("the supervisor is gone; ending")
            self._poller.unregister(self._parent)
            self._parent = None
            self._stop_asked = True

    def _begin_stop(self, now: Now) -> None:
        self._stop_asked = False
        LOG.info("asked to stop")
        self._shell.emit(StopRequested(is_final=False))
        self._shell.run_events()

    def _is_over(self) -> bool:
        if not self._shell.is_stopping:
            return False
        now_s = time.monotonic()
        self._stop_by_s = min(self._stop_by_s, now_s + STOP_MAX_S)
        return self._shell.is_committed or now_s >= self._stop_by_s


def _is_due(deadline_s: float | None, now_s: float) -> bool:
    return deadline_s is not None and deadline_s <= now_s
