"""Values for any Struct by its annotations: one fixed sample, or hypothesis' choice."""

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from wqueue.protocol import messages

UNIONS = {
    "task, worker to manager": messages.TaskToManager,
    "task, manager to worker": messages.TaskFromManager,
    "result, worker to manager": messages.ResultToManager,
    "result, manager to worker": messages.ResultFromManager,
    "client, client to manager": messages.ClientToManager,
    "client, manager to client": messages.ClientFromManager,
    "announce, manager to all": messages.Announcement,
}
"""The doors and directions, in the order of the specification."""


def message_types() -> list[type[msgspec.Struct]]:
    """Give every message once, in the order of the unions."""
    found: dict[type[msgspec.Struct], None] = {}
    for union in UNIONS.values():
        found.update(dict.fromkeys(union.__args__))
    return list(found)


def tag_of(message: type[msgspec.Struct]) -> str:
    """Give the tag with which a message begins on the wire."""
    return str(message.__struct_config__.tag)


def sample(kind: Any) -> Any:
    """Make a value of a Struct in which no field has its default."""
    return _sample(inspect.type_info(kind), 1)


def _sample(info: inspect.Type, seed: int) -> Any:
    match info:
        case inspect.IntType(ge=lowest):
            return max(lowest or 0, seed + 1)
        case inspect.FloatType():
            return seed + 0.5
        case inspect.BoolType():
            return True
        case inspect.StrType():
            return f"text {seed}"
        case inspect.BytesType(min_length=length):
            return bytes(range(seed, seed + (length or 3)))
        case inspect.ListType(item_type=item):
            return [_sample(item, seed + 1)]
        case inspect.TupleType(item_types=items):
            return tuple(_sample(item, seed + at) for at, item in enumerate(items))
        case inspect.DictType(key_type=key, value_type=value):
            return {_sample(key, seed): _sample(value, seed + 1)}
        case inspect.UnionType(types=types):
            return _sample(next(t for t in types if not isinstance(t, inspect.NoneType)), seed)
        case inspect.StructType(cls=struct, fields=fields):
            values = {f.name: _sample(f.type, seed + at) for at, f in enumerate(fields)}
            return struct(**values)
        case _:
            raise AssertionError(f"no sample of {info}")


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Make a strategy for any value of a type."""
    return _values(inspect.type_info(kind))


def _values(info: inspect.Type) -> st.SearchStrategy[Any]:
    match info:
        case inspect.IntType(ge=lowest, le=highest):
            return st.integers(lowest, highest)
        case inspect.FloatType(ge=lowest, le=highest):
            return st.floats(lowest, highest, allow_nan=False)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.StrType(max_length=length):
            return st.text(max_size=min(length or 20, 20))
        case inspect.BytesType(min_length=least, max_length=most):
            return st.binary(min_size=least or 0, max_size=min(most or 40, 40))
        case inspect.ListType(item_type=item):
            return st.lists(_values(item), max_size=3)
        case inspect.TupleType(item_types=items):
            return st.tuples(*map(_values, items))
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(_values(key), _values(value), max_size=3)
        case inspect.UnionType(types=types):
            return st.one_of(*map(_values, types))
        case inspect.StructType(cls=struct, fields=fields):
            return st.builds(struct, **{f.name: _values(f.type) for f in fields})
        case _:
            raise AssertionError(f"no values of {info}")
