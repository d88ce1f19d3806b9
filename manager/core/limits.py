"""Every bound and interval of the manager's core."""

from msgspec import Struct

from wqueue.protocol.limits import HEARTBEAT_S, SILENCE_MAX_S

LOST_MAX = 5
"""Further attempts a task gets when its worker is lost, unless its job asks for more."""

PREFETCH_S = 0.1
"""Seconds of work to hold ready at a worker beyond what runs: covers several round trips of a busy
manager, and is the longest that a task can wait at one worker while another falls idle."""

PREFETCH_MAX = 256
"""Most attempts queued at a worker beyond what runs."""

TAKE_BACK_MIN_S = 0.05
"""Queued work that would begin sooner than this is not worth taking back for an idle worker."""

KNOWN_JOBS_MAX = 500
"""Job descriptions a worker gathers before those of ended jobs are taken from it."""

GONE_WORKERS_KEPT = 200
"""Workers that have left and are still shown in listings."""

STAGING_RETRY_S = 5.0
"""Pause before outputs that could not be stored for lack of room are tried again."""


class Settings(Struct, frozen=True):
    """What the owner may set when the manager starts. Seconds."""

    worker_grace_s: float = 15.0
    """How long the attempts of a worker whose link is lost wait for it before they run again."""

    reattach_wait_s: float = 30.0
    """How long after a start tasks that were ready before it wait for the known workers."""

    manager_grace_s: float = 900.0
    """How long workers carry on alone without a manager."""

    heartbeat_s: float = HEARTBEAT_S
    silence_max_s: float = SILENCE_MAX_S
