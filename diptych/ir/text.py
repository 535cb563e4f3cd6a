"""The text form of a Graph: one line per value source, exact enough to be read back.

    graph 'tiny'
    %0 = input 'x' : f32[1,3,224,224]
    %1 = const f32[64,3,7,7] sha256:9f86d081884c7d65  # conv0.weight
    %2 = const f32[] 0.1
    %3 = conv(%0, %1) {strides=(2, 2), pads=((3, 3), (3, 3)), dilations=(1, 1), groups=1} : f32[1,64,112,112]  # conv0 @ net.py:12
    %4 = mul(%3, %2) : f32[1,64,112,112]
    return 'y': %4

Scalars carry their value, larger constants a digest of their dtype, shape and bytes: the arrays travel apart.
Text is treated as hostile: sizes are bounded, nothing in it is executed, and whatever is wrong is a FormatError.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NoReturn

from diptych.errors import DiptychError, FormatError, GraphError
from diptych.ir.graph import Array, Graph, Node, Op
from diptych.ir.literal import attribute_text, digest, literal, scalar_text, scalar_value
from diptych.ir.types import TensorType, numpy_dtype
from diptych.ir.verify import verify

__all__ = ["parse_graph", "print_graph"]

MAX_TEXT = 1 << 26  # characters of a whole graph
MAX_LINE = 1 << 20
MAX_VALUES = 1 << 22
_MAX_ATTRIBUTES = 1 << 16
_MAX_RANK = 64

_PLAIN = re.compile(r"[A-Za-z0-9_.:/\[\]()<>,+*-]+")  # a name that needs no quotes after "#"


# -- printing -----------------------------------------------------------------------------------------------------
def print_graph(graph: Graph) -> str:
    """The graph as text; `parse_graph` reads it back. Values keep their numbers.

    >>> print(print_graph(Graph((TensorType((2, 3)),), (0,), (0,), (), {}, ("x",), ("y",))), end="")
    graph 'graph'
    %0 = input 'x' : f32[2,3]
    return 'y': %0
    """
    lines = [f"graph {graph.name!r}"]
    for v, name in zip(graph.inputs, graph.input_names, strict=True):
        lines.append(f"%{v} = input {name!r} : {graph.types[v]}")
    for v, array in sorted(graph.constants.items()):
        t = graph.types[v]
        value = scalar_text(array, t.dtype) if t.rank == 0 else f"sha256:{digest(array, t)}"
        lines.append(f"%{v} = const {t} {value}{_comment(graph.constant_names.get(v, ''), '')}")
    for node in graph.nodes:
        outs = ", ".join(f"%{v}" for v in node.outputs)
        ins = ", ".join(f"%{v}" for v in node.inputs)
        types = ", ".join(str(graph.types[v]) for v in node.outputs)
        lines.append(
            f"{outs} = {node.op.name}({ins}){_attributes_text(node.op)} : {types}{_comment(node.name, node.source)}"
        )
    outputs = ", ".join(f"{n!r}: %{v}" for n, v in zip(graph.output_names, graph.outputs, strict=True))
    lines.append(f"return {outputs}".rstrip())
    return "\n".join(lines) + "\n"


def _comment(name: str, source: str) -> str:
    def word(s: str) -> str:
        return s if _PLAIN.fullmatch(s) else repr(s)

    text = (f" {word(name)}" if name else "") + (f" @ {word(source)}" if source else "")
    return f"  #{text}" if text else ""


def _attributes_text(op: Op) -> str:
    items = [f"{f.name}={attribute_text(op, f.name, getattr(op, f.name))}" for f in fields(op)]  # type: ignore[arg-type]
    return f" {{{', '.join(items)}}}" if items else ""


# -- parsing ------------------------------------------------------------------------------------------------------
def parse_graph(text: str, constants: Mapping[int, Array] | None = None, *, ops: Mapping[str, type[Op]]) -> Graph:
    """Read what `print_graph` wrote. `constants` gives the arrays of the digests, by value number; `ops` the operators.

    Numbers that no line defines (values dropped as unused) get the type f32[]. The result is verified.
    """
    if len(text) > MAX_TEXT:
        raise FormatError(f"a graph of {len(text)} characters; at most {MAX_TEXT} are read")
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if len(lines) < 2:
        raise FormatError("a graph has at least the lines 'graph NAME' and 'return ...'")
    for number, content in enumerate(lines, 1):
        if len(content) > MAX_LINE:
            raise FormatError(f"line {number}: {len(content)} characters; at most {MAX_LINE} are read")
    reader = _Reader(constants or {}, ops)
    first = _Line(lines[0], 1)
    first.expect("graph ")
    name = first.string()
    first.end()
    for number, content in enumerate(lines[1:-1], 2):
        reader.line(_Line(content, number))
    return reader.finish(_Line(lines[-1], len(lines)), name)


class _Line:
    """A cursor on one line."""

    def __init__(self, text: str, number: int) -> None:
        self.text, self.number, self.at = text, number, 0

    def fail(self, why: str) -> NoReturn:
        raise FormatError(f"line {self.number}: {why}: {self.text[max(0, self.at - 20) : self.at + 60]!r}")

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def take(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        return self.match(pattern) or self.fail(f"{what} expected")

    def skip(self, literal: str) -> bool:
        if self.text.startswith(literal, self.at):
            self.at += len(literal)
            return True
        return False

    def expect(self, literal: str) -> None:
        if not self.skip(literal):
            self.fail(f"{literal!r} expected")

    def end(self) -> None:
        if self.at != len(self.text):
            self.fail("nothing more expected")

    def string(self) -> str:
        try:
            value = ast.literal_eval(self.take(_STRING, "a quoted string").group())
        except (ValueError, SyntaxError) as e:
            self.fail(f"not a string ({e})")
        return str(value)

    def value(self) -> int:
        v = int(self.take(_VALUE, "a value such as %7").group(1))
        if v >= MAX_VALUES:
            self.fail(f"value %{v} is past the limit of {MAX_VALUES}")
        return v

    def values(self) -> tuple[int, ...]:
        found = [self.value()]
        while self.skip(", "):
            found.append(self.value())
        return tuple(found)

    def type(self) -> TensorType:
        found = self.take(_TYPE, "a type such as f32[2,3]")
        extents = found.group(2).split(",") if found.group(2) else []
        if len(extents) > _MAX_RANK:
            self.fail(f"rank {len(extents)} is past the limit of {_MAX_RANK}")
        try:
            return TensorType(tuple(int(d) for d in extents), found.group(1))
        except DiptychError as e:
            self.fail(str(e))

    def comment(self) -> tuple[str, str]:
        """The layer name and source after "#", and the end of the line."""
        name = source = ""
        if self.skip("  #"):
            if not self.skip(" @ "):
                self.expect(" ")
                name = self._word()
                if self.skip(" @ "):
                    source = self._word()
            else:
                source = self._word()
        self.end()
        return name, source

    def _word(self) -> str:
        plain = self.match(_PLAIN)
        return plain.group() if plain else self.string()

    def attributes(self) -> dict[str, Any]:
        if not self.skip(" {"):
            return {}
        body = self.take(_BODY, "attributes").group()
        self.expect("}")
        if len(body) > _MAX_ATTRIBUTES:
            self.fail(f"{len(body)} characters of attributes; at most {_MAX_ATTRIBUTES} are read")
        try:
            call = ast.parse(f"f({body})", mode="eval").body
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
                raise ValueError("NAME=VALUE, ... expected")
            return {_keyword(k): literal(k.value) for k in call.keywords}
        except (ValueError, SyntaxError, RecursionError, MemoryError) as e:
            self.fail(f"bad attributes ({e})")


_STRING = re.compile(r"'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"")
_BODY = re.compile(r"(?:[^'\"{}]|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")*")
_VALUE = re.compile(r"%([0-9]{1,9})")
_TYPE = re.compile(r"([a-z][a-z0-9]{0,7})\[((?:[0-9]{1,18}(?:,[0-9]{1,18})*)?)\]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_SHA = re.compile(r"sha256:([0-9a-f]{16})")
_NUMBER = re.compile(r"[^ ]{1,60}")


def _keyword(k: ast.keyword) -> str:
    if k.arg is None:
        raise ValueError("** is not an attribute")
    return k.arg


class _Reader:
    """Collects what the lines define."""

    def __init__(self, arrays: Mapping[int, Array], ops: Mapping[str, type[Op]]) -> None:
        self.arrays, self.ops = arrays, ops
        self.types: dict[int, TensorType] = {}
        self.inputs: dict[str, int] = {}
        self.constants: dict[int, Array] = {}
        self.constant_names: dict[int, str] = {}
        self.nodes: list[Node] = []

    def define(self, line: _Line, v: int, t: TensorType) -> None:
        if v in self.types:
            line.fail(f"value %{v} is defined twice")
        self.types[v] = t

    def line(self, line: _Line) -> None:
        outs = line.values()
        line.expect(" = ")
        if len(outs) == 1 and line.skip("input "):
            name = line.string()
            line.expect(" : ")
            if name in self.inputs:
                line.fail(f"two inputs are named {name!r}")
            self.define(line, outs[0], line.type())
            line.end()
            self.inputs[name] = outs[0]
        elif len(outs) == 1 and line.skip("const "):
            self.constant(line, outs[0])
        else:
            self.node(line, outs)

    def constant(self, line: _Line, v: int) -> None:
        t = line.type()
        self.define(line, v, t)
        line.expect(" ")
        sha = line.match(_SHA)
        if sha is None:
            if t.rank:
                line.fail("sha256: and 16 hexadecimal digits expected, only scalars carry their value")
            self.constants[v] = _scalar(line, t.dtype)
        else:
            array = self.arrays.get(v)
            if array is None:
                line.fail(f"the array of constant %{v} is needed: pass it in `constants`")
            if tuple(array.shape) != t.shape or array.dtype != numpy_dtype(t.dtype):
                line.fail(f"the array given for %{v} is {array.dtype}{list(array.shape)}, not {t}")
            if digest(array, t) != sha.group(1):
                line.fail(f"the array given for %{v} is not the one that was printed (digest {digest(array, t)})")
            self.constants[v] = array
        name, source = line.comment()
        if source:
            line.fail("a constant has a name but no source")
        if name:
            self.constant_names[v] = name

    def node(self, line: _Line, outs: tuple[int, ...]) -> None:
        op_name = line.take(_NAME, "an operator").group()
        if op_name not in self.ops:
            line.fail(f"unknown operator {op_name!r}")
        line.expect("(")
        ins: tuple[int, ...] = ()
        if not line.skip(")"):
            ins = line.values()
            line.expect(")")
        attributes = line.attributes()
        line.expect(" : ")
        types = [line.type()]
        while line.skip(", "):
            types.append(line.type())
        if len(types) != len(outs):
            line.fail(f"{len(outs)} results have {len(types)} types")
        for v in ins:
            if v not in self.types:
                line.fail(f"operand %{v} is used before it is defined")
        for v, t in zip(outs, types, strict=True):
            self.define(line, v, t)
        name, source = line.comment()
        try:
            op = self.ops[op_name](**attributes)
            found = op.infer(*(self.types[v] for v in ins))
        except (
            Exception
        ) as e:  # attributes of hostile text may have any type: whatever a type rule does then is its fault
            line.fail(f"{op_name} does not take these operands and attributes ({e})")
        if found != (types[0] if len(types) == 1 else tuple(types)):
            line.fail(f"the type rule of {op_name} gives {found}")
        self.nodes.append(Node(op, ins, outs, name, source))

    def finish(self, line: _Line, name: str) -> Graph:
        """Read the line of the outputs and make the Graph."""
        line.expect("return")
        outputs: dict[str, int] = {}
        while line.skip(", " if outputs else " "):
            key = line.string()
            line.expect(": ")
            if key in outputs:
                line.fail(f"two outputs are named {key!r}")
            outputs[key] = line.value()
            if outputs[key] not in self.types:
                line.fail(f"output %{outputs[key]} is never defined")
        line.end()
        unused = TensorType(())
        graph = Graph(
            types=tuple(self.types.get(v, unused) for v in range(max(self.types, default=-1) + 1)),
            inputs=tuple(self.inputs.values()),
            outputs=tuple(outputs.values()),
            nodes=tuple(self.nodes),
            constants=self.constants,
            input_names=tuple(self.inputs),
            output_names=tuple(outputs),
            constant_names=self.constant_names,
            name=name,
        )
        try:
            return verify(graph)
        except GraphError as e:
            raise FormatError(f"the graph read is not valid: {e}") from None


def _scalar(line: _Line, dtype: str) -> Array:
    """The rank-0 array written by `scalar_text`."""
    word = line.take(_NUMBER, "a number").group()
    try:
        return scalar_value(word, dtype)
    except (ValueError, KeyError, OverflowError) as e:
        line.fail(f"{word!r} is not a {dtype} number ({e})")
