"""Run many small operator cases under real MXNet 1.9.1 and keep their results: tests/data/mxnet_ops.{json,npz}.

    MXNET_SUBGRAPH_BACKEND=NONE OMP_NUM_THREADS=1 path/to/python-with-mxnet scripts/mxnet_goldens.py tests/data/mxnet_ops

Each case is one operator applied to small arrays. The JSON holds the symbol as MXNet writes it; the npz its inputs and
outputs. Cases run in forked children, because libmxnet crashes on some arguments.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
import zlib

import mxnet_cases_more  # noqa: F401  (fills CASES)
import numpy as np
from mxnet_cases import CASES

warnings.filterwarnings("ignore")
os.environ.setdefault("MXNET_ENGINE_TYPE", "NaiveEngine")

def creator(mx, op):
    for module in (mx.sym, mx.sym._internal, getattr(mx.sym, "contrib", None), mx.sym.op):
        if module is not None and hasattr(module, op):
            return getattr(module, op)
    for prefix, module in (("_contrib_", mx.sym.contrib), ("_linalg_", mx.sym.linalg), ("_np_", mx.sym.numpy)):
        if op.startswith(prefix) and hasattr(module, op[len(prefix) :]):
            return getattr(module, op[len(prefix) :])
    raise LookupError(op)


def run(index, path):
    import mxnet as mx

    op, inputs, aux, attrs = CASES[index]
    rng = np.random.RandomState(zlib.crc32(f"{index}{op}".encode()))
    arrays = [x.draw(rng) for x in inputs]
    names = [f"x{i}" for i in range(len(arrays))]
    variables = [mx.sym.Variable(n) for n in names]
    if op in ("add_n", "Concat", "stack", "UpSampling", "_rnn_param_concat"):
        attrs = {**attrs, "num_args": len(arrays)}
    if op.startswith("_np"):  # these have no functions in Python: write the symbol file by hand
        mx.util.set_np_shape(True)
        nodes = [{"op": "null", "name": n, "inputs": []} for n in names]
        nodes.append({"op": op, "name": "op", "attrs": {k: str(v) for k, v in attrs.items()},
                      "inputs": [[i, 0, 0] for i in range(len(names))]})  # fmt: skip
        symbol = mx.sym.load_json(json.dumps({
            "nodes": nodes, "arg_nodes": list(range(len(names))), "heads": [[len(names), 0, 0]],
            "attrs": {"mxnet_version": ["int", 10901], "is_np_shape": ["int", 1]},
        }))  # fmt: skip
    else:
        symbol = creator(mx, op)(*variables, name="op", **attrs)
    if op == "LeakyReLU" and attrs.get("act_type") == "rrelu":
        symbol = symbol[0]  # the other result is a mask that means nothing outside of training
    args = {n: mx.nd.array(a, dtype=a.dtype) for i, (n, a) in enumerate(zip(names, arrays)) if i not in aux}
    states = {n: mx.nd.array(a, dtype=a.dtype) for i, (n, a) in enumerate(zip(names, arrays)) if i in aux}
    args = {n: args[n] for n in symbol.list_arguments()}
    executor = symbol.bind(mx.cpu(), args=args, aux_states=states)
    results = [o.asnumpy() for o in executor.forward(is_train=False)]
    np.savez(path, **{f"in{i}": a for i, a in enumerate(arrays)}, **{f"out{i}": r for i, r in enumerate(results)})
    with open(path + ".json", "w") as f:
        compact = json.loads(symbol.tojson())
        compact.pop("node_row_ptr", None)
        json.dump(compact, f)


def main(stem, only=None):
    import tempfile

    arrays, symbols, failed = {}, {}, []
    import mxnet  # noqa: F401  (once, before forking)

    with tempfile.TemporaryDirectory() as folder:
        for index, (op, *_rest) in enumerate(CASES):
            if only and only not in op:
                continue
            path = os.path.join(folder, f"{index}.npz")
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                try:
                    run(index, path)
                    os._exit(0)
                except BaseException as error:
                    print(f"{op} {CASES[index][3]}: {str(error).splitlines()[-1][:200]}")
                    sys.stdout.flush()
                    os._exit(1)
            _, status = os.waitpid(child, 0)
            if status or not os.path.exists(path):
                failed.append((op, CASES[index][3]))
                continue
            key = f"{index:03d}_{op}"
            with np.load(path) as z:
                arrays.update({f"{key}/{n}": z[n] for n in z.files})
            with open(path + ".json") as f:
                symbols[key] = json.load(f)
    np.savez_compressed(stem + ".npz", **arrays)
    with open(stem + ".json", "w") as f:
        f.write("{\n" + ",\n".join(f'"{k}": {json.dumps(v, separators=(",", ":"))}' for k, v in symbols.items()) + "\n}\n")
    print(f"{len(symbols)} cases kept, {len(failed)} failed under MXNet: {failed}")


if __name__ == "__main__":
    main(*sys.argv[1:])
