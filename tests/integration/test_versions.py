"""A manager of a version that nobody here speaks: each tool says so in one line and ends."""

import os
import socket
import threading
from collections.abc import Iterator

import pytest
from support.processes import Site

from wqueue.protocol.credential_values import credential_line, make_credential
from wqueue.protocol.hello_messages import H2, encode, framed

pytestmark = pytest.mark.slow

KEY, SERVER_ID = bytes(range(32)), bytes(16)
LATER = (9, 0)


@pytest.fixture
def later_port() -> Iterator[int]:
    """Answer every hello as a manager of version 9 would; give the port."""
    answer = framed(
        encode(H2(SERVER_ID, 1, LATER, LATER, "raw1", bytes(16), KEY, {}, "later", bytes(32)))
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    peer.recv(4096)
                    peer.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@pytest.mark.parametrize(
    ("tool", "words"), [("worker", []), ("submit", ["--", "true"]), ("status", [])]
)
def test_a_manager_of_an_unknown_version_is_one_line_and_exit_code_7(
    site: Site, later_port: int, tool: str, words: list[str]
) -> None:
    password = site.folder / "password"
    role = "worker" if tool == "worker" else "client"
    credential = make_credential(bytes(32), role, os.urandom(8), KEY, SERVER_ID)
    password.write_text(credential_line(credential))
    password.chmod(0o600)
    place = ["--manager", f"127.0.0.1:{later_port}", "--password-file", password]
    done = site.run(tool, *place, *words)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "using" not in line]
    assert done.returncode == 7, said
    assert len(said) == 1, said
    assert "version" in said[0]
