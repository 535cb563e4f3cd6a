"""Bring the nodes of an older symbol file to the form of MXNet 1.9.1, rule by rule in MXNet's order.

The rules live on mutable drafts; `symbol_json` freezes the result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from diptych.errors import FormatError
from diptych.frontends.mxnet.symbol_schema import initializer, input_names

if TYPE_CHECKING:
    from diptych.frontends.mxnet.symbol_graph import SymbolGraph

__all__ = ["Draft", "upgrade", "walk"]

# Attributes that old front ends wrote without the underscores that set them apart from an operator's own.
_HIDDEN = ("ctx_group", "lr_mult", "wd_mult", "force_mirroring", "mirror_stage")


@dataclass(eq=False, slots=True)
class Draft:
    """A node while it is being read: inputs point at drafts."""

    op: str | None
    name: str
    attrs: dict[str, str]
    inputs: list[tuple[Draft, int]] = field(default_factory=list)
    control_deps: list[Draft] = field(default_factory=list)
    subgraphs: tuple[SymbolGraph, ...] = ()


def walk(heads: list[tuple[Draft, int]]) -> list[Draft]:
    """The nodes that lead to the heads, each after its inputs, in the order of MXNet's depth-first walk."""
    order: list[Draft] = []
    seen: set[int] = set()
    for head, _ in heads:
        if id(head) in seen:
            continue
        seen.add(id(head))
        stack = [(head, iter([d for d, _ in head.inputs] + head.control_deps))]
        while stack:
            node, children = stack[-1]
            for child in children:
                if id(child) not in seen:
                    seen.add(id(child))
                    stack.append((child, iter([d for d, _ in child.inputs] + child.control_deps)))
                    break
            else:
                order.append(node)
                stack.pop()
    return order


def upgrade(heads: list[tuple[Draft, int]], version: int) -> list[Draft]:
    """Apply every rule newer than `version`; the nodes in walk order come back."""
    for before, rule in _RULES:
        if version < before:
            for node in walk(heads):
                rule(node)
    return walk(heads)


def _input_names(node: Draft) -> tuple[str, ...] | None:
    if node.op is None:
        return None
    try:
        return input_names(node.op, node.attrs)
    except FormatError as error:
        raise FormatError(f"{node.op} (layer {node.name or '?'}): {error}") from None


def _hide_keys(node: Draft) -> None:
    """``lr_mult`` becomes ``__lr_mult__``; ``weight_lr_mult`` moves to the variable at the input named weight."""
    for key in list(node.attrs):
        for word in _HIDDEN:
            if key == word:
                node.attrs[f"__{word}__"] = node.attrs.pop(key)
                break
            if key.endswith("_" + word):
                names = _input_names(node)
                target = key[: -len(word) - 1]
                if names and target in names and names.index(target) < len(node.inputs):
                    variable = node.inputs[names.index(target)][0]
                    if variable.op is None:
                        variable.attrs[f"__{word}__"] = node.attrs.pop(key)
                break


def _add_missing_inputs(node: Draft) -> None:
    """Files before 0.9.0 leave out auxiliary states and, often, labels."""
    names = _input_names(node)
    for argument in names[len(node.inputs) :] if names else ():
        # MXNet gives such a variable a copy of the operator's attributes, its own included; nothing reads them.
        variable = Draft(None, f"{node.name}_{argument}" if node.name else argument, dict(node.attrs))
        node.inputs.append((variable, 0))


def _set_initializers(node: Draft) -> None:
    if node.op is None:
        return
    for position, (source, _) in enumerate(node.inputs):
        text = initializer(node.op, position)
        if text is not None and source.op is None:
            source.attrs.setdefault("__init__", text)


def _reduce_all(node: Draft) -> None:
    """Before 0.9.5 an axis of -1 asked argmax and argmin for all axes."""
    if node.op in ("argmax", "argmin") and node.attrs.get("axis") == "-1":
        del node.attrs["axis"]


_RULES = (
    (10901, _hide_keys),
    (900, _add_missing_inputs),
    (904, _set_initializers),
    (905, _reduce_all),
)
