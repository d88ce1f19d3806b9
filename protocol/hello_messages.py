"""The four messages of hello, and how they lie in a TCP stream.

Each is a u32 length (big-endian) and that many bytes of MessagePack: an array, tag first, then the
fields in this order. These four never change their beginning: a peer of any version can read who
it talks to. New fields are only appended, with defaults.
"""

import struct
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from wqueue.protocol import codec
from wqueue.protocol.errors import RemoteProtocolError
from wqueue.protocol.limits import HELLO_MESSAGE_MAX_BYTES
from wqueue.protocol.messages import U16, U32, Id16, Text, Word

Version = tuple[U16, U16]
"""Major and minor."""

Short = Annotated[str, Meta(max_length=32)]
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Kid = Annotated[bytes, Meta(max_length=8)]
Box = Annotated[bytes, Meta(max_length=128)]


class H1(Struct, frozen=True, array_like=True, tag="WQH1"):
    """Peer to manager: the versions and suites I speak, the role I want, my key for this session.

    `kid` names the credential; it is empty for a human password.
    """

    version_min: Version
    version_max: Version
    suites: Annotated[list[Short], Meta(max_length=8)]
    role: Short
    kid: Kid
    public_key: Bytes32
    nonce: Bytes32


class H2(Struct, frozen=True, array_like=True, tag="WQH2"):
    """Manager to peer: who I am, the suite to use, my key and my doors."""

    server_id: Id16
    epoch: U32
    version_min: Version
    version_max: Version
    suite: Short
    salt: Id16
    public_key: Bytes32
    endpoints: Annotated[dict[Short, Word], Meta(max_length=16)]
    project: Word
    nonce: Bytes32


class H3(Struct, frozen=True, array_like=True, tag="WQH3"):
    """Peer to manager: my proof, sealed for the manager's key."""

    box: Box


class H4(Struct, frozen=True, array_like=True, tag="WQH4"):
    """Manager to peer: my proof, sealed for the peer's key. The doors are open."""

    box: Box


class Refused(Struct, frozen=True, array_like=True, tag="refused"):
    """Manager to peer, in place of H2 or H4: no. The connection is closed after it."""

    code: Word
    text: Text


_length = struct.Struct(">I")

decode_h1 = msgspec.msgpack.Decoder(H1)
decode_h3 = msgspec.msgpack.Decoder(H3)
decode_h2: "msgspec.msgpack.Decoder[H2 | Refused]" = msgspec.msgpack.Decoder(H2 | Refused)
decode_h4: "msgspec.msgpack.Decoder[H4 | Refused]" = msgspec.msgpack.Decoder(H4 | Refused)


def encode(message: H1 | H2 | H3 | H4 | Refused) -> bytes:
    """Encode a hello message without its length; both sides keep these bytes for the proof."""
    return codec.encode(message)


def framed(encoded: bytes) -> bytes:
    """Put the length in front."""
    assert len(encoded) <= HELLO_MESSAGE_MAX_BYTES, f"a hello message of {len(encoded)} bytes"
    return _length.pack(len(encoded)) + encoded


class FrameBuffer:
    """Cuts a TCP stream into hello messages; never holds more than one and a length."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes; give the message when it is complete.

        Raises RemoteProtocolError when the length is not a hello message's, or when more follows:
        each side speaks once and waits for the answer.
        """
        self._bytes += data
        if len(self._bytes) < _length.size:
            return None
        (length,) = _length.unpack_from(self._bytes)
        if not 0 < length <= HELLO_MESSAGE_MAX_BYTES:
            raise RemoteProtocolError("what was sent is not a hello message")
        end = _length.size + length
        if len(self._bytes) < end:
            return None
        if len(self._bytes) > end:
            raise RemoteProtocolError("more was sent than one hello message")
        message = bytes(self._bytes[_length.size :])
        self._bytes.clear()
        return message
