"""The house stands as ARCHITECTURE.md draws it: a module imports only from those above it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "slimwright"
MOST_LINES, MOST_ATTRIBUTES = 200, 10  # of a class
FACES = ("tasks", "zoo", "evidence", "train", "targets", "measure", "search", "report")  # entered through `__init__`
MEANINGS = {"argmax", "cross_entropy", "accuracy"}
MATHEMATICS = ("graph", "importers", "lowering", "coupling", "cost")  # there these are operators of a network


def order() -> list[str]:
    """The modules and folders in the order of the drawing."""
    drawing = (ROOT / "ARCHITECTURE.md").read_text().split("src/slimwright/\n")[1].split("    tests/")[0]
    return [m[1] for line in drawing.splitlines() if (m := re.match(r" {6}(\w+)(?:/|\.py) ", line))]


def imported(path: Path) -> Iterator[str]:
    """The slimwright modules that a file imports when it is loaded or later, dotted, below slimwright."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("slimwright."):
            yield node.module.removeprefix("slimwright.")
        elif isinstance(node, ast.ImportFrom) and node.module == "slimwright":
            yield from (alias.name for alias in node.names)


def test_the_drawing_names_every_module() -> None:
    there = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert set(order()) == there - {"__init__", "__main__", "__pycache__", "py"}


def test_modules_import_only_from_above() -> None:
    rank = {name: place for place, name in enumerate(order())}
    for path in SOURCE.rglob("*.py"):
        home = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if home in rank:
            below = {name for name in imported(path) if rank[name.split(".")[0]] > rank[home]}
            assert not below, f"{path.relative_to(SOURCE)} imports {below}"


def test_folders_with_a_face_are_entered_through_it() -> None:
    for path in SOURCE.rglob("*.py"):
        home = path.relative_to(SOURCE).parts[0]
        for name in imported(path):
            folder, _, inner = name.partition(".")
            assert folder == home or folder not in FACES or not inner, f"{path.relative_to(SOURCE)} imports {name}"


def test_nothing_unpickles() -> None:
    for path in SOURCE.rglob("*.py"):
        calls = {ast.unparse(n.func) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)}
        assert not calls & {"pickle.load", "pickle.loads", "torch.load", "eval", "exec", "torch.export.load"}, path


def test_nothing_outside_tasks_knows_what_an_output_means() -> None:
    for path in SOURCE.rglob("*.py"):
        place = path.relative_to(SOURCE)
        if place.parts[0] in ("tasks", *MATHEMATICS):
            continue
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            names |= {node.attr} if isinstance(node, ast.Attribute) else set()
            names |= {node.id} if isinstance(node, ast.Name) else set()
            names |= {node.arg} if isinstance(node, ast.arg | ast.keyword) and node.arg else set()
            names |= {node.name} if isinstance(node, ast.FunctionDef) else set()
        assert not names & MEANINGS, f"{place} names {names & MEANINGS}"


def test_classes_are_small() -> None:
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ClassDef):
                continue
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            stored = {
                n.attr
                for n in ast.walk(node)
                if isinstance(n, ast.Attribute)
                and isinstance(n.ctx, ast.Store)
                and isinstance(n.value, ast.Name)
                and n.value.id == "self"
            }
            where = f"{path.relative_to(SOURCE)}: {node.name}"
            assert lines <= MOST_LINES, f"{where} has {lines} lines"
            assert len(stored) <= MOST_ATTRIBUTES, f"{where} has {len(stored)} attributes"
