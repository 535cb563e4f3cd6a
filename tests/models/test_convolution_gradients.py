"""Convolutions whose weights arrive at run time, and their gradients, as native code: PyTorch in float64 is the judge."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from diptych.compiled import Compiled
from diptych.ir import Graph, TensorType
from diptych.ops.build import Builder
from diptych.options import Options
from diptych.passes.gradient import gradient
from diptych.targets.numpy import interpret

torch = pytest.importorskip("torch", reason="PyTorch is the reference")

# n, channels, size, outputs, kernel, strides, pads, dilations, groups, bias
CASES: dict[str, tuple[Any, ...]] = {
    "whole blocks": (2, 16, (8, 8), 32, (3, 3), (1, 1), (1, 1), (1, 1), 1, True),
    "tails of blocks": (2, 20, (9, 7), 36, (3, 3), (1, 1), (1, 1), (1, 1), 1, True),
    "an odd number of panels": (1, 33, (6, 5), 48, (3, 3), (1, 1), (1, 1), (1, 1), 1, False),
    "plain images, stride 2": (2, 3, (9, 9), 8, (3, 3), (2, 2), (1, 1), (1, 1), 1, True),
    "a stem of 7 x 7": (2, 4, (12, 13), 6, (7, 7), (2, 2), (3, 3), (1, 1), 1, False),
    "1 x 1": (3, 32, (6, 6), 40, (1, 1), (1, 1), (0, 0), (1, 1), 1, True),
    "1 x 1, stride 2": (3, 32, (8, 8), 64, (1, 1), (2, 2), (0, 0), (1, 1), 1, False),
    "stride 2, rows left over": (2, 16, (8, 9), 16, (3, 3), (2, 2), (1, 1), (1, 1), 1, True),
    "a stride longer than the window": (1, 17, (9, 10), 20, (2, 2), (3, 3), (0, 0), (1, 1), 1, True),
    "uneven everything": (3, 17, (8, 9), 33, (3, 2), (2, 1), (1, 0), (1, 2), 1, True),
    "dilation": (1, 16, (9, 9), 16, (3, 3), (1, 1), (2, 2), (2, 2), 1, False),
    "padding wider than the window": (1, 16, (5, 5), 16, (1, 1), (1, 1), (2, 2), (1, 1), 1, False),
    "depthwise": (2, 32, (8, 8), 32, (3, 3), (1, 1), (1, 1), (1, 1), 32, True),
    "depthwise, stride 2, a tail": (2, 20, (9, 8), 20, (5, 5), (2, 2), (2, 2), (1, 1), 20, False),
    "depthwise, two outputs a channel": (1, 10, (6, 6), 20, (3, 3), (1, 1), (1, 1), (1, 1), 10, False),
    "groups of whole blocks": (2, 32, (6, 6), 64, (3, 3), (1, 1), (1, 1), (1, 1), 2, True),
    "groups of parts of blocks": (2, 24, (8, 8), 12, (3, 3), (2, 2), (1, 1), (1, 1), 4, True),
    "a sequence": (2, 20, (13,), 18, (4,), (3,), (2,), (1,), 1, True),
    "a depthwise sequence": (2, 18, (13,), 18, (3,), (1,), (1,), (1,), 18, True),
    "a volume": (1, 17, (4, 5, 6), 16, (2, 3, 3), (1, 2, 1), (1, 1, 1), (1, 1, 2), 1, False),
    "the Winograd way": (4, 40, (18, 17), 56, (3, 3), (1, 1), (1, 1), (1, 1), 1, True),
    "many pixels: several chunks of lines": (3, 16, (40, 37), 16, (3, 3), (1, 1), (1, 1), (1, 1), 1, False),
}


@cache
def network() -> Graph:
    """All cases side by side, each with a relu, and the gradients of everything."""
    g = Builder("convolutions")
    outputs = {}
    for i, (n, c, size, o, kernel, strides, pads, dilations, groups, bias) in enumerate(CASES.values()):
        operands = [g.input(f"x{i}", TensorType((n, c, *size))), g.input(f"w{i}", TensorType((o, c // groups, *kernel)))]
        operands += [g.input(f"b{i}", TensorType((o,)))] if bias else []
        y = g.ew("conv", *operands, strides=strides, pads=tuple((p, p) for p in pads), dilations=dilations, groups=groups)
        outputs[f"y{i}"] = g.relu(y)
    return gradient(g.finish(outputs), keep_outputs=True)


@cache
def inputs() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(5)
    return {n: rng.standard_normal(t.shape).astype(np.float32) for n, t in network().input_types().items()}


@cache
def expected() -> dict[str, np.ndarray[Any, Any]]:
    given, found = inputs(), {}
    for i, (*_, strides, pads, dilations, groups, bias) in enumerate(CASES.values()):
        names = [f"x{i}", f"w{i}", *([f"b{i}"] if bias else [])]
        xs = [torch.tensor(given[n], dtype=torch.float64, requires_grad=True) for n in names]
        conv = getattr(torch.nn.functional, f"conv{xs[0].dim() - 2}d")
        y = torch.relu(conv(*xs, *([] if bias else [None]), strides, pads, dilations, groups))
        y.backward(torch.tensor(given[f"d_y{i}"], dtype=torch.float64))
        found |= {f"y{i}": y.detach().numpy()} | {f"d_{n}": x.grad.numpy() for n, x in zip(names, xs, strict=True)}
    return found


@cache
def native(threads: int) -> tuple[dict[str, np.ndarray[Any, Any]], list[str]]:
    made = Compiled(network, lambda g: None, Options(threads=threads), None)
    results = made.call(*inputs().values())
    assert made.plan is not None
    return dict(zip(network().output_names, results, strict=True)), [k.kind for k in made.plan.kernels]


def close(found: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any], what: str) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=5e-5 * np.abs(wanted).max(), err_msg=what)


@pytest.mark.parametrize("case", CASES)
def test_native_gradients(case: str) -> None:
    i = list(CASES).index(case)
    for threads in (1, 2, 3):
        found = native(threads)[0]
        for name in expected():
            if name.removeprefix("d_")[1:] == str(i):
                close(found[name], expected()[name], f"{name} of {case} by {threads} threads")


def test_nothing_is_left_to_the_slow_kernels() -> None:
    kinds = native(2)[1]
    assert "weight_gradient" in kinds and "depthwise_gradient" in kinds and "naive_conv" not in kinds
    assert "winograd_weights" in kinds


def test_a_program_gives_the_same_bits_again() -> None:
    """Also when its arenas have been used before."""
    made = Compiled(network, lambda g: None, Options(threads=2), None)
    first = [a.copy() for a in made.call(*inputs().values())]
    for a, b in zip(first, made.call(*inputs().values()), strict=True):
        np.testing.assert_array_equal(a, b)


def test_second_order_gradients() -> None:
    """The gradient of the weight gradient goes through its decomposition."""
    g = Builder("small")
    x, w = g.input("x", TensorType((2, 3, 5, 4), "f64")), g.input("w", TensorType((4, 3, 3, 3), "f64"))
    y = g.ew("conv", x, w, strides=(2, 1), pads=((1, 1), (1, 0)), dilations=(1, 1), groups=1)
    once = gradient(g.finish({"y": g.ew("tanh", y)}), ["w"])
    graph = gradient(once, ["x", "w"])
    rng = np.random.default_rng(0)
    given = {n: rng.standard_normal(t.shape) for n, t in graph.input_types().items()}
    tx, tw, dy = (torch.tensor(given[n], requires_grad=True) for n in ("x", "w", "d_y"))
    padded = torch.nn.functional.pad(tx, (1, 0, 1, 1))
    (dw,) = torch.autograd.grad(torch.tanh(torch.nn.functional.conv2d(padded, tw, stride=(2, 1))), tw, dy, create_graph=True)
    wanted = torch.autograd.grad(dw, (tx, tw), torch.tensor(given["d_d_w"]))
    for found, want in zip(interpret(graph, given).values(), wanted, strict=True):
        np.testing.assert_allclose(found, want.numpy(), rtol=1e-9, atol=1e-9)


def test_what_does_not_fit_is_refused() -> None:
    from diptych.errors import TypeRuleError

    g = Builder("bad")
    x, dy = g.input("x", TensorType((2, 3, 5, 5))), g.input("dy", TensorType((2, 4, 4, 5)))
    with pytest.raises(TypeRuleError, match=r"gradient f32\[2,4,4,5\] does not fit image f32\[2,3,5,5\]"):
        g.ew("conv_weight_gradient", x, dy, kernel=(3, 3), strides=(1, 1), pads=((1, 1), (1, 1)), dilations=(1, 1))
