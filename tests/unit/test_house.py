"""The law of the house, as far as a program can check it.

Standard library only, and nothing of the package is imported: the rules are read from the source,
so that a deferred import and one under TYPE_CHECKING count like any other.
"""

import ast
import graphlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

ROOMS = {
    "protocol": "wqueue.protocol",
    "manager": "wqueue.manager",
    "worker": "wqueue.worker",
    "client": "wqueue",
    "batch_scripts": "wqueue.batch_scripts",
    "cli": "wqueue.cli",
}

MAY_IMPORT = {
    "protocol": {"protocol"},
    "manager": {"manager", "protocol"},
    "worker": {"worker", "protocol"},
    "client": {"client", "protocol"},
    "batch_scripts": {"batch_scripts", "client", "protocol"},
    "cli": {"cli", "batch_scripts", "client", "manager", "worker", "protocol"},
}
"""protocol <- manager, worker, client <- batch_scripts <- cli."""

OPEN_TO_ALL = {"wqueue._version"}
"""One constant and no import: every room may say which version it is."""

MAY_BE_DEFERRED = {
    ("wqueue.cli.connection", "wqueue.client"): "--help and usage errors need no sockets",
    ("wqueue.cli.progress", "wqueue.cli.bar"): "rich costs 38 ms: only where something is drawn",
}
"""The imports of ours inside functions, and why."""

PURE_STANDARD_LIBRARY = {
    "abc",
    "bisect",
    "collections",
    "contextlib",
    "copy",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "hmac",
    "itertools",
    "math",
    "operator",
    "re",
    "shlex",
    "string",
    "struct",
    "types",
    "typing",
    "unicodedata",
}
"""Modules that compute and do nothing else: no clock, file, socket, thread or dice."""

IMPURE_PROTOCOL = {
    "wqueue.protocol.credentials",
    "wqueue.protocol.descriptors",
    "wqueue.protocol.dial",
    "wqueue.protocol.link",
    "wqueue.protocol.locate",
    "wqueue.protocol.poller",
}
"""The modules of protocol that read files or sockets; every other one is pure."""

PURE_PACKAGES = {
    "core": {"msgspec"},
    "protocol": {"msgspec", "nacl", "blake3"},
}
"""Other people's code that pure modules may use: structs, and for the proof its ciphers."""


@cache
def modules() -> dict[str, Path]:
    """Return every module of the package by its installed name."""
    found = {}
    for folder, package in ROOMS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def room_of(name: str) -> str:
    second = name.split(".")[1] if "." in name else ""
    return second if second in ROOMS and second != "client" else "client"


def imports_in(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield what is imported, wherever it stands: `from a import b` gives a.b if that is one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            assert node.module
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole if whole in modules() else node.module), node.lineno


@cache
def imports_of(name: str) -> tuple[tuple[str, int], ...]:
    return tuple(imports_in(tree_of(modules()[name])))


def is_ours(name: str) -> bool:
    return name.split(".")[0] == "wqueue"


def where(name: str, line: int = 0) -> str:
    return f"{modules()[name].relative_to(ROOT)}:{line}"


def tracked_files() -> list[Path]:
    """Return what git would publish, or without git everything outside hidden and made folders."""
    found = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
    )
    if found.returncode == 0:
        names = found.stdout.decode().split("\0")
        return [ROOT / name for name in names if name and (ROOT / name).is_file()]
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(ROOT).parts)
    ]


def lines_of_the_tree() -> Iterator[tuple[str, str]]:
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            yield f"{path.relative_to(ROOT)}:{number}", line


def test_there_is_a_tree_to_check() -> None:
    assert {room_of(name) for name in modules()} == set(ROOMS)


def test_imports_go_one_way_between_the_rooms() -> None:
    faults = [
        f"{where(name, line)} imports {target}"
        for name in modules()
        for target, line in imports_of(name)
        if is_ours(target) and target not in OPEN_TO_ALL
        if room_of(target) not in MAY_IMPORT[room_of(name)]
    ]
    assert not faults


def test_no_room_imports_the_bare_package() -> None:
    faults = [
        f"{where(name, line)} imports wqueue itself"
        for name in modules()
        for target, line in imports_of(name)
        if target == "wqueue" and room_of(name) not in ("cli", "batch_scripts")
    ]
    assert not faults


def test_what_we_import_of_ours_exists() -> None:
    faults = [
        f"{where(name, line)} imports {target}"
        for name in modules()
        for target, line in imports_of(name)
        if is_ours(target) and target not in modules()
    ]
    assert not faults


def test_no_module_is_in_a_circle() -> None:
    graph = {
        name: {target for target, _ in imports_of(name) if is_ours(target) and target != name}
        for name in modules()
    }
    graphlib.TopologicalSorter(graph).prepare()


def test_nothing_of_ours_is_imported_inside_a_function() -> None:
    faults = []
    for name, path in modules().items():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                faults += [
                    f"{where(name, line)} imports {target} in {node.name}()"
                    for target, line in imports_in(node)
                    if is_ours(target) and (name, target) not in MAY_BE_DEFERRED
                ]
    assert not faults


def may_a_pure_module_import(target: str, kind: str) -> bool:
    if is_ours(target):
        is_pure_protocol = room_of(target) == "protocol" and target not in IMPURE_PROTOCOL
        is_core = kind == "core" and ".core" in target
        return is_pure_protocol or is_core
    top = target.split(".")[0]
    return top in PURE_STANDARD_LIBRARY or top in PURE_PACKAGES[kind]


def test_the_cores_and_the_protocol_are_pure() -> None:
    faults = []
    for name in modules():
        if name.startswith(("wqueue.manager.core", "wqueue.worker.core")):
            kind = "core"
        elif room_of(name) == "protocol" and name not in IMPURE_PROTOCOL:
            kind = "protocol"
        else:
            continue
        faults += [
            f"{where(name, line)} imports {target}"
            for target, line in imports_of(name)
            if not may_a_pure_module_import(target, kind)
        ]
    assert not faults


def test_pure_modules_neither_open_files_nor_print() -> None:
    faults = [
        f"{where(name, node.lineno)} calls {node.func.id}()"
        for name, path in modules().items()
        if ".core" in name or (room_of(name) == "protocol" and name not in IMPURE_PROTOCOL)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id in ("open", "print", "input", "exec", "eval", "id", "hash")
    ]
    assert not faults


def test_protocol_manager_and_worker_never_unpickle() -> None:
    faults = [
        f"{where(name, line)} imports {target}"
        for name in modules()
        for target, line in imports_of(name)
        if room_of(name) in ("protocol", "manager", "worker")
        if target.split(".")[0] in ("pickle", "cloudpickle", "marshal", "shelve", "dill")
    ]
    assert not faults


def test_no_process_is_started_with_preexec_fn() -> None:
    faults = [
        f"{where(name, node.lineno)}"
        for name, path in modules().items()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.keyword) and node.arg == "preexec_fn"
    ]
    assert not faults


def test_every_module_opens_with_a_sentence() -> None:
    faults = []
    for name, path in modules().items():
        first = (ast.get_docstring(tree_of(path)) or "").split("\n\n")[0]
        if not first.endswith((".", ":", "?")):
            faults.append(f"{where(name)} opens with {first!r}")
    assert not faults


def test_public_things_say_what_they_are_in_a_sentence() -> None:
    faults = []
    for name, path in modules().items():
        for node in public_things(tree_of(path)):
            first = (ast.get_docstring(node) or "").split("\n\n")[0]
            if not first.endswith((".", ":", "?")):
                faults.append(f"{where(name, node.lineno)} {node.name}: {first!r}")
    assert not faults


def public_things(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Yield public functions and classes, and the public methods of public classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                        yield inner


def test_no_module_of_the_client_hides_a_room() -> None:
    taken = {path.stem for path in (ROOT / "client").iterdir()} & (set(ROOMS) - {"client"})
    assert not taken


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    own_folder_is_never_on_the_path = {"wqueue.protocol", "wqueue.manager.core"}
    faults = [
        where(name)
        for name in modules()
        if name.rsplit(".", 1)[-1] in sys.stdlib_module_names
        if name not in own_folder_is_never_on_the_path
    ]
    assert not faults


def test_every_folder_with_modules_is_a_package() -> None:
    faults = {
        str(path.parent.relative_to(ROOT))
        for path in modules().values()
        if not (path.parent / "__init__.py").exists()
    }
    assert not faults


def test_no_folder_was_imported_by_its_bare_name() -> None:
    folders = [ROOT / room for room in ROOMS]
    faults = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        is_inside = file and any(Path(file).is_relative_to(folder) for folder in folders)
        if is_inside and not is_ours(name):
            faults.append(name)
    assert not faults


def test_every_entry_point_exists() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    points = re.findall(r'^(wq-[a-z-]+) = "([\w.]+):(\w+)"$', project, re.MULTILINE)
    assert points
    faults = []
    for tool, module, function in points:
        path = modules().get(module)
        names = (
            {node.name for node in tree_of(path).body if isinstance(node, ast.FunctionDef)}
            if path
            else set()
        )
        if function not in names:
            faults.append(f"{tool} = {module}:{function}")
    assert not faults


def test_the_import_contracts_name_every_module_of_the_client() -> None:
    contracts = (ROOT / ".importlinter").read_text()
    for contract in ("nobody-below-imports-the-client", "the-client-imports-only-protocol"):
        text = contracts.partition(f"[importlinter:contract:{contract}]")[2].partition("\n[")[0]
        named = set(re.findall(r"^    (wqueue[\w.]*)$", text, re.MULTILINE))
        ours = {name for name in modules() if room_of(name) == "client"} - {"wqueue"} - OPEN_TO_ALL
        assert ours <= named


def test_there_is_no_promise_without_a_number() -> None:
    promise = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b(?!\(?#\d)")
    faults = [place for place, line in lines_of_the_tree() if promise.search(line)]
    assert not faults


def test_no_blanket_waiver() -> None:
    waiver = re.compile(r"#\s*(noqa(?!: ?[A-Z])|type: ignore(?!\[)|pragma: no cover)")
    faults = [place for place, line in lines_of_the_tree() if waiver.search(line)]
    assert not [place for place in faults if not place.startswith("tests/unit/test_house.py")]


def test_the_tree_names_no_machine() -> None:
    """Neither the folder it lies in, nor a home, nor where packages come from."""
    usual = {Path("/"), Path("/home"), Path("/tmp"), Path("/usr"), Path(tempfile.gettempdir())}
    folders = {ROOT, ROOT.parent, Path.home()} - usual
    paths = "|".join(re.escape(str(folder)) for folder in sorted(folders))
    machine = re.compile(
        rf"(?<![\w.])({paths})(/|\b)|index"
        + r"-url|find"
        + r"-links|//[\w.-]*(pypi|artifactory|nexus)"
    )
    faults = [f"{place}: {line}" for place, line in lines_of_the_tree() if machine.search(line)]
    assert not faults


def test_the_git_ignore_list_covers_what_chores_make() -> None:
    ignored = (ROOT / ".gitignore").read_text().split()
    assert {"__pycache__/", "*.egg-info/", ".types/", ".venv*/", "build/", "dist/"} <= set(ignored)
