"""Frames: what is sent is what arrives, and no bytes of a peer do harm."""

from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.structs import UNIONS, sample, values

from wqueue.protocol import codec, hello_messages
from wqueue.protocol.errors import LocalProtocolError, RemoteProtocolError
from wqueue.protocol.limits import (
    BATCH_MESSAGES_MAX,
    BATCH_TARGET_BYTES,
    SPEC_MAX_BYTES,
)
from wqueue.protocol.messages import (
    AttemptResult,
    Data,
    FromManagerBatch,
    JobSpec,
    Started,
    TaskTemplate,
    ToManagerBatch,
)

DECODERS: dict[str, Any] = {
    "task, worker to manager": codec.TASK_TO_MANAGER,
    "task, manager to worker": codec.TASK_FROM_MANAGER,
    "result, worker to manager": codec.RESULT_TO_MANAGER,
    "result, manager to worker": codec.RESULT_FROM_MANAGER,
    "client, client to manager": codec.CLIENT_TO_MANAGER,
    "client, manager to client": codec.CLIENT_FROM_MANAGER,
    "announce, manager to all": codec.ANNOUNCE,
}
HEADERS: dict[bool, codec.Header] = {
    True: ToManagerBatch(b"12345678", 3),
    False: FromManagerBatch(1, 2, 3, 4),
}


def header_of(door: str) -> codec.Header:
    return HEADERS[door.endswith("to manager")]


def test_every_door_and_direction_has_a_decoder() -> None:
    assert list(DECODERS) == list(UNIONS)


@pytest.mark.parametrize("door", DECODERS)
def test_a_batch_arrives_as_it_was_sent(door: str) -> None:
    batch = [sample(message) for message in UNIONS[door].__args__]
    frame = codec.encode_batch(header_of(door), batch)
    assert DECODERS[door].decode(frame) == (header_of(door), batch)


@pytest.mark.parametrize("door", DECODERS)
def test_a_message_of_another_door_is_refused(door: str) -> None:
    for other, union in UNIONS.items():
        for message in set(union.__args__) - set(UNIONS[door].__args__):
            frame = codec.encode_batch(header_of(door), [sample(message)])
            with pytest.raises(RemoteProtocolError):
                DECODERS[door].decode(frame)
            assert other != door


@pytest.mark.parametrize("door", DECODERS)
def test_a_header_of_the_other_direction_is_refused(door: str) -> None:
    wrong = HEADERS[not door.endswith("to manager")]
    frame = codec.encode_batch(wrong, [sample(UNIONS[door].__args__[0])])
    with pytest.raises(RemoteProtocolError):
        DECODERS[door].decode(frame)


def harmless(decode: Any, data: bytes) -> None:
    text = ""
    try:
        decode(data)
    except RemoteProtocolError as error:
        text = str(error)
    assert "\n" not in text
    assert len(text) < 300


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=10)
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=15,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(DECODERS)), st.binary(max_size=200))
@example("task, worker to manager", b"\x91" * 5000)
@example("client, client to manager", b"\x92\x92\xa812345678\x03\x91" + b"\x91" * 100_000)
@example("task, worker to manager", b"\x92\x92\xc4\x0812345678\x03\x91\x92\xa3bye\xa2\xff\xff")
def test_random_bytes_do_no_harm(door: str, data: bytes) -> None:
    harmless(DECODERS[door].decode, data)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(DECODERS)), ANYTHING)
def test_well_formed_nonsense_does_no_harm(door: str, value: object) -> None:
    harmless(DECODERS[door].decode, codec.encode(value))
    harmless(DECODERS[door].decode, codec.encode([header_of(door), value]))
    harmless(DECODERS[door].decode, codec.encode([header_of(door), [value]]))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(DECODERS)), st.data())
def test_damaged_batches_do_no_harm(door: str, data: st.DataObject) -> None:
    frame = bytearray(codec.encode_batch(header_of(door), [data.draw(values(UNIONS[door]))]))
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    harmless(DECODERS[door].decode, bytes(frame))
    harmless(DECODERS[door].decode, bytes(frame[: data.draw(st.integers(0, len(frame)))]))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100) | ANYTHING.map(codec.encode))
@example(b"\x91" * 100_000)
@example(b"\x92\xa4WQH3\xa2\xff\xff")
def test_hello_and_description_decoders_stand_anything(data: bytes) -> None:
    for decoder in (
        hello_messages.decode_h1,
        hello_messages.decode_h2,
        hello_messages.decode_h3,
        hello_messages.decode_h4,
    ):
        harmless(lambda raw, by=decoder: codec.decode(by, raw), data)
    harmless(codec.decode_spec, data)


@settings(max_examples=50, deadline=None)
@given(values(JobSpec))
def test_a_description_arrives_as_it_was_sent(spec: JobSpec) -> None:
    assert codec.decode_spec(codec.encode_spec(spec)) == spec


def test_a_description_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SPEC_MAX_BYTES > 2**20
    monkeypatch.setattr(codec, "SPEC_MAX_BYTES", 10)
    with pytest.raises(RemoteProtocolError, match="bytes"):
        codec.decode_spec(codec.encode_spec(JobSpec(TaskTemplate([b"true"]))))


class Counter:
    def __init__(self) -> None:
        self.sequence = 0

    def next(self) -> ToManagerBatch:
        self.sequence += 1
        return ToManagerBatch(b"12345678", self.sequence)


def attempts(count: int, size: int = 36) -> list[Started]:
    return [Started([index.to_bytes(size, "big")]) for index in range(count)]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 5000])
def test_batches_are_split_and_numbered(count: int) -> None:
    counter = Counter()
    frames = list(codec.encode_batches(counter.next, attempts(count)))
    decoded = [codec.TASK_TO_MANAGER.decode(frame) for frame in frames]
    assert [header.sequence for header, _ in decoded] == list(range(1, len(frames) + 1))
    assert [message for _, batch in decoded for message in batch] == attempts(count)
    assert all(len(frame) <= BATCH_TARGET_BYTES + codec.BATCH_HEADER_MAX_BYTES for frame in frames)


def test_a_batch_holds_no_more_messages_than_are_allowed() -> None:
    counter = Counter()
    frames = list(codec.encode_batches(counter.next, [Started([])] * (BATCH_MESSAGES_MAX + 1)))
    assert [len(codec.TASK_TO_MANAGER.decode(frame)[1]) for frame in frames] == [
        BATCH_MESSAGES_MAX,
        1,
    ]


def test_more_messages_than_are_allowed_are_refused() -> None:
    batch = [Started([])] * (BATCH_MESSAGES_MAX + 1)
    with pytest.raises(RemoteProtocolError):
        codec.TASK_TO_MANAGER.decode(codec.encode_batch(HEADERS[True], batch))


def test_a_large_message_travels_alone() -> None:
    counter = Counter()
    large = Started([bytes(36)] * 3000)
    small = Started([])
    frames = list(codec.encode_batches(counter.next, [small, large, small]))
    assert [codec.TASK_TO_MANAGER.decode(frame)[1] for frame in frames] == [
        [small],
        [large],
        [small],
    ]


def test_a_message_that_no_frame_can_hold_is_a_fault_of_ours() -> None:
    with pytest.raises(LocalProtocolError, match="a Started of"):
        list(codec.encode_batches(Counter().next, [Started([bytes(36)] * 30_000)]))


def test_content_is_not_put_into_a_batch() -> None:
    with pytest.raises(AssertionError):
        list(codec.encode_batches(Counter().next, [Data(1, 0)]))


def test_no_header_is_longer_than_assumed() -> None:
    longest: list[codec.Header] = [
        ToManagerBatch(b"12345678", 2**63 - 1),
        FromManagerBatch(2**32 - 1, 2**32 - 1, 2**63 - 1, 2**63 - 1),
    ]
    for header in longest:
        frame = codec.encode_batch(header, [])
        assert len(frame) + 5 <= codec.BATCH_HEADER_MAX_BYTES


def test_an_attempt_id_of_another_length_is_refused() -> None:
    frame = codec.encode([HEADERS[True], [["started", [bytes(35)]]]])
    with pytest.raises(RemoteProtocolError, match="malformed"):
        codec.TASK_TO_MANAGER.decode(frame)
    assert AttemptResult(bytes(35), "x") is not None
    assert msgspec.msgpack.decode(frame)
