"""Messages to bytes and back: the only place that knows MessagePack.

A payload frame is a MessagePack array of two, the batch header and an array of messages. Nothing
else in the tree decodes what a peer sent, so that one guard is enough: a bad frame gives
RemoteProtocolError and nothing else (wire 7.5).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Generic, TypeVar

import msgspec
from msgspec import Meta

from wqueue.protocol.errors import LocalProtocolError, RemoteProtocolError
from wqueue.protocol.limits import (
    BATCH_MESSAGES_MAX,
    BATCH_TARGET_BYTES,
    CONTROL_MESSAGE_MAX_BYTES,
    CURVE_OVERHEAD_BYTES,
    SPEC_MAX_BYTES,
)
from wqueue.protocol.messages import (
    Announcement,
    ClientFromManager,
    ClientToManager,
    Data,
    FromManagerBatch,
    JobSpec,
    ResultFromManager,
    ResultToManager,
    TaskFromManager,
    TaskToManager,
    ToManagerBatch,
)

Header = ToManagerBatch | FromManagerBatch
Message = (
    TaskToManager
    | TaskFromManager
    | ResultToManager
    | ResultFromManager
    | ClientToManager
    | ClientFromManager
    | Announcement
)

H = TypeVar("H")
M = TypeVar("M")
T = TypeVar("T")

PAYLOAD_MAX_BYTES = CONTROL_MESSAGE_MAX_BYTES - CURVE_OVERHEAD_BYTES
"""Largest payload frame: CURVE's own bytes count towards MAXMSGSIZE (wire 1.8)."""

_encoder = msgspec.msgpack.Encoder()
_encode = _encoder.encode


def decode(decoder: "msgspec.msgpack.Decoder[T]", data: bytes | memoryview) -> T:
    """Decode bytes of a peer or a file: the one guarded decode. Raises RemoteProtocolError."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"malformed message: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]


class BatchDecoder(Generic[H, M]):
    """Decodes the payload frames of one door and direction."""

    __slots__ = ("_decoder",)

    def __init__(self, decoder: "msgspec.msgpack.Decoder[tuple[H, list[M]]]") -> None:
        self._decoder = decoder

    def decode(self, frame: bytes | memoryview) -> tuple[H, list[M]]:
        """Decode one payload frame. Raises RemoteProtocolError and nothing else."""
        return decode(self._decoder, frame)


_Many = Meta(max_length=BATCH_MESSAGES_MAX)

TASK_TO_MANAGER: BatchDecoder[ToManagerBatch, TaskToManager] = BatchDecoder(
    msgspec.msgpack.Decoder(tuple[ToManagerBatch, Annotated[list[TaskToManager], _Many]])
)
TASK_FROM_MANAGER: BatchDecoder[FromManagerBatch, TaskFromManager] = BatchDecoder(
    msgspec.msgpack.Decoder(tuple[FromManagerBatch, Annotated[list[TaskFromManager], _Many]])
)
RESULT_TO_MANAGER: BatchDecoder[ToManagerBatch, ResultToManager] = BatchDecoder(
    msgspec.msgpack.Decoder(tuple[ToManagerBatch, Annotated[list[ResultToManager], _Many]])
)
RESULT_FROM_MANAGER: BatchDecoder[FromManagerBatch, ResultFromManager] = BatchDecoder(
    msgspec.msgpack.Decoder(tuple[FromManagerBatch, Annotated[list[ResultFromManager], _Many]])
)
CLIENT_TO_MANAGER: BatchDecoder[ToManagerBatch, ClientToManager] = BatchDecoder(
    msgspec.msgpack.Decoder(tuple[ToManagerBatch, Annotated[list[ClientToManager], _Many]])
)
CLIENT_FROM_MANAGER: BatchDecoder[FromManagerBatch, ClientFromManager] = BatchDecoder(
    msgspec.msgpack.Decoder(tuple[FromManagerBatch, Annotated[list[ClientFromManager], _Many]])
)
ANNOUNCE: BatchDecoder[FromManagerBatch, Announcement] = BatchDecoder(
    msgspec.msgpack.Decoder(tuple[FromManagerBatch, Annotated[list[Announcement], _Many]])
)


def encode(value: object) -> bytes:
    """Encode one Struct, for what is no batch: hello messages, records on disk."""
    return _encode(value)


def encode_batch(header: Header, messages: Sequence[Message]) -> bytes:
    """Encode one payload frame. The caller keeps it small; encode_batches splits by itself."""
    return _encode((header, messages))


def encode_batches(
    next_header: Callable[[], Header], messages: Iterable[Message]
) -> Iterator[bytes]:
    """Encode messages as payload frames of about BATCH_TARGET_BYTES, in order.

    `next_header` is called once per frame, in the order of the frames. A Data message must be sent
    alone, with encode_batch. Raises LocalProtocolError for a message no frame can hold.
    """
    parts: list[bytes] = []
    size = 0
    for message in messages:
        part = _encode(message)
        if len(part) > PAYLOAD_MAX_BYTES - BATCH_HEADER_MAX_BYTES:
            name = type(message).__name__
            raise LocalProtocolError(f"a {name} of {len(part)} bytes does not fit into a frame")
        assert not isinstance(message, Data), "Data travels alone, with its content"
        if parts and (size + len(part) > BATCH_TARGET_BYTES or len(parts) == BATCH_MESSAGES_MAX):
            yield _join(next_header(), parts)
            parts, size = [], 0
        parts.append(part)
        size += len(part)
    if parts:
        yield _join(next_header(), parts)


BATCH_HEADER_MAX_BYTES = 64
"""No batch header with its array heads is longer: 5 + 5 + 9 + 9 bytes and three heads."""


def _join(header: Header, parts: list[bytes]) -> bytes:
    # An array of two: the header, then an array of messages that are encoded already.
    count = len(parts)
    head = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    return b"".join((b"\x92", _encode(header), head, *parts))


_spec_decoder = msgspec.msgpack.Decoder(JobSpec)


def encode_spec(spec: JobSpec) -> bytes:
    """Encode a job's description, as Submit carries it and its digest is taken of."""
    return _encode(spec)


def decode_spec(blob: bytes | memoryview) -> JobSpec:
    """Decode a job's description. Raises RemoteProtocolError. Rules between fields: the manager."""
    if len(blob) > SPEC_MAX_BYTES:
        raise RemoteProtocolError(f"the job's description has {len(blob)} bytes")
    return decode(_spec_decoder, blob)
