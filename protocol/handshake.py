"""The proof on hello as pure state machines, one per side: bytes in, bytes out, time given.

Who dials is the peer, who listens the manager. Four messages, H1 to H4, each a u32 length and
MessagePack; the text is protocol/SPEC.md, "hello". Keys, nonces and clocks are passed in. Both
classes may be fed any bytes at all: what is wrong ends in a refusal or one of our errors.
"""

from msgspec import Struct


class Proven(Struct, frozen=True):
    """What a peer has after the proof: the manager, its doors, and this session's own keys.

    `endpoints` maps a door ("task", "result", "announce", "client") to "tcp://HOST:PORT".
    `public_key` and `secret_key` are this session's CURVE pair; `token` never travels in clear.
    """

    server_id: bytes
    epoch: int
    version: tuple[int, int]
    project: str
    endpoints: dict[str, str]
    manager_key: bytes
    public_key: bytes
    secret_key: bytes
    token: bytes
