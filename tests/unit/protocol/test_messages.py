"""Every message survives its way over the wire, and lies there as it always did."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect
from support.golden import FOLDER, VERSION, path_of, readable, subjects
from support.structs import UNIONS, message_types, sample, tag_of, values

from wqueue.protocol import codec, messages

KINDS = sorted(subjects().items())


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_a_message_survives_its_way(name: str, kind: type[msgspec.Struct]) -> None:
    decoder = msgspec.msgpack.Decoder(kind)

    @settings(max_examples=15, deadline=None)
    @given(values(kind))
    def survives(message: msgspec.Struct) -> None:
        assert codec.decode(decoder, codec.encode(message)) == message

    survives()


def covers(new: Any, old: Any) -> bool:
    """Tell whether `new` is `old` but for fields appended by a later minor version."""
    if isinstance(old, list):
        return isinstance(new, list) and len(new) >= len(old) and all(map(covers, new, old))
    return bool(new == old)


GOLDEN = sorted(path.name for path in FOLDER.glob("*.json"))


@pytest.mark.parametrize("file", GOLDEN)
def test_old_encodings_mean_what_they_meant(file: str) -> None:
    golden = json.loads((FOLDER / file).read_text())
    encoded = bytes.fromhex(golden["encoded"])
    assert readable(msgspec.msgpack.decode(encoded)) == golden["value"]
    kind = subjects()[file.removesuffix(".json").partition("-")[2]]
    message = codec.decode(msgspec.msgpack.Decoder(kind), encoded)
    again = readable(msgspec.msgpack.decode(codec.encode(message)))
    assert covers(again, golden["value"])


@pytest.mark.parametrize("name", sorted(subjects()))
def test_every_message_has_a_golden_encoding(name: str) -> None:
    assert path_of(name).name in GOLDEN, "run: PYTHONPATH=tests python tests/support/golden.py"


def test_golden_encodings_are_of_a_version_this_tree_speaks() -> None:
    assert {name.partition("-")[0] for name in GOLDEN} == {VERSION}


def test_tags_are_unique() -> None:
    tags = [tag_of(message) for message in message_types()]
    assert len(set(tags)) == len(tags)


@pytest.mark.parametrize("message", message_types())
def test_appended_fields_of_a_later_minor_are_ignored(message: type[msgspec.Struct]) -> None:
    value = sample(message)
    longer = [*msgspec.msgpack.decode(codec.encode(value)), "from the future", 7]
    decoder = msgspec.msgpack.Decoder(message)
    assert codec.decode(decoder, codec.encode(longer)) == value


@pytest.mark.parametrize("message", message_types())
def test_fields_an_earlier_minor_did_not_have_get_their_defaults(
    message: type[msgspec.Struct],
) -> None:
    config = msgspec.structs.fields(message)
    required = [field for field in config if field.required]
    assert list(config[: len(required)]) == required, "a field without default follows one with"
    full = msgspec.msgpack.decode(codec.encode(sample(message)))
    decoder = msgspec.msgpack.Decoder(message)
    shortened = codec.decode(decoder, codec.encode(full[: 1 + len(required)]))
    for field in config[len(required) :]:
        default = field.default
        if default is msgspec.NODEFAULT:
            default = field.default_factory()
        assert getattr(shortened, field.name) == default


def test_every_integer_has_bounds() -> None:

    for name, kind in subjects().items():
        assert not list(unbounded(inspect.type_info(kind))), name


def unbounded(info: inspect.Type) -> Iterator[inspect.Type]:
    match info:
        case inspect.IntType(ge=lowest, le=highest):
            if lowest is None or highest is None or lowest < -(2**63) or highest >= 2**63:
                yield info
        case inspect.ListType(item_type=item):
            yield from unbounded(item)
        case inspect.TupleType(item_types=items):
            for each in items:
                yield from unbounded(each)
        case inspect.DictType(key_type=key, value_type=value):
            yield from unbounded(key)
            yield from unbounded(value)
        case inspect.UnionType(types=types):
            for each in types:
                yield from unbounded(each)
        case inspect.StructType(fields=fields):
            for field in fields:
                yield from unbounded(field.type)
        case _:
            pass


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_no_value_beyond_its_bounds_is_encoded_by_chance(data: st.DataObject) -> None:
    union = data.draw(st.sampled_from(sorted(UNIONS)))
    message = data.draw(values(UNIONS[union]))
    decoder: Any = msgspec.msgpack.Decoder(UNIONS[union])
    assert codec.decode(decoder, codec.encode(message)) == message


def test_the_empty_lists_that_are_defaults_are_not_shared() -> None:
    # msgspec copies an empty list for each instance; a Struct that shared one would leak.
    assert messages.Declare(1).files is not messages.Declare(2).files
