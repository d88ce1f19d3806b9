"""What the owner asks of a manager on the command line, as the daemon gets it."""

import json
from typing import NamedTuple


class Options(NamedTuple):
    """The options of wq-manager. None means that nothing was said."""

    name: str
    state_dir: str
    port: int | None = None
    ports: tuple[int, int] | None = None
    listen: str = "0.0.0.0"
    advertise: tuple[str, ...] = ()
    password_file: str | None = None
    has_password: bool = True
    info_file: str | None = None
    port_file: str | None = None
    worker_grace_s: float | None = None
    reattach_wait_s: float | None = None
    manager_grace_s: float | None = None
    is_checking_invariants: bool = False


def to_json(options: Options) -> str:
    """Write options for the daemon's command line."""
    return json.dumps(options._asdict())


def from_json(text: str) -> Options:
    """Read what to_json wrote."""
    fields = json.loads(text)
    if fields["ports"] is not None:
        fields["ports"] = tuple(fields["ports"])
    fields["advertise"] = tuple(fields["advertise"])
    return Options(**fields)
