"""The worker's side of sessions: when to connect, when a manager counts as lost, when to give up.

    offline      Connect was asked for, or nothing is wanted any more
    registering  the task link is up and Register was sent
    live         Registered has come

A lower epoch than one seen before means that the manager's store was rolled back: such a manager
is served, but nothing is discarded on its word.
"""

from wqueue.protocol.limits import HEARTBEAT_S, SILENCE_MAX_S
from wqueue.worker.core.events import Connect, Disconnect, Effect
from wqueue.worker.core.settings import MANAGER_GRACE_S, Settings

BACK_OFF_MIN_S = 0.1
"""Delay before the second attempt to connect; it doubles from there."""

BACK_OFF_MAX_S = 15.0
"""Longest delay between two attempts to connect."""

LOST_SPREAD_S = 3.0
"""Workers that lost the same manager come back within this time, not all at once."""

OFFLINE = "offline"
REGISTERING = "registering"
LIVE = "live"


class Session:
    """The one session there is, or the wish for one."""

    def __init__(self, settings: Settings, now_s: float) -> None:
        self._connect_timeout_s = settings.connect_timeout_s
        self._own_grace_s = settings.manager_grace_s
        self._grace_s = MANAGER_GRACE_S if self._own_grace_s is None else self._own_grace_s
        self.number = 0
        self.phase = OFFLINE
        self.address = ""
        self.epoch_seen = 0
        self.is_rolled_back = False
        self.was_live = False
        self.has_results = False
        self.silence_max_s = SILENCE_MAX_S
        self._heartbeat_s = HEARTBEAT_S
        self._heard_s = now_s
        self._beat_s = now_s
        self._lost_s = now_s
        self._failures = 0
        self._sequences: dict[str, int] = {}

    def connect(self, spread_s: float, out: list[Effect]) -> None:
        """Ask for the next session, the later the more often it failed."""
        delay_s = 0.0
        if self._failures:
            delay_s = min(BACK_OFF_MAX_S, BACK_OFF_MIN_S * 2.0 ** min(self._failures - 1, 16))
            spread_s = delay_s
        self.number += 1
        out.append(Connect(self.number, delay_s, spread_s))

    def failed(self, out: list[Effect]) -> None:
        """Try again after an attempt that came to nothing."""
        self._failures += 1
        self.connect(0.0, out)

    def connected(self, epoch: int, address: str, now_s: float) -> None:
        """Begin to register."""
        self.phase = REGISTERING
        self.address = address
        self.is_rolled_back = epoch < self.epoch_seen
        self.epoch_seen = max(epoch, self.epoch_seen)
        self._heard_s = now_s
        self._sequences.clear()

    def registered(
        self, heartbeat_s: float, silence_max_s: float, grace_s: float | None, now_s: float
    ) -> None:
        """Be live, on the manager's terms."""
        self.phase = LIVE
        self.was_live = True
        self._failures = 0
        self._heartbeat_s = heartbeat_s or HEARTBEAT_S
        self.silence_max_s = silence_max_s or SILENCE_MAX_S
        if self._own_grace_s is None and grace_s is not None:
            self._grace_s = grace_s
        self._beat_s = now_s + self._heartbeat_s

    def close(self, now_s: float, out: list[Effect]) -> None:
        """Be offline; links that may still stand are closed."""
        if self.phase == LIVE:
            self._lost_s = now_s
        self.phase = OFFLINE
        self.has_results = False
        out.append(Disconnect(self.number))

    def is_news(self, door: str, sequence: int, now_s: float) -> bool:
        """Note a sign of life; tell whether the batch is new to its door."""
        self._heard_s = now_s
        if sequence == 0:
            # From a manager that does not know this session, and so has no count for it.
            return True
        if sequence <= self._sequences.get(door, 0):
            return False
        self._sequences[door] = sequence
        return True

    def resumed(self, now_s: float) -> None:
        """Count silence from now: it was this process that stood still."""
        self._heard_s = now_s

    def is_beat_due(self, now_s: float) -> bool:
        """Tell whether to send a heartbeat now; the next is due an interval later."""
        if self.phase != LIVE or now_s < self._beat_s:
            return False
        self._beat_s = now_s + self._heartbeat_s
        return True

    def is_silent(self, now_s: float) -> bool:
        """Tell whether the manager has been silent for too long."""
        return self.phase != OFFLINE and now_s >= self._heard_s + self.silence_max_s

    @property
    def is_up(self) -> bool:
        """Whether something can be sent."""
        return self.phase != OFFLINE

    @property
    def is_live(self) -> bool:
        """Whether the manager has admitted this worker in this session."""
        return self.phase == LIVE

    @property
    def patience_s(self) -> float:
        """How long to be without a session before giving up."""
        return self._grace_s if self.was_live else self._connect_timeout_s

    def is_hopeless(self, now_s: float) -> bool:
        """Tell whether there was no session for longer than the worker shall wait."""
        return self.phase != LIVE and now_s >= self._lost_s + self.patience_s

    def deadline(self) -> float:
        """Tell when time alone changes something."""
        if self.phase == LIVE:
            return min(self._beat_s, self._heard_s + self.silence_max_s)
        hopeless_s = self._lost_s + self.patience_s
        if self.phase == OFFLINE:
            return hopeless_s
        return min(hopeless_s, self._heard_s + self.silence_max_s)
