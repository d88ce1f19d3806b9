"""How a client gets to its manager: find it, find the secret, prove it; anew for each session."""

import os
from pathlib import Path

from wqueue.protocol.credentials import Credential
from wqueue.protocol.dial import dial_first
from wqueue.protocol.errors import NotAuthorized
from wqueue.protocol.handshake import Proven
from wqueue.protocol.locate import find_credential, find_manager

FilePath = str | os.PathLike[str]

CLIENT_ROLES = ("owner", "client", "observer")
"""Roles that may open the client door."""


class Reach:
    """The places a user named, and the way from there to a proven session.

    They are looked up at every dial: a manager that was started again may listen elsewhere.
    """

    def __init__(
        self,
        manager: str | None,
        info_file: FilePath | None,
        state_dir: FilePath | None,
        name: str | None,
        password_file: FilePath | None,
        role: str | None,
    ) -> None:
        self._manager = manager
        self._info_file = None if info_file is None else Path(info_file)
        self._state_dir = None if state_dir is None else Path(state_dir)
        self._name = name
        self._password_file = None if password_file is None else Path(password_file)
        self._role = role

    def dial(self) -> Proven:
        """Find the manager and its secret and prove it; blocks. Raises what stands against it."""
        found = find_manager(self._manager, self._info_file, self._state_dir, self._name)
        credential = find_credential(found, self._password_file)
        return dial_first(
            found.addresses, found.port, credential, role=self._role or _role_of(credential)
        )


def _role_of(credential: Credential) -> str:
    role = credential.role or "owner"
    if role not in CLIENT_ROLES:
        raise NotAuthorized(
            f"this is a {role}'s secret and does not let clients in; use the owner's or a client's"
        )
    return role
