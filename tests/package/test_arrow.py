"""Imports point one way; frameworks are imported only where they are asked for; files stay short."""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "diptych"

# What each part of the package may import, at any level. `TYPE_CHECKING` imports do not run and do not count.
ARROW: dict[str, set[str]] = {
    "_version": set(),
    "errors": set(),
    "options": set(),
    "ir": {"errors"},
    "codegen": {"errors", "ir"},
    "ops": {"errors", "ir"},
    "targets": {"errors", "ir"},
    "frontends": {"errors", "ir", "ops", "options"},
    "passes": {"errors", "ir", "ops", "options"},
    "kernels": {"errors", "ir", "codegen"},
    "schedule": {"errors", "ir", "ops", "kernels", "options"},
    "runtime": {"errors", "ir"},
    "fingerprint": {"_version", "ir", "runtime"},
    "progress": set(),
    "compiler": {"_version", "fingerprint", "errors", "ir", "codegen", "kernels", "passes", "schedule", "options", "runtime"},
    "compiled": {"calibrate", "compiler", "errors", "fingerprint", "ir", "kernels", "knowledge", "options", "progress", "runtime", "targets", "tune"},
    "profile": {"errors", "ir", "codegen", "kernels", "compiler", "runtime", "targets"},
    "streams": {"codegen", "errors", "fingerprint", "ir", "kernels", "runtime", "targets"},
    "knowledge": {"fingerprint", "ir", "runtime", "targets"},
    "calibrate": {"codegen", "knowledge", "runtime", "targets"},
    "tune": {"calibrate", "compiler", "ir", "kernels", "profile"},
    "explain": {"calibrate", "errors", "ir", "profile"},
    "lengths": {"compiled", "errors", "fingerprint", "frontends", "ir", "passes"},
    "sampling": {"errors"},
    "generate": {"compiled", "errors", "fingerprint", "frontends", "ir", "options", "progress", "runtime", "sampling"},
    "artifact": {"errors", "fingerprint", "frontends", "ir", "ops", "runtime"},
    "model": {"artifact", "compiled", "errors", "fingerprint", "frontends", "ir", "lengths", "passes", "options", "progress", "runtime"},
    "api": {"artifact", "errors", "frontends", "ir", "lengths", "model", "options", "progress", "runtime"},
    "mxnet": {"_version", "compiled", "errors", "fingerprint", "frontends", "ir", "ops", "options", "passes", "profile", "progress", "runtime", "streams", "targets"},
    "__init__": {"_version", "api", "errors", "generate", "ir", "model"},
    "compare": {"__init__", "_version", "api", "errors", "frontends", "ir", "model", "profile"},
    "cli": {"__init__", "_version", "api", "calibrate", "compare", "errors", "explain", "frontends", "ir", "model", "passes", "profile", "runtime"},
}
# Packages beyond the standard library and NumPy that may be imported at module level, by path prefix.
EXTERNAL = {
    "codegen/object.py": {"llvmlite.ir", "llvmlite.binding"},
    "codegen/": {"llvmlite.ir"},
    "kernels/": {"llvmlite.ir"},
    "compare/workers/": {"torch", "mxnet", "onnxruntime", "openvino"},  # each runs in its engine's own process
    "compare/demo/network.py": {"torch"},
}


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    where = path.relative_to(PACKAGE).parts
    return where[0] if len(where) > 1 else path.stem


def imports(tree: ast.AST, at_module: bool = True) -> Iterator[tuple[str, bool, int]]:
    """Every module imported at run time: (dotted name, whether on import of the file, line)."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from imports(other, at_module)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, at_module, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", at_module, node.lineno
        else:
            inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from imports(node, at_module and not inside)


def target_part(name: str) -> str:
    """The part of the package that `diptych.x.y` belongs to; `from diptych import x` names x or the package itself."""
    first = name.split(".")[1]
    return first if (PACKAGE / first).is_dir() or (PACKAGE / f"{first}.py").exists() else "__init__"


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_arrow(path: Path) -> None:
    part = part_of(path)
    assert part in ARROW, f"{part} is new: say in ARROW (and in docs/DESIGN.md) what it may import"
    wrong = []
    for name, at_module, line in imports(ast.parse(path.read_text(encoding="utf-8"))):
        top = name.split(".")[0]
        if top == "diptych":
            target = "__init__" if name == "diptych" else target_part(name)
            if target != part and target not in ARROW[part]:
                wrong.append(f"{path}:{line}: {part} imports {target}")
        elif at_module and top not in sys.stdlib_module_names and top != "numpy":
            relative = path.relative_to(PACKAGE).as_posix()
            allowed = next((v for k, v in EXTERNAL.items() if relative.startswith(k)), set())
            if not any(name == a or name.startswith(a + ".") for a in allowed):
                wrong.append(f"{path}:{line}: imports {name} on import")
    assert wrong == []


def test_the_arrow_has_no_cycle() -> None:
    done: set[str] = set()
    while len(done) < len(ARROW):
        ready = {part for part, below in ARROW.items() if part not in done and below <= done}
        assert ready, f"a cycle among {sorted(set(ARROW) - done)}"
        done |= ready


def test_files_stay_short() -> None:
    long = {}
    for folder in ("diptych", "tests", "bench", "scripts", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            count = len(path.read_text(encoding="utf-8").splitlines())
            if count > 400:
                long[str(path.relative_to(ROOT))] = count
    assert {n: c for n, c in long.items() if c > 800} == {}, "split these by job"
    if long:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(f"over 400 lines, split them when you next change them: {long}", stacklevel=1)


def test_classes_stay_small() -> None:
    for path in files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                assert (node.end_lineno or 0) - node.lineno < 330, f"{path}: class {node.name}"
