"""Write docs/operators.md, the table of all operators, from the operators themselves.

Run `python scripts/operator_table.py`; with --check it writes nothing and fails if the page is out of date.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import MISSING, fields
from inspect import Parameter, signature
from pathlib import Path

from diptych.ir import Op, TensorType
from diptych.ops import OPS, Composite, Contraction, Elementwise, Loops, Movement, Reduction, Sample

PAGE = Path(__file__).resolve().parents[1] / "docs" / "operators.md"
KINDS: tuple[tuple[type[Op], str], ...] = (
    (Elementwise, "element by element; operands broadcast as in NumPy; fused into one loop with their neighbours"),
    (Reduction, "fold axes with an associative operation"),
    (Movement, "move elements without arithmetic; a view or a copy"),
    (Contraction, "products and sums, with crafted kernels"),
    (Loops, "other primitives, each with a kernel of its own"),
    (Composite, "defined by their decomposition into the above"),
)


def operands(op: type[Op]) -> str:
    """The names of the operands as the type rule has them; optional ones in brackets."""
    out = []
    for p in list(signature(op.infer).parameters.values())[1:]:
        name = f"{p.name}..." if p.kind is Parameter.VAR_POSITIONAL else p.name
        out.append(f"[{name}]" if p.default is not Parameter.empty else name)
    return ", ".join(out)


def attributes(op: type[Op]) -> str:
    """The attributes with their defaults."""
    out = []
    for f in fields(op):  # type: ignore[arg-type]
        out.append(f"`{f.name}`" if f.default is MISSING else f"`{f.name}={f.default!r}`")
    return ", ".join(out)


def _float_to_float(op: type[Op], sample: Sample) -> bool:
    types = [TensorType(a.shape, a.dtype) for a in sample.args]
    results = op(**sample.attrs).infer(*types)
    results = results if isinstance(results, tuple) else (results,)
    return all(any(t.dtype in ("f32", "f64") for t in ts) for ts in (types, results))


def gradient(op: type[Op]) -> str:
    """Whether, and how, gradients pass through."""
    if not any(_float_to_float(op, sample) for sample in op.samples):  # type: ignore[attr-defined]
        return ""
    if hasattr(op, "gradient"):
        return "yes"
    return "by decomposition" if hasattr(op, "decompose") else "no"


def page() -> str:
    """The whole page."""
    lines = [
        "# Operators",
        "",
        "Written by `scripts/operator_table.py` from the operator classes in `diptych/ops`; do not edit.",
        "Every one has a type rule, a NumPy reference and samples on which all of these are held against each other,",
        "against its decomposition and its gradient, and against every compiled target (`tests/ops/test_conformance.py`).",
    ]
    for kind, what in KINDS:
        found = sorted(n for n, op in OPS.items() if issubclass(op, kind))
        lines += ["", f"## {kind.__name__} ({len(found)})", "", f"{what[0].upper()}{what[1:]}.", ""]
        lines += ["| operator | operands | attributes | gradient | samples | |", "|---|---|---|---|---|---|"]
        for name in found:
            op = OPS[name]
            doc = (op.__doc__ or "").strip().splitlines()[0].replace("|", "\\|")
            samples = len(getattr(op, "samples", ()))
            lines.append(f"| `{op.__name__}` | {operands(op)} | {attributes(op)} | {gradient(op)} | {samples} | {doc} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="fail if the page is out of date")
    if parser.parse_args().check:
        if not PAGE.exists() or PAGE.read_text() != page():
            print(f"{PAGE} is out of date; run scripts/operator_table.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
