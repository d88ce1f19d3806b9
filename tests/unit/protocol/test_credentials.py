"""Password files: one line, for its owner's eyes only, with errors that say what to do."""

import hashlib
import hmac
import os
import stat
import struct
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wqueue.protocol import credentials, keys
from wqueue.protocol.credentials import (
    Credential,
    KeyCache,
    credential_line,
    make_credential,
    parse_credential,
    read_credential,
    write_credential,
    write_private,
)
from wqueue.protocol.errors import NotAuthorized, UsageError, WqueueError
from wqueue.protocol.keys import ROLES, derive_key, derive_root_key, enc

MADE = make_credential(bytes(32), "worker", b"12345678", b"m" * 32, b"s" * 16)
PASSWORD = "correct horse battery"


def written(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "password"
    path.touch(mode=0o600)
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("role", ROLES)
def test_a_credential_is_read_as_it_was_written(tmp_path: Path, role: str) -> None:
    made = make_credential(bytes(32), role, b"12345678", b"m" * 32, b"s" * 16)
    write_credential(tmp_path / "password", made)
    found = read_credential(tmp_path / "password")
    assert credential_line(found) == credential_line(made)
    assert (found.role, found.kid, found.secret) == (role, b"12345678", made.secret)
    assert (found.manager_key, found.server_id) == (b"m" * 32, b"s" * 16)
    assert not found.is_human
    assert found.suite == "raw1"
    assert found.source


def test_a_credential_line_is_as_the_specification_says() -> None:
    words = credential_line(MADE).split(" ")
    assert words[:3] == ["wqk1", "worker", b"12345678".hex()]
    assert words[3] == MADE.secret.hex()
    assert words[4:] == [(b"m" * 32).hex(), (b"s" * 16).hex()]


def test_a_human_password_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_credential(tmp_path / "password", Credential(password=PASSWORD))
    found = read_credential(tmp_path / "password")
    assert found.is_human
    assert (found.suite, found.password, found.role) == ("pw1", PASSWORD, "")


@pytest.mark.parametrize("text", [f"{PASSWORD}\n", f"  {PASSWORD}  ", f"\n{PASSWORD}\r\n\n"])
def test_blanks_around_a_password_do_not_count(text: str) -> None:
    assert parse_credential(text).password == PASSWORD


@pytest.mark.parametrize("text", ["", "\n", "two\nlines that are long enough"])
def test_a_password_file_holds_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="exactly one line"):
        parse_credential(text)


def test_a_short_password_is_refused() -> None:
    with pytest.raises(UsageError, match="needs 12 characters or more"):
        parse_credential("elevenchars")
    assert parse_credential("twelve chars").password == "twelve chars"


LINE = credential_line(MADE)


@pytest.mark.parametrize(
    "line",
    [
        "wqk1",
        LINE + " 00",
        LINE[:-1],
        LINE[:-2],
        LINE.replace("worker", "root"),
        LINE.replace("worker", "worker 00"),
        LINE[:-2] + "zz",
    ],
)
def test_a_damaged_credential_is_no_password(line: str) -> None:
    with pytest.raises(UsageError, match="damaged credential"):
        parse_credential(line)


@given(st.text(max_size=100))
def test_any_text_is_a_credential_or_a_clear_error(text: str) -> None:
    try:
        found = parse_credential(text, "FILE")
    except UsageError as error:
        problem = str(error)
        assert problem.startswith("FILE ")
        assert "\n" not in problem
    else:
        assert found.is_human or found.role


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path, LINE.encode(), mode)
    with pytest.raises(UsageError, match="chmod 600"):
        read_credential(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotAuthorized, match=r"nowhere: No such file") as caught:
        read_credential(tmp_path / "nowhere")
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_password_file(tmp_path: Path) -> None:
    with pytest.raises(WqueueError, match="directory"):
        read_credential(tmp_path)


@pytest.mark.parametrize("content", [b"x" * 4097, b"\xff" * 20])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UsageError, match="is no password file"):
        read_credential(written(tmp_path, content))


def test_a_private_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = written(tmp_path, b"old", 0o644)
    (tmp_path / f".password.{os.getpid()}").write_text("left over")
    write_private(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_private_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").touch()
    with pytest.raises(OSError, match="folder"):
        write_private(tmp_path / "folder", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


# --- derivation ----------------------------------------------------


def test_keys_differ_by_role_kid_and_root() -> None:
    made = {
        derive_key(root, role, kid)
        for root in (bytes(32), b"1" * 32)
        for role in ROLES
        for kid in (b"", b"12345678")
    }
    assert len(made) == 2 * len(ROLES) * 2


def test_a_key_is_derived_as_the_specification_says() -> None:
    text = b"".join(
        struct.pack(">I", len(item)) + item for item in (b"wqueue key v1", b"worker", b"12345678")
    )
    assert enc("wqueue key v1", "worker", b"12345678") == text
    assert MADE.secret == hmac.new(bytes(32), text, hashlib.sha256).digest()


@given(
    st.lists(st.binary(max_size=3), max_size=4),
    st.lists(st.binary(max_size=3), max_size=4),
)
def test_no_two_lists_are_joined_to_the_same_bytes(one: list[bytes], other: list[bytes]) -> None:
    assert (enc(*one) == enc(*other)) == (one == other)


def test_equal_looking_passwords_give_equal_keys() -> None:
    composed, decomposed = "sm\u00f6rg\u00e5sbord", "smo\u0308rga\u030asbord"
    assert composed != decomposed
    assert derive_root_key(composed, bytes(16)) == derive_root_key(decomposed, bytes(16))


# --- the cache of derived keys ----------------------------------------------------


def test_a_derived_key_is_kept_for_its_salt_and_file(tmp_path: Path) -> None:
    cache = KeyCache(tmp_path / "cache")
    held = Credential(password=PASSWORD, source="1-2-3")
    assert cache.get(held, bytes(16)) is None
    key = cache.derive(held, bytes(16))
    assert key == derive_root_key(PASSWORD, bytes(16))
    assert cache.get(held, bytes(16)) == cache.derive(held, bytes(16)) == key
    assert cache.get(held, b"1" * 16) is None
    assert cache.get(Credential(password=PASSWORD, source="changed"), bytes(16)) is None
    for path in (tmp_path / "cache").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_password_without_a_file_is_not_kept(tmp_path: Path) -> None:
    cache = KeyCache(tmp_path)
    held = Credential(password=PASSWORD)
    cache.derive(held, bytes(16))
    assert cache.get(held, bytes(16)) is None
    assert KeyCache(None).derive(held, bytes(16)) == derive_root_key(PASSWORD, bytes(16))


def test_a_kept_key_that_others_could_read_or_is_damaged_is_not_used(tmp_path: Path) -> None:
    cache = KeyCache(tmp_path)
    held = Credential(password=PASSWORD, source="1-2-3")
    key = cache.derive(held, bytes(16))
    (path,) = tmp_path.glob("derived-*")
    path.chmod(0o640)
    assert cache.get(held, bytes(16)) is None
    path.chmod(0o600)
    assert cache.get(held, bytes(16)) == key
    path.write_bytes(key[:-1])
    assert cache.get(held, bytes(16)) is None


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    held = Credential(password=PASSWORD, source="1-2-3")
    cache = KeyCache(tmp_path / "file" / "cache")
    assert cache.derive(held, bytes(16)) == derive_root_key(PASSWORD, bytes(16))


def test_one_process_derives_and_the_others_take_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    derived = []

    def derive(password: str, salt: bytes) -> bytes:
        derived.append(password)
        return keys.derive_root_key(password, salt)

    monkeypatch.setattr(credentials, "derive_root_key", derive)
    held = Credential(password=PASSWORD, source="1-2-3")
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(KeyCache(tmp_path).derive(held, bytes(16))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 4
    assert derived == [PASSWORD]
