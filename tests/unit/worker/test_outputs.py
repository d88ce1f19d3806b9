"""Larger outputs: hashed, and served as they were asked for."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from support.processes import wait_until

from wqueue.protocol.attempts import pack_attempt
from wqueue.protocol.limits import CHUNK_BYTES
from wqueue.protocol.messages import STDOUT, AttemptResult, Data, Get, GetFailed, OutputResult
from wqueue.protocol.sources import AttemptOutput, Content, pack_source
from wqueue.worker.core.events import Collect, Collected
from wqueue.worker.file_threads import FileThreads
from wqueue.worker.outbox import Kept, Outbox
from wqueue.worker.outputs import Outputs, output_path

ATTEMPT = pack_attempt(b"J" * 16, 0, 1, 1)

Answer = tuple[int, Data | GetFailed, bytes | None]


class Desk:
    """Outputs of one attempt in a sandbox of its own."""

    def __init__(self, folder: Path) -> None:
        self.sandbox = folder / "sandbox"
        self.sandbox.mkdir()
        self.threads = FileThreads(2)
        self.outbox = Outbox(folder / "outbox")
        self.answers: list[Answer] = []
        self.reports: list[Collected] = []
        self.outputs = Outputs(
            lambda _: os.fsencode(self.sandbox),
            self.outbox,
            self.threads,
            lambda *answer: self.answers.append(answer),
            self.reports.append,
        )

    def keep(self, *files: tuple[int, bytes]) -> None:
        sandbox = os.fsencode(self.sandbox)
        placed = [(position, output_path(sandbox, position, name)) for position, name in files]
        self.outbox.append([Kept(AttemptResult(ATTEMPT, "succeeded"), sandbox, placed, 0.0)])

    def get(self, position: int, offset: int, length: int) -> Answer:
        source = pack_source(AttemptOutput(ATTEMPT, position))
        return self.ask(Get(5, source, offset, length))

    def ask(self, get: Get) -> Answer:
        self.outputs.serve(3, get)

        def is_there() -> bool:
            self.threads.deliver()
            return bool(self.answers)

        wait_until(is_there, what="an answer")
        return self.answers.pop()

    def collect(self, *wanted: tuple[int, bytes, int]) -> Collected:
        self.outputs.collect(Collect(ATTEMPT, list(wanted)))

        def is_there() -> bool:
            self.threads.deliver()
            return bool(self.reports)

        wait_until(is_there, what="a report")
        return self.reports.pop()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.threads.close()
    desk.outbox.close()


def test_outputs_and_what_was_printed_are_hashed(desk: Desk) -> None:
    content = os.urandom(3_000_000)
    (desk.sandbox / "d").mkdir()
    (desk.sandbox / "d" / "o").write_bytes(content)
    Path(f"{desk.sandbox}.out").write_bytes(b"printed")
    assert desk.collect((1, b"d/o", 0o755), (STDOUT, b"", 0o644)) == Collected(
        ATTEMPT,
        [
            OutputResult(1, 3_000_000, 0o755, blake3(content).digest()),
            OutputResult(STDOUT, 7, 0o644, blake3(b"printed").digest()),
        ],
    )


def test_an_output_that_cannot_be_read_says_which(desk: Desk) -> None:
    collected = desk.collect((0, b"gone", 0o644))
    assert collected == Collected(
        ATTEMPT, [], "Cannot read output 'gone': No such file or directory"
    )


def test_any_part_of_an_output_is_served(desk: Desk) -> None:
    content = os.urandom(CHUNK_BYTES + 100)
    (desk.sandbox / "o").write_bytes(content)
    desk.keep((0, b"o"))
    assert desk.get(0, 0, CHUNK_BYTES) == (3, Data(5, 0), content[:CHUNK_BYTES])
    assert desk.get(0, CHUNK_BYTES, 100) == (3, Data(5, CHUNK_BYTES), content[CHUNK_BYTES:])
    assert desk.get(0, CHUNK_BYTES, 500) == (3, Data(5, CHUNK_BYTES), content[CHUNK_BYTES:])
    assert desk.get(0, 10**9, 500) == (3, Data(5, 10**9), b"")


def test_a_request_for_more_than_a_chunk_gets_a_chunk(desk: Desk) -> None:
    (desk.sandbox / "o").write_bytes(bytes(3 * CHUNK_BYTES))
    desk.keep((0, b"o"))
    content = desk.get(0, 0, 2**32 - 1)[2]
    assert content is not None
    assert len(content) == CHUNK_BYTES


def test_nothing_but_the_declared_outputs_of_known_results_is_served(desk: Desk) -> None:
    (desk.sandbox / "o").write_bytes(b"secret")
    missing = (3, GetFailed(5, "missing", "it is not here"), None)
    assert desk.get(0, 0, 10) == missing
    desk.keep((1, b"o"))
    assert desk.get(0, 0, 10) == missing
    assert desk.ask(Get(5, pack_source(Content(b"D" * 32)), 0, 10)) == missing
    assert desk.ask(Get(5, b"o/etc/passwd", 0, 10)) == missing


def test_an_output_may_be_a_link_inside_the_sandbox(desk: Desk) -> None:
    content = os.urandom(100_000)
    (desk.sandbox / "real").write_bytes(content)
    (desk.sandbox / "o").symlink_to("real")
    found = OutputResult(0, len(content), 0o644, blake3(content).digest())
    assert desk.collect((0, b"o", 0o644)) == Collected(ATTEMPT, [found])
    desk.keep((0, b"o"))
    assert desk.get(0, 0, CHUNK_BYTES) == (3, Data(5, 0), content)


def test_an_output_that_became_a_link_out_of_the_sandbox_is_not_followed(
    desk: Desk, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").write_bytes(b"secret")
    (desk.sandbox / "o").symlink_to(tmp_path / "elsewhere")
    desk.keep((0, b"o"))
    answer = desk.get(0, 0, 10)[1]
    assert isinstance(answer, GetFailed)
    assert answer.code == "unreadable"


def test_an_output_that_is_gone_is_missing(desk: Desk) -> None:
    desk.keep((0, b"o"))
    assert desk.get(0, 0, 10)[1] == GetFailed(5, "missing", "it is not there any more")
