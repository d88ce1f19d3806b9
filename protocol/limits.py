"""Every bound and interval that both sides of a socket must agree on."""

HELLO_MESSAGE_MAX_BYTES = 4096
"""Largest hello message; a longer one closes the connection (wire rule 0.1)."""

HELLO_TIMEOUT_S = 5.0
"""From TCP accept to the proof; slower peers are dropped."""

CONTROL_MESSAGE_MAX_BYTES = 1024 * 1024
"""MAXMSGSIZE of the task, client and announce doors. One byte more cuts the link."""

CURVE_OVERHEAD_BYTES = 33
"""What CURVE adds to each frame; it counts towards MAXMSGSIZE (wire 1.8)."""

CHUNK_BYTES = 256 * 1024
"""Bytes of file content in one Data message: larger chunks make control wait longer (wire 5.3)."""

BULK_MESSAGE_MAX_BYTES = CONTROL_MESSAGE_MAX_BYTES
"""MAXMSGSIZE of the result door, which carries Data frames beside result batches."""

BATCH_TARGET_BYTES = 64 * 1024
"""A sender starts a new batch when the one it fills has grown past this."""

BATCH_MESSAGES_MAX = 4096
"""Most messages in one batch."""

WINDOW_BYTES = 4 * CHUNK_BYTES
"""Bytes a receiver may have asked for and not yet written, per transfer."""

INLINE_BYTES = 32 * 1024
"""An output, or what a task printed, up to this size travels inside its Result message."""

SPEC_INLINE_BYTES = 256 * 1024
"""A job's encoded description up to this size travels inside Submit; a larger one is uploaded."""

SPEC_MAX_BYTES = 512 * 1024 * 1024
"""Largest encoded description of one job."""

NAME_MAX_BYTES = 4096
"""Longest file name, remote name or path."""

TASKS_PER_JOB_MAX = 100_000_000
"""Most tasks in one job: one byte of state each at the manager."""

OUTPUTS_MAX = 10_000
"""Most outputs of one task: all of them are told of in one Result, which must fit into a frame
(some 50 bytes for each, beside what it carries inline)."""

HEARTBEAT_S = 5.0
"""Interval of the loop's own heartbeats, both ways."""

SILENCE_MAX_S = 30.0
"""A peer not heard of for this long is away: six heartbeats, so one slow step does no harm."""

LINK_HEARTBEAT_MS = 5000
"""ZMTP heartbeat interval: finds a half-open link, says nothing about the loop (wire 1.9)."""

LINK_TIMEOUT_MS = 20000
"""ZMTP heartbeat time-out."""

PEER_HANDSHAKE_MS = 30000
"""HANDSHAKE_IVL at the connecting side: the ZAP handler shares the manager's loop (wire 1.10)."""

MANAGER_HANDSHAKE_MS = 5000
"""HANDSHAKE_IVL at the manager."""

PROOF_DELAY_MAX_S = 30.0
"""Longest time the manager lets a wrong proof wait for its answer."""

LINK_QUEUE_FRAMES = 4096
"""SNDHWM and RCVHWM of a peer's sockets: above all credit, so that they never act (wire 5.4)."""

ANNOUNCE_TOPIC = b"wq"
"""The only topic of the announce door, and the first frame of everything on it."""

LISTEN_BACKLOG = 4096
"""Listen backlog: with 100, two thousand workers took 5.5 s to connect, not 1.5 s (wire 1.11)."""
