"""What a worker's core is told once, at its start."""

from msgspec import Struct

from wqueue.protocol.resources import Resources

KILL_GRACE_S = 5.0
"""From SIGTERM to SIGKILL of a task that is canceled or given back."""

MANAGER_GRACE_S = 900.0
"""How long a worker carries on without its manager."""


class Settings(Struct, frozen=True):
    """Who this worker is, what it offers, how patient it is.

    `gpu_ids` has one entry per gpu of `resources`. None for `manager_grace_s` lets the manager say;
    0 for `idle_timeout_s` means for ever.
    """

    resume_secret: bytes
    resources: Resources
    host: str = ""
    pid: int = 0
    software: str = ""
    python: str = ""
    features: list[str] = []
    workdir: bytes = b""
    gpu_ids: list[str] = []
    cache_bytes_max: int = 2**63 - 1
    idle_timeout_s: float = 900.0
    connect_timeout_s: float = 900.0
    wall_time_s: float | None = None
    manager_grace_s: float | None = None
    kill_grace_s: float = KILL_GRACE_S
    is_single_shot: bool = False
