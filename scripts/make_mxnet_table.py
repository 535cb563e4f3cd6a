"""Make `diptych/mxnet/ops/table.tsv`, the signatures of MXNet's operators, from a dump of libmxnet's registry.

usage: python scripts/make_mxnet_table.py mxnet_op_schema.json > diptych/mxnet/ops/table.tsv

The dump is {"ops": {name: {"args": [[argument, type string], ...], "key_var_num_args": name}}}, what
`MXSymbolGetAtomicSymbolInfo` tells of every operator of MXNet 1.9.1.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

_KINDS = (
    ("boolean", "bool"), ("float", "real"), ("double", "real"), ("real_t", "real"), ("int", "int"), ("long", "int"),
    ("Shape", "shape"), ("tuple of <float>", "reals"), ("tuple of <double>", "reals"), ("tuple of <long>", "shape"),
    ("tuple", "text"), ("string", "text"), ("ptr", "text"),
)  # fmt: skip


def attribute(name: str, text: str) -> str:
    """`name:kind[?][=default]`: `?` where None is a value, no default where it is required."""
    if text.startswith("{"):
        choices = re.findall(r"'([^']*)'", text[: text.index("}")])
        none = "?" if "None" in text[: text.index("}")] else ""
        kind = "{" + "|".join(c for c in choices if c != "None") + "}" + none
    else:
        kind = next((k for prefix, k in _KINDS if text.startswith(prefix)), "text")
        kind += "?" if " or None" in text else ""
    found = re.search(r"default=(.*)$", text)
    if found is None:
        return f"{name}:{kind}"
    return f"{name}:{kind}=" + found.group(1).strip("'").replace(" ", "")


# What the dump does not tell: these parse more than they describe.
_MORE: dict[str, str] = {f"_linalg_{n}": "lower:bool=1" for n in ("potrf", "potri")}
_REPLACED: dict[tuple[str, str], str] = {("smooth_l1", "scalar"): "scalar:real=1"}
_ARRAYS = {"_contrib_PSROIPooling", "_contrib_DeformablePSROIPooling"}  # whose inputs it calls symbols


def line(name: str, schema: dict[str, object]) -> str:
    inputs, attributes = [], []
    arguments = schema["args"]
    assert isinstance(arguments, list)
    for argument, text in arguments:
        if text.startswith(("NDArray", "Symbol")) or text == "":
            inputs.append(argument + ("*" if "[]" in text else "") + ("!" if text.startswith("Symbol") and name not in _ARRAYS else ""))
        else:
            attributes.append(_REPLACED.get((name, argument)) or attribute(argument, text))
    if name in _MORE:
        attributes.append(_MORE[name])
    return "\t".join([name, " ".join(inputs), str(schema["key_var_num_args"]), " ".join(attributes)])


def main() -> None:
    ops = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["ops"]
    for name in sorted(ops):
        if not name.startswith("_backward") and not name.endswith("_backward"):
            print(line(name, ops[name]))


if __name__ == "__main__":
    main()
