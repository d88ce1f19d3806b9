"""The proof on hello as pure state machines, one per side: bytes in, bytes out, time given.

Who dials is the peer, who listens the manager. Four messages, H1 to H4; the text is
protocol/SPEC.md, "hello". Keys, nonces and clocks are passed in. Both classes may be fed any bytes
at all: what is wrong ends in a refusal or in one of our errors, never in another exception.

The peer proves first: a manager that proved first would hand material for guessing a human
password to every stranger.
"""

import hmac
from collections.abc import Container
from typing import Literal

import nacl.exceptions
from nacl.bindings import crypto_box_beforenm
from nacl.secret import SecretBox

from wqueue.protocol import codec
from wqueue.protocol.credential_values import Credential
from wqueue.protocol.errors import (
    NotAuthorized,
    RemoteProtocolError,
    VersionMismatch,
    WqueueError,
    error_from_wire,
)
from wqueue.protocol.hello_messages import (
    H1,
    H2,
    H3,
    H4,
    FrameBuffer,
    Refused,
    decode_h1,
    decode_h2,
    decode_h3,
    decode_h4,
    encode,
    framed,
)
from wqueue.protocol.keys import KID_BYTES, ROLES, derive_key
from wqueue.protocol.limits import HELLO_TIMEOUT_S
from wqueue.protocol.proof import (
    BOX_NONCE_PREFIX,
    Secrets,
    agree_version,
    show_version,
)
from wqueue.protocol.proof import BOX_NONCE_RANDOM_BYTES as BOX_NONCE_RANDOM_BYTES
from wqueue.protocol.proof import NONCE_BYTES as NONCE_BYTES
from wqueue.protocol.proof import VERSION_MAX as VERSION_MAX
from wqueue.protocol.proof import VERSION_MIN as VERSION_MIN
from wqueue.protocol.proof import ManagerFacts as ManagerFacts
from wqueue.protocol.proof import Proven as Proven
from wqueue.protocol.proof import ProvenPeer as ProvenPeer


class _No(Exception):
    """Ends the manager's side with a refusal."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class ManagerHello:
    """The manager's side of one hello.

    Feed what the socket gave to receive() and send what it returns; close once `state` is
    "proven" or "refused" and that is sent. A wrong proof is delayed by the caller, per address
    (`code` is "wrong_proof"). `used_keys` holds the CURVE keys that proved something before.
    """

    def __init__(
        self,
        facts: ManagerFacts,
        endpoints: dict[str, str],
        *,
        nonce: bytes,
        box_nonce: bytes,
        opened_s: float,
        used_keys: Container[bytes] = (),
    ) -> None:
        assert len(nonce) == NONCE_BYTES, len(nonce)
        assert len(box_nonce) == BOX_NONCE_RANDOM_BYTES, len(box_nonce)
        self.state: Literal["new", "proving", "proven", "refused"] = "new"
        self.deadline_s = opened_s + HELLO_TIMEOUT_S
        self.peer: ProvenPeer | None = None
        self.code = ""
        self.text = ""
        self._facts = facts
        self._endpoints = endpoints
        self._nonce = nonce
        self._box_nonce = box_nonce
        self._used_keys = used_keys
        self._frames = FrameBuffer()
        self._h1 = b""
        self._h2 = b""
        self._hello: H1 | None = None
        self._answer: H2 | None = None
        self._version = (0, 0)

    def receive(self, data: bytes, now_s: float) -> bytes:
        """Take bytes from the peer; give bytes for it. Never raises for what a peer sent."""
        if self.state in ("proven", "refused"):
            return b""
        if now_s > self.deadline_s:
            return self._end("late", f"no proof within {HELLO_TIMEOUT_S:g} s")
        try:
            message = self._frames.feed(data)
        except RemoteProtocolError as error:
            # Not even our framing: an answer would only puzzle whatever speaks there.
            return self._end("bad_message", str(error))
        if message is None:
            return b""
        try:
            return self._on_h1(message) if self.state == "new" else self._on_h3(message)
        except _No as no:
            self._end(no.code, no.text)
        except RemoteProtocolError as error:
            self._end("bad_message", str(error))
        return framed(encode(Refused(self.code, self.text)))

    def _end(self, code: str, text: str) -> bytes:
        self.state = "refused"
        self.code, self.text = code, text
        return b""

    def _on_h1(self, message: bytes) -> bytes:
        hello = codec.decode(decode_h1, message)
        self._check(hello)
        self._h1, self._hello = message, hello
        facts = self._facts
        self._answer = H2(
            facts.server_id,
            facts.epoch,
            VERSION_MIN,
            VERSION_MAX,
            self._suite(hello),
            facts.salt,
            facts.public_key,
            self._endpoints,
            facts.project,
            self._nonce,
        )
        self._h2 = encode(self._answer)
        self.state = "proving"
        return framed(self._h2)

    def _check(self, hello: H1) -> None:
        version = agree_version((VERSION_MIN, VERSION_MAX), (hello.version_min, hello.version_max))
        if version is None:
            raise _No(
                "version",
                f"this manager speaks versions {show_version(VERSION_MIN)} to "
                f"{show_version(VERSION_MAX)} of the protocol, not "
                f"{show_version(hello.version_min)} to {show_version(hello.version_max)}",
            )
        self._version = version
        if hello.role not in ROLES:
            raise _No("bad_role", "the roles are " + ", ".join(ROLES))
        if self._facts.full.get(hello.role):
            raise _No("full", self._facts.full[hello.role])
        if hello.kid in self._facts.revoked:
            raise _No("revoked", "this credential was revoked; ask the manager's owner for another")
        if hello.public_key in self._used_keys or hello.public_key == self._facts.public_key:
            raise _No("bad_message", "that CURVE key was used before; each session needs a new one")

    def _suite(self, hello: H1) -> str:
        # The credential decides the suite: one with an id never goes by password, nor the reverse.
        if hello.kid:
            if "raw1" in hello.suites and len(hello.kid) == KID_BYTES:
                return "raw1"
        elif "pw1" in hello.suites and self._facts.password_key is not None:
            return "pw1"
        raise _No("suite", "this manager takes " + self._taken())

    def _taken(self) -> str:
        if self._facts.password_key is None:
            return "credentials that it made, no human password"
        return "credentials that it made, or its password"

    def _on_h3(self, message: bytes) -> bytes:
        hello, answer = self._hello, self._answer
        assert hello is not None, "H3 before H1"
        assert answer is not None, "H3 before H2"
        sealed = codec.decode(decode_h3, message).box
        try:
            box = _box(self._facts.secret_key, hello.public_key)
            proof = box.decrypt(sealed)
        except (nacl.exceptions.CryptoError, ValueError):
            raise _No("wrong_proof", _WRONG) from None
        for credential_role, key in self._keys(hello, answer.suite):
            secrets = Secrets(key, self._h1, self._h2, hello, answer, self._version)
            if hmac.compare_digest(proof, secrets.proof):
                return self._open(box, secrets, hello, credential_role)
        raise _No("wrong_proof", _WRONG)

    def _keys(self, hello: H1, suite: str) -> list[tuple[str, bytes]]:
        if suite == "pw1":
            assert self._facts.password_key is not None, "suite pw1 without a password"
            return [(hello.role, derive_key(self._facts.password_key, hello.role, b""))]
        # An owner's credential may prove any role.
        roles = dict.fromkeys((hello.role, "owner"))
        return [(role, derive_key(self._facts.root_key, role, hello.kid)) for role in roles]

    def _open(self, box: SecretBox, secrets: Secrets, hello: H1, credential_role: str) -> bytes:
        self.peer = ProvenPeer(
            hello.public_key,
            hello.role,
            hello.kid,
            credential_role,
            self._version,
            secrets.token(),
        )
        self.state = "proven"
        return framed(encode(H4(_seal(box, secrets.manager_proof(), self._box_nonce))))


_WRONG = "the proof is wrong: another password, or a credential of another manager or role"


def _box(secret_key: bytes, public_key: bytes) -> SecretBox:
    # crypto_box under its precomputed key, which is a SecretBox: nacl.public.Box would compute the
    # public key of `secret_key` too, as dear as all the rest of a proof. Raises CryptoError.
    return SecretBox(crypto_box_beforenm(public_key, secret_key))


def _seal(box: SecretBox, text: bytes, nonce: bytes) -> bytes:
    return bytes(box.encrypt(text, BOX_NONCE_PREFIX + nonce))


class PeerHello:
    """The peer's side of one hello.

    Send `opening`, feed what comes to receive() and send what it returns, until `state` is
    "proven". After H2 a human password whose key is not at hand gives "needs_key": look `salt` up
    and call give_key(), or hang up, derive, and dial again (argon2id may outlast a hello).
    `where` names the manager in errors.
    """

    def __init__(
        self,
        credential: Credential,
        role: str,
        *,
        public_key: bytes,
        secret_key: bytes,
        nonce: bytes,
        box_nonce: bytes,
        where: str = "the manager",
    ) -> None:
        assert len(nonce) == NONCE_BYTES, len(nonce)
        assert len(box_nonce) == BOX_NONCE_RANDOM_BYTES, len(box_nonce)
        if credential.role not in ("", "owner", role):
            raise NotAuthorized(
                f"this credential is for a {credential.role}; it cannot act as {role}"
            )
        self.state: Literal["new", "needs_key", "proving", "proven"] = "new"
        self.salt = b""
        self.proven: Proven | None = None
        self._credential = credential
        self._secret_key = secret_key
        self._box_nonce = box_nonce
        self._where = where
        self._frames = FrameBuffer()
        self._hello = H1(
            VERSION_MIN,
            VERSION_MAX,
            [credential.suite],
            role,
            credential.kid,
            public_key,
            nonce,
        )
        self._h1 = encode(self._hello)
        self._h2 = b""
        self._answer: H2 | None = None
        self._version = (0, 0)
        self._secrets: Secrets | None = None
        self._box: SecretBox | None = None

    @property
    def opening(self) -> bytes:
        """Give the bytes that begin the hello."""
        return framed(self._h1)

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the manager; give bytes for it.

        Raises NotAuthorized, VersionMismatch, Refused or RemoteProtocolError.
        """
        message = self._frames.feed(data)
        if message is None:
            return b""
        if self.state == "new":
            return self._on_h2(message)
        if self.state == "proving":
            return self._on_h4(message)
        raise RemoteProtocolError(f"{self._where} spoke when it was not its turn")

    def give_key(self, root_key: bytes) -> bytes:
        """Give the root key that the human password stands for; returns what to send."""
        assert self.state == "needs_key", self.state
        return self._prove(derive_key(root_key, self._hello.role, b""))

    def _on_h2(self, message: bytes) -> bytes:
        answer = codec.decode(decode_h2, message)
        if isinstance(answer, Refused):
            raise self._refused(answer)
        self._check(answer)
        self._h2, self._answer = message, answer
        self.salt = answer.salt
        if self._credential.is_human:
            self.state = "needs_key"
            return b""
        return self._prove(self._credential.secret)

    def _check(self, answer: H2) -> None:
        pinned = self._credential.manager_key
        # The pin comes first: nothing else that a foreign manager says is worth a sentence.
        if pinned and not hmac.compare_digest(pinned, answer.public_key):
            raise NotAuthorized(
                f"{self._where} is another manager than the one this credential was made by "
                "(its key differs); check the address and the password file"
            )
        if self._credential.server_id not in (b"", answer.server_id):
            raise NotAuthorized(f"{self._where} has another server id than this credential's")
        version = agree_version(
            (VERSION_MIN, VERSION_MAX), (answer.version_min, answer.version_max)
        )
        if version is None:
            raise VersionMismatch(
                f"{self._where} speaks versions {show_version(answer.version_min)} to "
                f"{show_version(answer.version_max)} of the protocol, this program "
                f"{show_version(VERSION_MIN)} to {show_version(VERSION_MAX)}"
            )
        self._version = version
        if answer.suite != self._credential.suite:
            raise RemoteProtocolError(f"{self._where} chose a suite that was not offered")
        if not all(text.startswith("tcp://") for text in answer.endpoints.values()):
            raise RemoteProtocolError(f"{self._where} names a door that is not a tcp address")

    def _prove(self, key: bytes) -> bytes:
        answer = self._answer
        assert answer is not None, "proof before H2"
        self._secrets = Secrets(key, self._h1, self._h2, self._hello, answer, self._version)
        try:
            self._box = _box(self._secret_key, answer.public_key)
        except nacl.exceptions.CryptoError:
            raise RemoteProtocolError(f"{self._where} sent a key that cannot be used") from None
        self.state = "proving"
        return framed(encode(H3(_seal(self._box, self._secrets.proof, self._box_nonce))))

    def _on_h4(self, message: bytes) -> bytes:
        answer, secrets, box = self._answer, self._secrets, self._box
        assert answer is not None, "H4 before H2"
        assert secrets is not None, "H4 before H3"
        assert box is not None, "H4 before H3"
        last = codec.decode(decode_h4, message)
        if isinstance(last, Refused):
            raise self._refused(last)
        try:
            proof = box.decrypt(last.box)
        except (nacl.exceptions.CryptoError, ValueError):
            proof = b""
        if not hmac.compare_digest(proof, secrets.manager_proof()):
            raise NotAuthorized(f"{self._where} could not prove that it knows the password")
        self.proven = Proven(
            answer.server_id,
            answer.epoch,
            self._version,
            answer.project,
            answer.endpoints,
            answer.public_key,
            self._hello.public_key,
            self._secret_key,
            secrets.token(),
        )
        self.state = "proven"
        return b""

    def _refused(self, refused: Refused) -> WqueueError:
        text = f"{self._where} refused: {_one_line(refused.text)}"
        if refused.code in _NOT_AUTHORIZED:
            return NotAuthorized(text)
        return error_from_wire(refused.code, text)


_NOT_AUTHORIZED = ("wrong_proof", "bad_role", "revoked", "suite")


def _one_line(text: str) -> str:
    # Whoever wrote it has proved nothing: no control characters into a terminal.
    return "".join(c if c.isprintable() else " " for c in text)[:300]
