"""`diptych inspect`: what a model is made of, and what diptych makes of it."""

from __future__ import annotations

import argparse
from collections import Counter
from math import prod
from typing import TYPE_CHECKING, Any

from diptych.cli.common import add_json, add_model, add_tune, emit, named, open_source, specs_of, types_for
from diptych.compare.subject import InputSpec, random_inputs
from diptych.compare.table import table
from diptych.ir import Graph, Node
from diptych.ir.types import TensorType

if TYPE_CHECKING:
    from diptych.schedule.plan import Plan

__all__ = ["add", "flops", "run", "summary"]


def add(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    add_model(parser)
    parser.add_argument("--graph", action="store_true", help="print the whole graph")
    parser.add_argument("--plan", action="store_true", help="compile, run, and show for each step its kernel, why that one, its time and its share of the roofline")
    add_tune(parser)
    add_json(parser)


def _work(node: Node, types: tuple[TensorType, ...]) -> int:
    """Multiplications and additions of the operators that dominate; the others count as none."""
    inputs = [types[v] for v in node.inputs]
    out = types[node.outputs[0]]
    match node.op.name:
        case "conv":
            return 2 * out.size * prod(inputs[1].shape[1:])
        case "conv_transpose":
            return 2 * inputs[0].size * prod(inputs[1].shape[1:])
        case "mat_mul":
            depth = inputs[0].shape[-2 if getattr(node.op, "transpose_a", False) else -1]
            return 2 * out.size * depth
        case "attention":
            (b, h, s, d), t = inputs[0].shape, inputs[1].shape[2]
            return 2 * b * h * s * t * (d + inputs[2].shape[3])
        case "lstm" | "gru" | "rnn":
            return 2 * inputs[0].shape[0] * inputs[0].shape[1] * (inputs[1].size + inputs[2].size)
    return 0


def flops(graph: Graph) -> int:
    """Floating-point operations of one call in convolutions, matrix products, attention and recurrent layers."""
    return sum(_work(n, graph.types) for n in graph.nodes)


def summary(graph: Graph) -> dict[str, Any]:
    """A graph in figures."""
    counts = Counter(n.op.name for n in graph.nodes)
    work: Counter[str] = Counter()
    for n in graph.nodes:
        work[n.op.name] += _work(n, graph.types)
    return {
        "name": graph.name,
        "inputs": {k: str(t) for k, t in graph.input_types().items()},
        "outputs": {k: str(t) for k, t in graph.output_types().items()},
        "nodes": len(graph.nodes),
        "operators": {k: {"uses": c, "flops": work[k]} for k, c in counts.most_common()},
        "parameters": sum(int(a.size) for a in graph.constants.values()),
        "parameter_bytes": sum(int(a.nbytes) for a in graph.constants.values()),
        "flops": sum(work.values()),
    }


def _text(made: dict[str, Any]) -> str:
    lines = [f"{made['name']}"]
    lines += [f"  input   {k}: {t}" for k, t in made["inputs"].items()]
    lines += [f"  output  {k}: {t}" for k, t in made["outputs"].items()]
    lines.append(f"  {made['parameters']:,} parameters ({made['parameter_bytes'] / 1e6:.1f} MB)")
    lines.append(f"  {made['flops'] / 1e9:.3f} GFLOP a call")
    rows = [
        [name, str(v["uses"]), f"{v['flops'] / 1e9:.3f}" if v["flops"] else "-"]
        for name, v in made["operators"].items()
    ]
    return "\n".join(lines) + "\n\n" + table(["operator", "uses", "GFLOP"], rows)


def _memory(plan: Plan) -> dict[str, int]:
    """The bytes a plan needs: all of the arena, the scratch of its threads in it, and what lives at the same time."""
    return {
        "arena_bytes": plan.arena_bytes,
        "scratch_bytes": plan.arena_bytes - plan.scratch_offset,
        "alive_bytes": plan.alive_bytes,
        "weight_bytes": plan.constants.nbytes,
    }


def _memory_text(plan: Plan) -> str:
    return (
        f"arena {plan.arena_bytes / 1e6:.2f} MB: tensors {plan.scratch_offset / 1e6:.2f} MB, {plan.over_bound:.1%} over the "
        f"{plan.alive_bytes / 1e6:.2f} MB that live at the same time; scratch of the threads "
        f"{(plan.arena_bytes - plan.scratch_offset) / 1e6:.2f} MB; packed weights {plan.constants.nbytes / 1e6:.2f} MB"
    )


def run(args: argparse.Namespace) -> int:
    """Read the model and show it."""
    import diptych
    from diptych.calibrate import figures
    from diptych.cli.plan_text import plan_text
    from diptych.explain import as_json, explain

    model = named(args)
    assert model is not None  # add_model requires one
    compiled: Any = None
    if model.saved:
        compiled = diptych.open(model.saved, tune=args.tune)
        graph = compiled.graph
    else:
        specs = specs_of(args)
        source = open_source(model, specs)
        graph = source.graph(types_for(source, {s.name: s.type for s in specs}, symbolic=bool(model.symbol)))
    made = summary(graph)
    text = _text(made)
    if args.graph:
        made["graph"] = str(graph)
        text += "\n\n" + made["graph"]
    if args.plan:
        if compiled is None:
            compiled = diptych.compile(graph, tune=args.tune)
        f = figures(compiled.threads)
        specs = [InputSpec(name, t) for name, t in compiled.input_types.items()]
        reports = explain(compiled, *random_inputs(specs).values(), figures=f)
        plan = compiled.plan
        made["plan"] = {**as_json(reports, f), **_memory(plan)}
        text += f"\n\n{len(plan.steps)} steps, {len(plan.kernels)} distinct kernels\n{_memory_text(plan)}\n\n" + plan_text(reports, f)
    emit(args, made, text)
    return 0
