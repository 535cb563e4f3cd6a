"""Damaged operator attributes: whatever a file says, the answer is a Graph or an error of ours that names the layer."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diptych.errors import DiptychError
from diptych.frontends.mxnet import load_source
from diptych.frontends.mxnet.symbol_json import read_symbol
from diptych.ir import TensorType, dtype_of

DATA = Path(__file__).resolve().parents[1] / "data"
SYMBOLS: dict[str, dict[str, Any]] = json.loads((DATA / "mxnet_ops.json").read_text())
VALUES = ("", "-1", "0", "1", "2", "7", "None", "True", "x", "()", "(0,)", "(1, 2, 3, 4, 5)", "(-9, 9)", "1e30", "nan", "-7.5")


@pytest.mark.parametrize("part", range(6))
def test_attributes_are_never_trusted(part: int) -> None:
    rng = np.random.RandomState(part)
    with np.load(DATA / "mxnet_ops.npz") as z:
        types = {k: TensorType(z[k].shape, dtype_of(z[k])) for k in z.files if "/in" in k}
    outcomes = {"graph": 0, "error": 0}
    for key in list(SYMBOLS)[part::6]:
        for _ in range(6):
            symbol = copy.deepcopy(SYMBOLS[key])
            node = symbol["nodes"][-1]
            names = sorted(node.get("attrs", {}))
            inputs = {f"x{i}": types[f"{key}/in{i}"] for i in range(9) if f"{key}/in{i}" in types}
            if names and rng.rand() < 0.7:
                name = names[rng.randint(len(names))]
                if rng.rand() < 0.2:
                    del node["attrs"][name]
                else:
                    node["attrs"][name] = VALUES[rng.randint(len(VALUES))]
            elif inputs:
                name = sorted(inputs)[rng.randint(len(inputs))]
                inputs[name] = TensorType(tuple(int(d) for d in rng.randint(0, 5, rng.randint(0, 5))), inputs[name].dtype)
            try:
                source = load_source(read_symbol(json.dumps(symbol)))
                source.graph({n: inputs[n] for n in source.input_names})
                outcomes["graph"] += 1
            except DiptychError as error:
                assert str(error)
                outcomes["error"] += 1
    assert min(outcomes.values()) > 30  # both happen, or the damage does not do what it should
