"""The specification's generated parts: every message with its fields, and the vectors of the proof.

Run as a program it writes them anew: PYTHONPATH=tests python tests/support/spec_table.py
"""

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect
from support import proof_vectors
from support.structs import UNIONS, message_types, tag_of

from wqueue.protocol.messages import FromManagerBatch, JobSpec, ToManagerBatch

SPEC = Path(__file__).parent.parent.parent / "protocol" / "SPEC.md"

LINE = 78
"""Hexadecimal digits on one line of a vector."""

_INTEGERS: dict[tuple[int | None, int | None], str] = {
    (0, 2**16 - 1): "u16",
    (0, 2**32 - 1): "u32",
    (0, 2**63 - 1): "u63",
    (-(2**31), 2**31 - 1): "i32",
    (-(2**63), 2**63 - 1): "i64",
    (0, 2**53): "u53",
}


def show_type(info: inspect.Type) -> str:
    """Write a type as the specification does."""
    match info:
        case inspect.IntType(ge=lowest, le=highest):
            return _INTEGERS.get((lowest, highest), f"{lowest}..{highest}")
        case inspect.FloatType(ge=lowest):
            return "float" if lowest is None else "float ≥ 0"
        case inspect.BoolType():
            return "bool"
        case inspect.StrType(max_length=most):
            return f"str ≤ {most}" if most else "str"
        case inspect.BytesType(min_length=least, max_length=most):
            if least is not None and least == most:
                return f"bin {most}"
            return f"bin ≤ {most}" if most else "bin"
        case inspect.ListType(item_type=item):
            return f"[{show_type(item)}]"
        case inspect.TupleType(item_types=items):
            return "(" + ", ".join(map(show_type, items)) + ")"
        case inspect.DictType(key_type=key, value_type=value):
            return f"{{{show_type(key)}: {show_type(value)}}}"
        case inspect.UnionType(types=types):
            some = [show_type(t) for t in types if not isinstance(t, inspect.NoneType)]
            return " or ".join([*some, "nil"])
        case inspect.StructType(cls=struct):
            return str(struct.__name__)
        case _:
            raise AssertionError(f"no words for {info}")


def _show_default(field: inspect.Field) -> str:
    if field.required:
        return ""
    value: Any = field.default
    if value is msgspec.NODEFAULT:
        value = field.default_factory()
    match value:
        case None:
            return "nil"
        case bool():
            return "true" if value else "false"
        case bytes():
            return "empty"
        case msgspec.Struct():
            return "defaults"
        case _:
            return json.dumps(value)


def _struct(kind: type[msgspec.Struct]) -> list[str]:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType), info
    name = kind.__name__ if info.tag is None else f'{kind.__name__}: `"{info.tag}"`'
    text = textwrap.dedent(f"    {kind.__doc__ or ''}").strip()
    lines = [f"##### {name}", "", *text.splitlines(), ""]
    if info.fields:
        lines += ["| field | type | default |", "|---|---|---|"]
    for field in info.fields:
        lines.append(f"| {field.name} | {show_type(field.type)} | {_show_default(field)} |")
    return [*lines, ""] if info.fields else lines


def _values() -> list[type[msgspec.Struct]]:
    """Give the Structs inside messages, each after those it is made of."""
    found: dict[type[msgspec.Struct], None] = {}

    def walk(info: inspect.Type) -> None:
        match info:
            case inspect.StructType(cls=struct, fields=fields, tag=tag):
                for field in fields:
                    walk(field.type)
                if tag is None:
                    found[struct] = None
            case inspect.ListType(item_type=item):
                walk(item)
            case inspect.TupleType(item_types=items):
                for each in items:
                    walk(each)
            case inspect.UnionType(types=types):
                for each in types:
                    walk(each)
            case _:
                pass

    for kind in [ToManagerBatch, FromManagerBatch, *message_types(), JobSpec]:
        walk(inspect.type_info(kind))
    return list(found)


def messages() -> str:
    """Write every message and value."""
    lines: list[str] = []
    shown: set[type[msgspec.Struct]] = set()
    for door, union in UNIONS.items():
        lines += [f"#### Door {door}", ""]
        known = [f'`"{tag_of(kind)}"`' for kind in union.__args__ if kind in shown]
        if known:
            lines += [f"Also {', '.join(known)}, as above.", ""]
        for kind in union.__args__:
            if kind not in shown:
                lines += _struct(kind)
                shown.add(kind)
    lines += ["#### Values inside messages", ""]
    for kind in _values():
        lines += _struct(kind)
    return "\n".join(lines).strip() + "\n"


def vectors() -> str:
    """Write the vectors of the proof."""
    lines = []
    for vector in json.loads(proof_vectors.FILE.read_text()):
        lines += [f"{vector.pop('name')}:".capitalize(), "", "```"]
        for key, value in vector.items():
            parts = [value[at : at + LINE] for at in range(0, len(value), LINE)] or ["(empty)"]
            lines.append(f"{key:<20}{parts[0]}")
            lines += [" " * 20 + part for part in parts[1:]]
        lines += ["```", ""]
    return "\n".join(lines).strip() + "\n"


PARTS = {"messages": messages, "vectors": vectors}
"""The generated parts, by the name between their markers."""


def fill_in(text: str) -> str:
    """Give the specification with its generated parts as they must be."""
    for name, make in PARTS.items():
        begin, end = f"<!-- {name}: generated -->\n", f"<!-- {name}: end -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        assert len(pattern.findall(text)) == 1, f"no place for the {name}"
        before, after = pattern.split(text)
        text = f"{before}{begin}\n{make()}\n{end}{after}"
    return text


if __name__ == "__main__":
    SPEC.write_text(fill_in(SPEC.read_text()))
