"""A minimal worker written from protocol/SPEC.md alone, as somebody in another language would.

It imports nothing of wqueue. It runs one attempt at a time, fetches inputs, sends small outputs
inline, and keeps its result until it is acknowledged. Section numbers are the specification's.
"""

import hashlib
import hmac
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
import zmq
from blake3 import blake3
from nacl.public import Box, PrivateKey, PublicKey
from zmq.utils.monitor import recv_monitor_message

PATIENCE_S = 30.0
PATIENCE_MS = 30_000

pack = msgspec.msgpack.encode
unpack = msgspec.msgpack.decode


def enc(*items: bytes) -> bytes:
    return b"".join(len(item).to_bytes(4, "big") + item for item in items)


def mac(key: bytes, text: bytes) -> bytes:
    return hmac.new(key, text, hashlib.sha256).digest()


class ForeignWorker:
    """One worker process and its present session."""

    def __init__(self, password_file: Path, workdir: Path) -> None:
        word, self.credential_role, *parts = password_file.read_text().split()
        assert word == "wqk1"
        self.kid, self.secret, self.manager_key, self.server_id = map(bytes.fromhex, parts)
        self.workdir = workdir
        self.resume_secret = os.urandom(32)
        self.session = 0
        self.epoch = 0
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.sockets: dict[str, zmq.Socket[bytes]] = {}
        self.monitors: dict[str, zmq.Socket[bytes]] = {}
        self.sequence: dict[str, int] = {}
        self.token = b""
        self.endpoints: dict[str, str] = {}
        self.jobs: dict[bytes, list[Any]] = {}
        self.results: dict[bytes, list[Any]] = {}
        self.verdicts: dict[bytes, str] = {}
        self.announced: list[str] = []
        self.is_mute = False

    # --- section 3 ------------------------------------------------------------------------

    def hello(self, host: str, port: int) -> None:
        self.key = PrivateKey.generate()
        public = bytes(self.key.public_key)
        nonce = os.urandom(32)
        with socket.create_connection((host, port), timeout=PATIENCE_S) as link:
            version = [1, 0]
            h1 = pack(["WQH1", version, version, ["raw1"], "worker", self.kid, public, nonce])
            link.sendall(enc(h1))
            h2 = self._answer(link)
            tag, server_id, self.epoch, vmin, vmax, suite, _, m_pub, doors, _, m_nonce, *_ = unpack(
                h2
            )
            assert tag == "WQH2", h2
            assert (m_pub, server_id, suite) == (self.manager_key, self.server_id, "raw1")
            assert min(vmax, version) >= max(vmin, version)
            transcript = enc(
                b"wqueue proof v1", h1, h2, b"worker", self.kid, public, m_pub, nonce, m_nonce,
                b"\0\1\0\0", b"raw1",
            )  # fmt: skip
            th = hashlib.sha256(transcript).digest()
            prk = mac(th, self.secret)
            proof = mac(prk, enc(b"client proof", b"worker", th))
            box = Box(self.key, PublicKey(m_pub))
            sealed = box.encrypt(proof, b"WQH1prf-" + os.urandom(16))
            link.sendall(enc(pack(["WQH3", bytes(sealed)])))
            h4 = unpack(self._answer(link))
            assert h4[0] == "WQH4", h4
            expected = mac(prk, enc(b"manager proof", b"worker", th, proof))
            assert hmac.compare_digest(box.decrypt(h4[1]), expected)
        self.token = mac(prk, enc(b"session", th))[:16]
        self.endpoints = doors
        self.session += 1

    @staticmethod
    def _answer(link: socket.socket) -> bytes:
        length = int.from_bytes(ForeignWorker._exactly(link, 4), "big")
        assert 0 < length <= 4096
        return ForeignWorker._exactly(link, length)

    @staticmethod
    def _exactly(link: socket.socket, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = link.recv(count - len(data))
            assert part, "the manager hung up"
            data += part
        return data

    # --- section 4 ------------------------------------------------------------------------

    def connect(self, door: str, kind: int = zmq.DEALER) -> None:
        link = self.context.socket(kind)
        link.setsockopt(zmq.CURVE_SERVERKEY, self.manager_key)
        link.setsockopt(zmq.CURVE_PUBLICKEY, bytes(self.key.public_key))
        link.setsockopt(zmq.CURVE_SECRETKEY, bytes(self.key))
        for option, value in (
            (zmq.RECONNECT_IVL, -1),
            (zmq.IMMEDIATE, 1),
            (zmq.LINGER, 0),
            (zmq.MAXMSGSIZE, 1048576),
            (zmq.HEARTBEAT_IVL, 5000),
            (zmq.HEARTBEAT_TIMEOUT, 20000),
            (zmq.HANDSHAKE_IVL, 30000),
        ):
            link.setsockopt(option, value)
        if kind == zmq.SUB:
            link.setsockopt(zmq.SUBSCRIBE, b"wq")
        monitor = link.get_monitor_socket()
        link.connect(self.endpoints[door])
        event = 0
        while event != zmq.EVENT_HANDSHAKE_SUCCEEDED:
            assert monitor.poll(PATIENCE_MS), f"the door {door} does not open"
            event = recv_monitor_message(monitor)["event"]
            assert event not in (zmq.EVENT_CLOSED, zmq.EVENT_DISCONNECTED), door
        self.sockets[door] = link
        self.monitors[door] = monitor
        self.sequence[door] = 0

    def close(self) -> None:
        for door, link in self.sockets.items():
            link.disable_monitor()
            link.close(linger=0)
            self.monitors[door].close(linger=0)
        self.sockets.clear()

    def end(self) -> None:
        self.close()
        self.context.destroy(linger=0)

    # --- section 5 ------------------------------------------------------------------------

    def send(self, door: str, *messages: list[Any], content: bytes | None = None) -> None:
        self.sequence[door] += 1
        frames = [pack([[self.token[:8], self.sequence[door]], list(messages)])]
        if content is not None:
            frames.append(content)
        self.sockets[door].send_multipart(frames, zmq.NOBLOCK)

    def receive(self, door: str) -> tuple[list[Any], bytes]:
        """Wait for one batch: its messages, and the content that came with it."""
        assert self.sockets[door].poll(PATIENCE_MS), f"nothing comes on {door}"
        payload, *content = self.sockets[door].recv_multipart()
        (epoch, session, _, _), messages = unpack(payload)
        assert (epoch, session) == (self.epoch, self.session)
        return messages, b"".join(content)

    # --- section 6 ------------------------------------------------------------------------

    def register(self) -> list[Any]:
        """Register with all results that are not acknowledged; give the answer."""
        self.connect("task")
        self.connect("announce", zmq.SUB)
        inventory = [[attempt, "finished", 0.0] for attempt in self.results]
        resources = [1000, 512, 1024, 0, {}]
        self.send(
            "task",
            [
                "register", self.resume_secret, self.session, resources, "elsewhere", os.getpid(),
                "foreign 1", [], inventory, self.epoch,
            ],
        )  # fmt: skip
        (answer, *_), _ = self.receive("task")
        assert answer[0] == "registered", answer
        _, _number, _heartbeat_s, _silence_max_s, _adopted, unwanted, *_ = answer
        for attempt in unwanted:
            self.results.pop(attempt, None)
        self.connect("result")
        self.send("result", ["attach", self.session])
        for result in self.results.values():
            self.send("result", ["result", [result]])
        return list(answer)

    def leave(self) -> None:
        self.send("task", ["bye", "done"])
        # The manager closes; to close ourselves at once could lose the word.
        event = 0
        while event != zmq.EVENT_DISCONNECTED:
            assert self.monitors["task"].poll(PATIENCE_MS), "the manager does not close"
            event = recv_monitor_message(self.monitors["task"])["event"]

    # --- sections 7 and 8 -------------------------------------------------------------------

    def run_one(self) -> bytes:
        """Wait for an attempt, run it and send its result; give its id."""
        while True:
            messages, _ = self.receive("task")
            for message in messages:
                if message[0] == "describe":
                    self.jobs[message[1]] = message
                elif message[0] == "dispatch":
                    (assignment,) = message[1]
                    return self._run(assignment)
                else:
                    raise AssertionError(message)

    def _run(self, assignment: list[Any]) -> bytes:
        attempt, value, column_files = assignment
        _, _, _, template, files = self.jobs[attempt[:16]]
        command, is_shell, is_array, env, _, inputs, outputs, *_ = template
        assert not is_array, "this worker fills in nothing"
        assert value is not None
        self.send("task", ["started", [attempt]])
        sandbox = self.workdir / attempt.hex()[-16:]
        sandbox.mkdir(parents=True)
        for remote, index in inputs:
            file = files[index] if index >= 0 else column_files[-1 - index]
            target = sandbox / os.fsdecode(remote)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self._fetch(file[0], file[1]))
            target.chmod(file[2])
        variables = {os.fsdecode(key): os.fsdecode(text) for key, text in env}
        variables |= {"WQ_SANDBOX": str(sandbox), "WQ_ATTEMPT": attempt.hex()}
        words = [b"/bin/sh", b"-c", command[0]] if is_shell else command
        began = time.monotonic()
        done = subprocess.run(
            words,
            cwd=sandbox,
            env=os.environ | variables,
            capture_output=True,
            check=False,
            timeout=PATIENCE_S,
        )
        took_s = time.monotonic() - began
        made = []
        for position, (remote, *_) in enumerate(outputs):
            path = sandbox / os.fsdecode(remote)
            if path.is_file():
                content = path.read_bytes()
                mode = path.stat().st_mode & 0o777
                made.append([position, len(content), mode, b"", content])
        for position, content in ((65534, done.stdout), (65535, done.stderr)):
            if content:
                made.append([position, len(content), 0o644, b"", content])
        outcome = "succeeded" if done.returncode == 0 else "exit_nonzero"
        usage = [took_s]
        self.results[attempt] = [attempt, outcome, done.returncode, 0, "", usage, made]
        if not self.is_mute:
            self.send("result", ["result", [self.results[attempt]]])
        return bytes(attempt)

    def _fetch(self, digest: bytes, size: int) -> bytes:
        content = b""
        while len(content) < size:
            length = min(262144, size - len(content))
            self.send("result", ["get", 1, b"d" + digest, len(content), length])
            (message,), part = self.receive("result")
            assert message == ["data", 1, len(content)], message
            assert len(part) == length
            content += part
        assert blake3(content).digest() == digest
        return content

    def await_acknowledgement(self, attempt: bytes) -> str:
        """Wait until a result need not be kept; give the verdict."""
        while attempt not in self.verdicts:
            messages, _ = self.receive("result")
            for message in messages:
                assert message[0] == "result_ack", message
                for each in message[1]:
                    self.verdicts[each] = message[2] if len(message) > 2 else "recorded"
                    self.results.pop(each, None)
        return self.verdicts[attempt]

    def await_heartbeat(self) -> None:
        """Section 12: wait for the manager's heartbeat on announce."""
        while "manager_heartbeat" not in self.announced:
            assert self.sockets["announce"].poll(PATIENCE_MS), "no heartbeat"
            topic, payload = self.sockets["announce"].recv_multipart()
            assert topic == b"wq"
            self.announced += [message[0] for message in unpack(payload)[1]]
