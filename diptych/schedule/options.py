"""Options of a schedule that can be measured against each other: the default comes first, a tuning may take another."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from diptych.ops.base import attributes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from diptych.ir import Graph, Node
    from diptych.schedule.context import Context
    from diptych.schedule.groups import Group

__all__ = ["conv_key", "pick", "product_key"]

T = TypeVar("T")


def pick(ctx: Context, key: str, options: Mapping[str, T], values: Iterable[int]) -> T:
    """The option that the tuning names for `key`, else the first. The steps that make `values` are what it governs.

    Equal keys must stand for equal work. An option that the tuning names and that is not among `options` counts as
    unknown.
    """
    ctx.offered[key] = tuple(options)
    for v in values:
        keys = ctx.governed.setdefault(v, [])
        if key not in keys:
            keys.append(key)
    taken = ctx.tuning.option(key)
    return options[taken] if taken is not None and taken in options else next(iter(options.values()))


def conv_key(graph: Graph, node: Node, epilogue: Iterable[Node] = (), strict: bool = False) -> str:
    """A blocked convolution with its shapes and what is fused into it."""
    x, w, a = graph.types[node.inputs[0]].shape, graph.types[node.inputs[1]].shape, attributes(node.op)
    how = f"stride {_shape(a['strides'])} pad {_shape(lo for lo, _ in a['pads'])},{_shape(hi for _, hi in a['pads'])}"
    how += f" dilation {_shape(a['dilations'])} groups {a['groups']}{' plain' if a['plain_input'] else ''}"
    after = "".join(f"+{n.op.name}" for n in epilogue)
    return f"conv {_shape(x)} by {_shape(w)} {how}{after}{' strict' if strict else ''}"


def product_key(shape: Iterable[int], depth: int, group: Group | None, what: str = "product") -> str:
    """A matrix product: the result's shape, what is summed over, what is fused into it."""
    after = "".join(f"+{n.op.name}" for n in group.epilogue) if group is not None else ""
    return f"{what} {_shape(shape)} over {depth}{after}"


def _shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))
