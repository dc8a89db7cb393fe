"""The house stands as ARCHITECTURE.md draws it: a module imports only from those above it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "slimwright"


def order() -> list[str]:
    """The modules and folders in the order of the drawing."""
    drawing = (ROOT / "ARCHITECTURE.md").read_text().split("src/slimwright/\n")[1].split("    tests/")[0]
    return [m[1] for line in drawing.splitlines() if (m := re.match(r" {6}(\w+)(?:/|\.py) ", line))]


def imports(path: Path) -> set[str]:
    """The top-level slimwright modules that a file imports when it is loaded or later."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("slimwright."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "slimwright":
            found.update(alias.name for alias in node.names)
    return found


def test_the_drawing_names_every_module() -> None:
    there = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert set(order()) == there - {"__init__", "__main__", "__pycache__", "py"}


def test_modules_import_only_from_above() -> None:
    rank = {name: place for place, name in enumerate(order())}
    for path in SOURCE.rglob("*.py"):
        home = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if home in rank:
            below = {name for name in imports(path) if rank[name] > rank[home]}
            assert not below, f"{path.relative_to(SOURCE)} imports {below}"


def test_nothing_unpickles() -> None:
    for path in SOURCE.rglob("*.py"):
        calls = {ast.unparse(n.func) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)}
        assert not calls & {"pickle.load", "pickle.loads", "torch.load", "eval", "exec", "torch.export.load"}, path


def imported_roots(path: Path) -> set[str]:
    """The first names of the modules that a file imports when it is loaded or later."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
    return found


def roots_of(folder: Path) -> set[str]:
    """What Python finds in a folder that is on its path."""
    return {path.relative_to(folder).parts[0].removesuffix(".py") for path in folder.rglob("*.py")}


def test_tests_and_benchmarks_import_nothing_from_each_other() -> None:
    tests, benchmarks = ROOT / "tests", ROOT / "benchmarks"
    assert "onnx_files" in roots_of(tests) and "lib" in roots_of(benchmarks)
    for folder, other in ((tests, benchmarks), (benchmarks, tests)):
        for path in folder.rglob("*.py"):
            assert not imported_roots(path) & roots_of(other), path


def test_a_benchmark_imports_no_other_benchmark() -> None:
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    for path in (ROOT / "benchmarks").rglob("*.py"):
        assert not imported_roots(path) & scripts, path
