"""TorchSource: names, structures, shapes, weights, dynamic extents, and what is refused."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from diptych.errors import InputError, UnsupportedError  # noqa: E402
from diptych.frontends.torch import source  # noqa: E402
from diptych.ir import TensorType  # noqa: E402
from diptych.targets.numpy import interpret  # noqa: E402

nn = torch.nn


class Nested(nn.Module):
    def forward(self, x: Any, pair: Any, extra: Any = None, scale: float = 1.0) -> Any:
        y = x + pair["a"] * scale
        return {"sum": y, "list": [pair["b"][0], None, 7], "extra": y if extra is None else y * extra}


def test_nested_inputs_and_outputs_keep_their_structure(check: Any) -> None:
    inputs = {"x": torch.randn(2), "pair": {"a": torch.randn(2), "b": (torch.randn(3), torch.randn(1))}, "scale": 2.0}
    src = check(Nested(), inputs)
    assert src.input_names == ("x", "pair.a", "pair.b.0", "pair.b.1")
    assert src.graph().output_names == ("sum", "list.0", "extra")
    x, pair = inputs["x"], inputs["pair"]
    assert len(src.flatten_inputs((x, pair), {"scale": 2.0})) == 4  # the same call, spelled another way
    with pytest.raises(InputError, match=r"compiled as the constant 2\.0"):
        src.flatten_inputs((x, pair), {"scale": 3.0})
    with pytest.raises(InputError, match="laid out"):
        src.flatten_inputs((x, [pair]), {"scale": 2.0})
    with pytest.raises(InputError, match="missing a required argument"):
        src.flatten_inputs((x,), {})


Point = namedtuple("Point", ["left", "right"])


def test_named_tuples_and_positional_lists(check: Any) -> None:
    class M(nn.Module):
        def forward(self, xs: Any, *more: Any) -> Any:
            return Point(xs[0] + more[0], xs[1] - more[1])

    src = check(M(), ([torch.randn(2), torch.randn(2)], torch.randn(2), torch.randn(2)))
    assert src.input_names == ("xs.0", "xs.1", "more.0", "more.1")


def test_examples_may_be_descriptions() -> None:
    model = nn.Linear(3, 2)
    wanted = {"input": TensorType((4, 3), "f32")}
    for example in (((4, 3), "float32"), ((4, 3), torch.float32), TensorType((4, 3)), np.zeros((4, 3), np.float32)):
        assert source(model, (example,)).default_types() == wanted
        assert source(model, {"input": example}).default_types() == wanted
    for example in ((4, 3), [(4, 3)], {"input": (4, 3)}):  # plain shapes
        assert source(model, example).default_types() == wanted
    assert source(model).default_types() is None
    assert source(model).graph(wanted).input_types() == wanted


def test_another_shape_is_another_graph() -> None:
    src = source(nn.Sequential(nn.Flatten(), nn.Linear(6, 2)), (torch.zeros(1, 2, 3),))
    for batch in (1, 2, 5):
        graph = src.graph({"input": TensorType((batch, 2, 3))})
        assert graph.output_types()["output"].shape == (batch, 2)
    with pytest.raises(InputError, match="types are given for"):
        src.graph({"x": TensorType((1, 2, 3))})


def test_one_export_serves_every_batch() -> None:
    class Pool(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.reshape(x.shape[0], -1).mean(1, keepdim=True) * x.shape[0]

    src = source(Pool(), (torch.randn(1, 3, 4),), dynamic="batch")
    for batch in (1, 2, 7):
        x = np.random.default_rng(batch).normal(size=(batch, 3, 4)).astype(np.float32)
        got = interpret(src.graph({"x": TensorType(x.shape)}), {"x": x})["output"]
        np.testing.assert_allclose(got, x.reshape(batch, -1).mean(1, keepdims=True) * batch, rtol=1e-5)
    assert len(src._programs) == 1


def test_tied_weights_are_one_constant(check: Any) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(11, 4)
            self.out = nn.Linear(4, 11, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, ids: Any) -> Any:
            return self.out(self.embed(ids))

    graph = check(Tied(), (torch.randint(0, 11, (2, 3)),)).graph()
    assert len([a for a in graph.constants.values() if a.shape == (11, 4)]) == 1
    assert list(graph.constant_names.values()) == ["embed.weight"]


def test_weights_are_copied() -> None:
    model = nn.Linear(2, 2)
    graph = source(model, (torch.zeros(1, 2),)).graph()
    before = {k: v.copy() for k, v in graph.constants.items()}
    with torch.no_grad():
        model.weight.add_(1.0)
    for k, v in graph.constants.items():
        np.testing.assert_array_equal(v, before[k])


def test_training_flags_are_left_alone(check: Any) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.BatchNorm1d(2))
    model.train()
    model[2].eval()
    graph = source(model, (torch.zeros(3, 2),)).graph()
    assert [m.training for m in model.modules()] == [True, True, True, False]
    assert "batch_norm" in {n.op.name for n in graph.nodes}


def test_nodes_know_their_layer_and_line() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = nn.Linear(2, 2)

        def forward(self, x: Any) -> Any:
            return torch.tanh(self.proj(x))

    graph = source(nn.Sequential(Block(), Block()), (torch.zeros(1, 2),)).graph()
    by_op = {n.op.name: n for n in graph.nodes}
    assert by_op["mat_mul"].name == "1.proj"
    assert by_op["tanh"].name == "1"
    assert by_op["tanh"].source.rsplit(":", 1)[0] == __file__
    assert {"0.proj.weight", "1.proj.bias"} <= set(graph.constant_names.values())


def test_constant_outputs_and_inputs_that_pass_through(check: Any) -> None:
    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.arange(3.0))

        def forward(self, x: Any) -> Any:
            return x, self.table, torch.ones(2), (None, 3)

    check(M(), (torch.randn(2),))


def test_unsupported_operators_are_listed_at_once() -> None:
    class M(nn.Module):
        def forward(self, x: Any) -> Any:
            y = torch.linalg.det(x)
            return y + torch.special.airy_ai(x).sum() + torch.special.airy_ai(x + 1).sum() + torch.rand_like(x).sum()

    with pytest.raises(UnsupportedError) as e:
        source(M(), (torch.eye(3),)).graph()
    text = str(e.value)
    assert "3 operators are not supported" in text
    assert "aten.special_airy_ai.default" in text and "[2 uses]" in text and "random numbers" in text
    assert __file__ in text


def test_control_flow_on_values_is_explained() -> None:
    class M(nn.Module):
        def forward(self, x: Any) -> Any:
            if x.sum() > 0:  # the line the error must name
                return x
            return -x

    with pytest.raises(UnsupportedError, match=r"depends on the values of a tensor") as e:
        source(M(), (torch.ones(3),)).graph()
    assert "if x.sum() > 0" in str(e.value) and "torch.where" in str(e.value) and "test_torch_source.py" in str(e.value)


def test_shapes_that_depend_on_values_are_refused() -> None:
    class M(nn.Module):
        def forward(self, x: Any) -> Any:
            return x[x > 0]

    with pytest.raises(UnsupportedError, match="boolean mask"):
        source(M(), (torch.ones(3),)).graph()


def test_state_is_refused() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x: Any) -> Any:
            self.count += 1
            return x + self.count

    with pytest.raises(UnsupportedError, match="changes the model's own count"):
        source(Counter(), (torch.ones(1),)).graph()


def test_inputs_written_in_place_are_not_touched(check: Any) -> None:
    check(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2)), (torch.randn(2, 3),))


def test_values_known_at_compile_time_may_shape_the_result(check: Any) -> None:
    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("keep", torch.tensor([True, False, True]))

        def forward(self, x: Any) -> Any:
            y = x[:, self.keep]
            return y.reshape(-1, y.shape[1] * 1) * y.shape[1]

    check(M(), (torch.randn(4, 3),))


def test_what_is_not_a_model_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="not a PyTorch model"):
        source({"weights": 1})  # type: ignore[arg-type]


def test_broadcast_weights_stay_small(check: Any) -> None:
    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.randn(1, 8))

        def forward(self, x: Any) -> Any:
            return x + self.bias.expand(64, 8)

    graph = check(M(), (torch.randn(64, 8),)).graph()
    assert max(a.size for a in graph.constants.values()) == 8


def test_a_failing_layer_is_named() -> None:
    with pytest.raises(UnsupportedError, match=r"layer 1\.0") as e:
        source(nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(3, 3))), (torch.zeros(2, 4),)).graph()
    assert "4" in str(e.value) and "3, 3" in str(e.value)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_cond_selects_between_both_branches(sign: float, check: Any) -> None:
    class M(nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.cond(x.sum() > 0, lambda x: (x + 1, x * 2), lambda x: (x - 1, x / 2), (x,))

    check(M(), (torch.ones(3) * sign,))


def test_regions_without_gradient_are_part_of_the_model(check: Any) -> None:
    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = nn.Linear(3, 3)

        def forward(self, x: Any) -> Any:
            with torch.no_grad():
                y = self.proj(x)
            with torch.autocast("cpu", enabled=False):
                z = y * 2
            return torch.relu(y) + z

    check(M(), (torch.randn(2, 3),))


def test_parametrized_weights_are_folded(check: Any) -> None:
    norm = torch.nn.utils.parametrizations.weight_norm
    graph = check(norm(nn.Conv1d(3, 4, 3)), (torch.randn(1, 3, 8),)).graph()
    assert [n.op.name for n in graph.nodes] == ["conv"]


def test_a_program_exported_in_training_mode_is_refused() -> None:
    for model in (nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)), nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))):
        program = torch.export.export(model.train(), (torch.randn(4, 3),))
        with pytest.raises(UnsupportedError, match=r"eval|random numbers"):
            source(program).graph()


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # torch's own, in run_decompositions
def test_an_exported_program_is_a_model(check: Any) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten()).eval()
    x = torch.randn(1, 2, 5, 5)
    program = torch.export.export(model, (x,))
    for given in (program, program.run_decompositions()):
        src = source(given)
        assert src.default_types() == {"input": TensorType((1, 2, 5, 5))}
        got = interpret(src.graph(), {"input": x.numpy()})["output"]
        np.testing.assert_allclose(got, model(x).detach().numpy(), rtol=1e-4, atol=1e-5)
        with pytest.raises(InputError, match="exported for other inputs"):
            src.graph({"input": TensorType((2, 2, 5, 5))})
