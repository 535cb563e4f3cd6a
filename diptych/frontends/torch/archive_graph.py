"""Checks the JSON graph of a .pt2 file before torch turns its strings into functions, expressions and types.

torch resolves a node's target by attribute look-up from the torch module and calls it while tracing, parses symbolic
extents with a parser that evaluates Python, and imports the modules that container types name. Each of these could
run code of the file's author, so only plain operators, arithmetic on symbols and built-in containers are let through.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from diptych.errors import FormatError

__all__ = ["check_expression", "check_graph"]

_NAMESPACES = ("aten", "prims", "higher_order", "torchvision")
_TARGET = re.compile(rf"torch\.ops\.({'|'.join(_NAMESPACES)})\.[A-Za-z_]\w*(\.[A-Za-z_]\w*)?")
_SYMBOLIC = re.compile(r"torch\.(sym_\w+|_sym_\w+|_check\w*)|torch\.fx\.experimental\.symbolic_shapes\.\w+")
_ARITHMETIC = re.compile(r"math\.(ceil|floor|trunc|sqrt|pow|log2)|_operator\.("
                         "getitem|add|sub|mul|truediv|floordiv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_|xor|abs)")  # fmt: skip
_FUNCTIONS = frozenset((
    "Symbol", "Integer", "Rational", "Float", "Add", "Mul", "Pow", "Max", "Min", "Mod", "PythonMod", "FloorDiv",
    "CleanDiv", "CeilDiv", "CeilToInt", "FloorToInt", "IntTrueDiv", "FloatTrueDiv", "ModularIndexing", "TruncToInt",
    "TruncToFloat", "RoundToInt", "RoundDecimal", "ToFloat", "PowByNatural", "FloatPow", "Identity", "Where", "Abs",
    "Equality", "Unequality", "StrictGreaterThan", "GreaterThan", "StrictLessThan", "LessThan", "Eq", "Ne", "Lt", "Le",
    "Gt", "Ge", "And", "Or", "Not", "floor", "ceiling",
))  # fmt: skip
_NAMES = _FUNCTIONS | {"true", "false", "oo", "int_oo", "zoo", "nan"}
_NODES = (
    ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.UnaryOp, ast.USub, ast.UAdd, ast.Not,
    ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Compare, ast.Eq, ast.NotEq, ast.Lt,
    ast.LtE, ast.Gt, ast.GtE, ast.BitAnd, ast.BitOr, ast.Invert, ast.Tuple,
)  # fmt: skip


def check_graph(path: str, text: bytes) -> None:
    """Raise FormatError unless models/*.json holds nothing but operators, symbol arithmetic and plain containers."""
    try:
        tree = json.loads(text)
        if not isinstance(tree, dict) or "graph_module" not in tree:
            raise FormatError(f"{path}: models/model.json does not hold an exported program")
        _walk(path, tree)
    except RecursionError:
        raise FormatError(f"{path}: models/model.json is nested too deeply") from None
    except FormatError:
        raise
    except (ValueError, TypeError, KeyError, SyntaxError, MemoryError) as e:
        raise FormatError(f"{path}: models/model.json cannot be read: {e}") from e


def _walk(path: str, tree: Any) -> None:
    todo = [tree]
    while todo:
        item = todo.pop()
        if isinstance(item, list):
            todo.extend(item)
        elif isinstance(item, dict):
            for key, value in item.items():
                if (
                    key in ("target", "as_operator")
                    and isinstance(value, str)
                    and ("inputs" in item or key != "target")
                ):
                    _check_target(path, value)
                elif key == "expr_str":
                    check_expression(path, value)
                elif key in ("in_spec", "out_spec") and isinstance(value, str) and value:
                    _check_containers(path, json.loads(value))
                else:
                    todo.append(value)


def _check_target(path: str, target: str) -> None:
    if _ARITHMETIC.fullmatch(target) or _SYMBOLIC.fullmatch(target):
        return
    if not _TARGET.fullmatch(target) or re.search(r"\.__(?!(and|or|xor|lshift|rshift|iand|ior)__)", target):
        raise FormatError(
            f"{path}: a node calls {target[:80]!r}, which is not an operator of {', '.join(_NAMESPACES)}; from an"
            " untrusted file this could run code. Build the model from its source to use operators of your own"
        )


def check_expression(path: str, text: Any) -> None:
    """A symbolic extent must be arithmetic on symbols and numbers of a reasonable size."""
    if not isinstance(text, str) or len(text) > 20_000:
        raise FormatError(f"{path}: a symbolic extent is not an expression of a reasonable length")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise FormatError(f"{path}: the symbolic extent {text[:80]!r} is not an expression") from None
    for node in ast.walk(tree):
        bad = not isinstance(node, _NODES)
        if isinstance(node, ast.Name):
            bad = node.id not in _NAMES and not re.fullmatch(r"[a-z]{1,3}\d+", node.id)
        elif isinstance(node, ast.Constant):
            value = node.value
            bad = not (
                isinstance(value, (bool, float))
                or (isinstance(value, int) and abs(value) < 1 << 63)
                or (isinstance(value, str) and re.fullmatch(r"[A-Za-z]{1,8}\d{0,9}|-?\d[\d.e+-]{0,40}", value))
            )
        elif isinstance(node, ast.Call):
            function = node.func.id if isinstance(node.func, ast.Name) else ""
            bad = function not in _FUNCTIONS
            if function in ("Pow", "PowByNatural", "FloatPow"):
                bad = bad or len(node.args) != 2 or not _small(node.args[1])
        if bad:
            raise FormatError(f"{path}: the symbolic extent {text[:80]!r} is more than arithmetic on symbols")


def _small(node: ast.expr) -> bool:
    """True for an exponent that cannot blow up: a number of at most 16, plain or as Integer(n)."""
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    if isinstance(node, ast.Call) and len(node.args) == 1:
        node = node.args[0]
    return isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and abs(node.value) <= 16


def _check_containers(path: str, tree: Any) -> None:
    """Container specs must not name modules for torch to import."""
    todo = [tree]
    while todo:
        item = todo.pop()
        if isinstance(item, list):
            todo.extend(item)
        elif isinstance(item, str) and item[:1] in "[{":
            try:
                todo.append(json.loads(item))
            except ValueError:
                continue  # a string that only looks like JSON
        elif isinstance(item, dict):
            module = item.get("default_factory_module", "builtins")
            if "__enum__" in item or module not in ("builtins", "collections"):
                raise FormatError(f"{path}: the layout of inputs or results names code to import ({str(item)[:80]})")
            todo.extend(item.values())
