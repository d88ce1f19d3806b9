"""Every bound and interval of the manager's shell."""

PORTS_TRIED = 100
"""How far a fresh state directory's default port moves on before it gives up."""

HELLO_OPEN_MAX = 1024
"""Most hellos under way at once (wire 2.5)."""

HELLO_PER_ADDRESS_MAX = 64
"""Most hellos under way from one address; a cluster behind NAT shares one (wire 2.5)."""

HELLO_FREE_FAILURES = 5
"""Wrong proofs of one address that are answered at once (wire 2.5)."""

HELLO_FAILURE_KEPT_S = 600.0
"""A wrong proof is forgotten after this."""

HELLO_ADDRESSES_MAX = 4096
"""Most addresses whose wrong proofs are remembered; the oldest is forgotten first."""

HELLO_ACCEPTS_PER_TURN = 32
"""Connections taken per loop turn: at 80 us each well below the 10 ms of a loop step."""

PROOF_UNUSED_S = 30.0
"""A proven key that opens no session within this is forgotten (wire 2.5)."""

KEYS_SEEN_MAX = 65_536
"""Public keys remembered so that none is used for a second session."""

LOG_EVERY_S = 60.0
"""A fault is logged once per address and this long."""

LOG_KEYS_MAX = 4096
"""Most addresses whose last log line is remembered."""

LOG_MAX_BYTES = 10_000_000
"""Size at which manager.log is moved to manager.log.1."""

BAD_MESSAGES_MAX = 3
"""Bad messages of one peer that are answered; one more cuts it."""

CHUNKS_PER_TURN = 4
"""File chunks taken per loop turn before control is looked at again (wire 5.2)."""

BATCHES_PER_TURN = 64
"""Batches taken per door and loop turn, so that no door starves another."""

CLIENTS_TURN_S = 0.004
"""Time per loop turn for clients' requests, in seconds: with the dearest one, a listing of 5 ms,
still below the 10 ms of a loop step."""

REQUESTS_WAITING_MAX = 8192
"""Requests of one client that wait for their turn, and as many that wait for the journal: four
times what our client library leaves unanswered. One more ends the session."""

REQUESTS_WAITING_BYTES = 16 * 1024 * 1024
"""Bytes of requests that wait, over all clients: the client door is not read while there are more,
so that their senders wait and not our memory."""

RANGES_WAITING_MAX = 65_536
"""Ranges in the queries of one client that wait for the journal: 4 MB of memory."""

UNTAKEN_MAX_BYTES = 65_536
"""Bytes in the kernel, sent to a client and not taken, above which it gets nothing more from the
journal: less than any buffer of the kernel, more than a delayed ACK leaves of small answers."""

READ_AGAIN_S = 0.01
"""Interval of looking whether a client has taken the last answer from the journal, in seconds."""

LAST_WORDS_MAX_S = 1.0
"""How long the news of a lost peer waits for a door that is never empty, in seconds: what else it
said is said again in its next session."""

LINK_UNUSED_S = 60.0
"""A connection that no session has used within this is cut, so that nobody piles up descriptors;
above PROOF_UNUSED_S, so that a late peer is told to begin again."""

TASK_QUEUE_MAX = 1000
"""SNDHWM and RCVHWM of the task and client doors, in batches: above all credit (wire 5.4)."""

RESULT_QUEUE_MAX = 256
"""SNDHWM and RCVHWM of the result door, in batches and chunks: above all credit."""

ANNOUNCE_QUEUE_MAX = 100
"""SNDHWM of the announce door; older news than this is no loss."""

PROGRESS_EVERY_S = 0.01
"""A client that gets nothing but progress gets it at most this often."""

DROP_GRACE_S = 2.0
"""A peer that was told to go is cut after this, so that the last words reach it."""

TURN_EVENTS_KEPT = 200
"""Events kept for the log, should a bug end the daemon."""

COMMIT_PAUSE_S = 50e-6
"""The loop's pause in each turn while a commit is overdue: a loop that never blocks then costs a
commit 2 ms, without the pause up to 2.5 s (wire 7.1)."""

STOP_MAX_S = 10.0
"""Longest wait of a clean stop for commits and files; what is then missing is made good at the
next start."""

RESTARTS_MAX = 3
"""So many ends by a bug or a signal within RESTARTS_WITHIN_S end the supervisor too."""

RESTARTS_WITHIN_S = 60.0
"""See RESTARTS_MAX."""

LOCK_WAIT_S = 10.0
"""How long a start waits for the daemon of a killed supervisor to end."""

SPARE_DESCRIPTORS = 1000
"""Descriptors kept for files, the store and libraries (wire 1.13)."""

CLIENT_DESCRIPTORS = 1024
"""Descriptors kept for clients, two each."""

WORKER_DESCRIPTORS = 3
"""Descriptors of one worker: task, result and announce."""

ROOM_PAUSE_S = 5.0
"""Pause before a daemon that found no room for its journal is started again."""
