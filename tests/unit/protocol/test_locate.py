"""Where a manager is looked for, and in which order."""

import os
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wqueue.protocol import locate
from wqueue.protocol.credentials import Credential, make_credential, write_credential
from wqueue.protocol.errors import ManagerUnreachable, NotAuthorized, UsageError
from wqueue.protocol.locate import (
    Found,
    Info,
    default_state_dir,
    find_credential,
    find_manager,
    make_state_dir,
    parse_address,
    read_info,
    runtime_dir,
    write_info,
)

SERVER_ID = b"s" * 16


def info(**changes: object) -> Info:
    values: dict[str, object] = {
        "name": "default",
        "server_id": SERVER_ID.hex(),
        "epoch": 3,
        "host": "head",
        "addresses": ["head", "10.0.0.1"],
        "port": 9123,
        "supervisor_pid": 10,
        "daemon_pid": 11,
        "manager_key": bytes(32).hex(),
        "version": "0.1",
    }
    return Info(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_STATE_HOME": str(tmp_path / "state"), "HOME": str(tmp_path)}


def running(environ: dict[str, str], name: str, port: int) -> Path:
    folder = default_state_dir(name, environ)
    make_state_dir(folder)
    write_info(folder / "info.json", info(port=port))
    return folder


# --- state directories ----------------------------------------------------


def test_state_directories_lie_where_the_account_keeps_state(tmp_path: Path) -> None:
    assert default_state_dir("a", {"XDG_STATE_HOME": "/x"}) == Path("/x/wqueue/a")
    for state_home in ("", "relative"):
        found = default_state_dir(environ={"XDG_STATE_HOME": state_home, "HOME": str(tmp_path)})
        assert found == tmp_path / ".local" / "state" / "wqueue" / "default"
    assert default_state_dir(environ={}) == Path.home() / ".local/state/wqueue/default"


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a\nb", "a\0"])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be called"):
        default_state_dir(name, {})


def test_a_state_directory_is_made_for_its_owner_only(tmp_path: Path) -> None:
    made = tmp_path / "a" / "b"
    make_state_dir(made)
    make_state_dir(made)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_a_state_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o770)
    with pytest.raises(UsageError, match="chmod 700"):
        make_state_dir(tmp_path)


def test_a_state_directory_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot be made: Not a directory; name another"):
        make_state_dir(tmp_path / "file" / "default")


def test_a_state_directory_of_another_account_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(UsageError, match="another account"):
        make_state_dir(tmp_path)


def test_the_runtime_folder_is_used_when_it_is_there(tmp_path: Path) -> None:
    assert runtime_dir({"XDG_RUNTIME_DIR": str(tmp_path)}) == tmp_path / "wqueue"
    for base in ("", "relative", str(tmp_path / "missing")):
        assert runtime_dir({"XDG_RUNTIME_DIR": base}) is None


# --- info files ----------------------------------------------------


def test_an_info_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "info.json"
    write_info(path, info())
    assert read_info(path) == info()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_info_file_of_a_later_version_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "info.json"
    write_info(path, info())
    path.write_text(path.read_text().replace('"name"', '"new": [1], "name"'))
    assert read_info(path) == info()


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"\xff", b"[" * 100_000],
)
def test_a_file_of_something_else_is_no_info_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "info.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="not a manager's info file"):
        read_info(path)


@pytest.mark.parametrize("changes", [{"server_id": "zz"}, {"manager_key": "0"}])
def test_an_info_file_with_damaged_keys_is_none(tmp_path: Path, changes: dict[str, str]) -> None:
    path = tmp_path / "info.json"
    write_info(path, info(**changes))
    with pytest.raises(UsageError, match="not a manager's info file"):
        read_info(path)


def test_an_info_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the info file"):
        read_info(tmp_path)


# --- finding a manager ----------------------------------------------------


def test_no_manager_says_how_to_start_one(environ: dict[str, str]) -> None:
    with pytest.raises(ManagerUnreachable, match="start one with: wq-manager") as caught:
        find_manager(environ=environ)
    assert "looked in" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_default_manager_of_the_account_is_found(environ: dict[str, str]) -> None:
    folder = running(environ, "default", 4000)
    found = find_manager(environ=environ)
    assert (found.host, found.port, found.server_id) == ("head", 4000, SERVER_ID)
    assert found.addresses == ["head", "10.0.0.1"]
    assert found.state_dir == folder
    assert found.where == str(folder / "info.json")


def test_on_the_managers_own_machine_loopback_is_tried_too(environ: dict[str, str]) -> None:
    folder = running(environ, "default", 4000)
    write_info(folder / "info.json", info(host=socket.gethostname(), addresses=["10.0.0.1"]))
    found = find_manager(environ=environ)
    assert found.addresses == [socket.gethostname(), "10.0.0.1", "127.0.0.1"]


def test_what_is_given_first_counts(environ: dict[str, str], tmp_path: Path) -> None:
    folders = {name: running(environ, name, port) for port, name in enumerate("abcdef", 4001)}
    folders["default"] = running(environ, "default", 4000)
    copy = tmp_path / "copy.json"
    write_info(copy, info(port=5000, state_dir=str(folders["a"])))
    steps: list[tuple[dict[str, str], int]] = [
        ({"WQ_NAME": "b"}, 4002),
        ({"WQ_STATE_DIR": str(folders["c"])}, 4003),
        ({"WQ_INFO_FILE": str(copy)}, 5000),
        ({"WQ_MANAGER": "host:6000"}, 6000),
    ]
    assert find_manager(environ=environ).port == 4000
    for variables, port in steps:
        environ |= variables
        assert find_manager(environ=environ).port == port
    assert find_manager(name="d", environ=environ).port == 4004
    assert find_manager(state_dir=folders["e"], name="d", environ=environ).port == 4005
    found = find_manager(info_file=copy, state_dir=folders["e"], environ=environ)
    assert (found.port, found.state_dir) == (5000, folders["a"])
    found = find_manager("other:7000", info_file=copy, environ=environ)
    assert found == Found("other", 7000, ["other"], where="other:7000")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("head:1", ("head", 1)),
        ("head", ("head", 9123)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
        ("[::1]:77", ("::1", 77)),
        ("[::1]", ("::1", 9123)),
    ],
)
def test_addresses_are_read(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", ":1", "head:", "head:0", "head:65536", "head:x", "head:\u0661"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        parse_address(text)


@given(st.text(max_size=20))
def test_any_text_is_an_address_or_a_clear_error(text: str) -> None:
    try:
        host, port = parse_address(text)
    except UsageError:
        return
    assert host
    assert 0 < port < 65536


# --- finding the secret ----------------------------------------------------


def password(folder: Path, server_id: bytes = SERVER_ID, kid: bytes = b"12345678") -> Credential:
    made = make_credential(bytes(32), "owner", kid, bytes(32), server_id)
    write_credential(folder / "password", made)
    return made


def test_the_file_given_counts_first(environ: dict[str, str], tmp_path: Path) -> None:
    folder = running(environ, "default", 4000)
    kids = [b"aaaaaaaa", b"bbbbbbbb", b"cccccccc"]
    files = [tmp_path / "given", tmp_path / "named", folder]
    for kid, place in zip(kids, files, strict=True):
        place.mkdir(exist_ok=True)
        password(place, kid=kid)
    found = find_manager(environ=environ)
    assert find_credential(found, environ=environ).kid == kids[2]
    environ["WQ_PASSWORD_FILE"] = str(files[1] / "password")
    assert find_credential(found, environ=environ).kid == kids[1]
    assert find_credential(found, files[0] / "password", environ).kid == kids[0]


def test_an_info_file_elsewhere_leads_to_the_secret_by_its_server_id(
    environ: dict[str, str], tmp_path: Path
) -> None:
    password(running(environ, "other", 1), b"o" * 16)
    made = password(running(environ, "right", 2))
    (default_state_dir("broken", environ)).mkdir()
    (default_state_dir("broken", environ) / "password").write_text("open to all")
    found = Found("head", 9123, ["head"], SERVER_ID, tmp_path / "not here")
    assert find_credential(found, environ=environ).kid == made.kid


def test_the_state_directory_of_the_environment_is_searched_too(
    environ: dict[str, str], tmp_path: Path
) -> None:
    environ["WQ_STATE_DIR"] = str(tmp_path)
    password(tmp_path)
    assert find_credential(Found("head", 1, ["head"], SERVER_ID), environ=environ).is_human is False


def test_no_secret_says_how_to_give_one(environ: dict[str, str]) -> None:
    with pytest.raises(NotAuthorized, match="--password-file") as caught:
        find_credential(Found("head", 1, ["head"], SERVER_ID), environ=environ)
    assert "head:1" in str(caught.value)


def test_a_bare_address_is_asked_for_its_server_id(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = password(running(environ, "right", 2))
    asked = []

    def ask(addresses: list[str], port: int) -> bytes:
        asked.append((addresses, port))
        return SERVER_ID

    monkeypatch.setattr(locate, "ask_server_id", ask)
    assert find_credential(Found("head", 1, ["head"]), environ=environ).kid == made.kid
    assert asked == [(["head"], 1)]
