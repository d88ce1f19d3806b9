"""The specification says what the code does, wherever a program can compare them."""

import re

import pytest
from support.spec_table import SPEC, fill_in
from support.structs import message_types, tag_of

from wqueue.protocol import limits
from wqueue.protocol.codec import PAYLOAD_MAX_BYTES
from wqueue.protocol.handshake import VERSION_MAX
from wqueue.protocol.proof import show_version

TEXT = SPEC.read_text()


def test_generated_parts_are_up_to_date() -> None:
    assert fill_in(TEXT) == TEXT, "run: PYTHONPATH=tests python tests/support/spec_table.py"


def test_every_message_has_its_line_about_answers_and_repetition() -> None:
    table = TEXT.partition("| message | answer |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| (\w+) \|", table, re.MULTILINE) != []
    said = set(re.findall(r"^\| (\w+) \|", table, re.MULTILINE))
    assert said == {tag_of(message) for message in message_types()}


def test_the_version_is_the_one_this_tree_speaks() -> None:
    version = show_version(VERSION_MAX)
    assert TEXT.startswith(f"# The wqueue protocol, version {version}\n")
    assert f"\n* {version}: " in TEXT


@pytest.mark.parametrize(
    "limit",
    [
        limits.HELLO_MESSAGE_MAX_BYTES,
        limits.CONTROL_MESSAGE_MAX_BYTES,
        limits.BATCH_TARGET_BYTES,
        limits.BATCH_MESSAGES_MAX,
        limits.CHUNK_BYTES,
        limits.WINDOW_BYTES,
        limits.INLINE_BYTES,
        limits.SPEC_INLINE_BYTES,
        limits.SPEC_MAX_BYTES,
        limits.TASKS_PER_JOB_MAX,
        limits.OUTPUTS_MAX,
        limits.NAME_MAX_BYTES,
    ],
)
def test_limits_are_told(limit: int) -> None:
    section = TEXT.partition("## 13 Limits")[2].partition("## 14")[0]
    assert re.search(rf"\b{limit}\b", section)


def test_socket_options_are_told() -> None:
    section = TEXT.partition("## 4 The CURVE doors")[2].partition("## 5")[0]
    assert f"{limits.LINK_HEARTBEAT_MS}, {limits.LINK_TIMEOUT_MS} ms" in section
    assert f"{limits.PEER_HANDSHAKE_MS} ms" in section
    assert f"`{limits.ANNOUNCE_TOPIC.decode()}`" in section
    assert str(PAYLOAD_MAX_BYTES) in TEXT


def test_links_inside_the_text_lead_somewhere() -> None:
    headings = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) == anchors
