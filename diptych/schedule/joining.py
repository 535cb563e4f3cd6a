"""Two groups become one where the second alone reads what the first makes: the rule that pairs share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from diptych.ir import Graph, Node
    from diptych.schedule.groups import Group

__all__ = ["join"]


def join(graph: Graph, groups: list[Group], first: Callable[[Group], bool], second: Callable[[Node], bool],
         objection: Callable[[Graph, Group, Group, dict[int, list[Node]]], str], wanted: Callable[[Group, Group], bool],
         unwanted: str) -> list[Group]:  # fmt: skip
    """The groups without those that have become the `before` of another; each refusal has its reason.

    A group whose anchor passes `second` takes the one that makes its first operand, if that passes `first`, `objection` has
    nothing to say and `wanted`, which has the last word, agrees; `unwanted` is the reason where it does not.
    """
    by_result = {g.results[0]: g for g in groups if g.anchor is not None and first(g)}
    uses = graph.uses()
    joined: set[int] = set()
    for group in groups:
        before = by_result.get(group.anchor.inputs[0]) if group.anchor is not None and second(group.anchor) else None
        if before is None:
            continue
        why = objection(graph, before, group, uses)
        if not why and not wanted(before, group):
            why = unwanted
        if why:
            group.refused.append(f"not joined with {before.name}: {why}")
            continue
        group.before = before
        joined.add(id(before))
    return [g for g in groups if id(g) not in joined]
