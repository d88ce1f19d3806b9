"""The journal's tables, how older ones become newer ones, and how a connection is opened.

A migration is never edited once released; a change of the tables is a new one at the end.
"""

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from wqueue.protocol.errors import StoreError

MIGRATIONS = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
    INSERT INTO meta VALUES ('epoch', 0), ('is_clean', 1), ('next_job', 1), ('next_worker', 1);

    CREATE TABLE job (
        job INTEGER PRIMARY KEY,
        uid BLOB NOT NULL UNIQUE,
        credential BLOB NOT NULL,
        submission BLOB NOT NULL,
        submitted_wall_s REAL NOT NULL,
        may_write INTEGER NOT NULL,
        spec BLOB NOT NULL,
        UNIQUE (credential, submission)
    );

    -- Apart from job, because an update would write the whole description again.
    CREATE TABLE job_end (
        job INTEGER PRIMARY KEY,
        wall_s REAL NOT NULL,
        is_canceled INTEGER NOT NULL
    );

    -- kind: 0 succeeded, 1 failed, 2 canceled.
    CREATE TABLE ended (
        job INTEGER NOT NULL,
        event INTEGER NOT NULL,
        idx INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        record BLOB NOT NULL,
        PRIMARY KEY (job, event)
    ) WITHOUT ROWID;
    -- One end per task; with the primary key in it, a start reads this index and no record.
    CREATE UNIQUE INDEX ended_task ON ended (job, idx);
    CREATE INDEX ended_badly ON ended (job, kind, idx) WHERE kind <> 0;

    -- record and counts_as are NULL while the attempt is open.
    CREATE TABLE attempt (
        job INTEGER NOT NULL,
        idx INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        number INTEGER NOT NULL,
        worker_id BLOB NOT NULL,
        worker INTEGER NOT NULL,
        wall_s REAL NOT NULL,
        counts_as TEXT,
        record BLOB,
        PRIMARY KEY (job, idx, epoch, number)
    ) WITHOUT ROWID;

    CREATE TABLE publishing (
        job INTEGER NOT NULL,
        idx INTEGER NOT NULL,
        attempt BLOB NOT NULL,
        record BLOB NOT NULL,
        PRIMARY KEY (job, idx)
    ) WITHOUT ROWID;

    CREATE TABLE worker (
        worker_id BLOB PRIMARY KEY,
        number INTEGER NOT NULL,
        host TEXT NOT NULL,
        wall_s REAL NOT NULL
    ) WITHOUT ROWID;
    """,
)

SUCCEEDED_KIND, FAILED_KIND, CANCELED_KIND = 0, 1, 2
"""Values of ended.kind."""

BUSY_TIMEOUT_S = 5.0
"""How long a connection waits for another's lock: a reader's snapshot never holds a writer."""


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open the journal for writing; every commit reaches the disk before it returns."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA trusted_schema=OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open the journal so that nothing can be changed through the connection."""
    address = f"file:{quote(os.fsencode(path))}?mode=ro"
    return sqlite3.connect(
        address, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )


def find_damage(connection: sqlite3.Connection) -> str:
    """Say what is wrong with the file's structure; an empty string means nothing is."""
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    return "" if found == "ok" else str(found)


def migrate(connection: sqlite3.Connection, software: str, wall_s: float) -> None:
    """Bring the tables to this version's form, one committed step at a time."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migration"
        " (version INTEGER PRIMARY KEY, software TEXT NOT NULL, wall_s REAL NOT NULL)"
    )
    row = connection.execute("SELECT MAX(version) FROM migration").fetchone()
    have = row[0] or 0
    if have > len(MIGRATIONS):
        raise StoreError(
            f"the journal has format {have} and this version of wqueue knows {len(MIGRATIONS)}:"
            " start the newer version that wrote it"
        )
    for version in range(have + 1, len(MIGRATIONS) + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Not executescript(): it would commit first, and a step must be whole.
            for statement in split_statements(MIGRATIONS[version - 1]):
                connection.execute(statement)
            connection.execute(
                "INSERT INTO migration VALUES (?, ?, ?)", (version, software, wall_s)
            )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def split_statements(script: str) -> list[str]:
    """Take a script apart into its statements."""
    statements = []
    begun = ""
    for line in script.splitlines():
        begun += line + "\n"
        if sqlite3.complete_statement(begun):
            statements.append(begun.strip())
            begun = ""
    assert not begun.strip(), f"a migration ends in the middle of a statement: {begun!r}"
    return statements
