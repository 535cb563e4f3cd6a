"""Random small networks: what fusion, layouts, halos, placement and memory planning have to get right together."""

from __future__ import annotations

import numpy as np

from diptych.ir import Graph, TensorType, Value, verify
from diptych.ops import (
    AvgPool,
    BatchNorm,
    Builder,
    Clip,
    Concat,
    Conv,
    ConvTranspose,
    Gelu,
    HardSwish,
    LayerNorm,
    Max,
    MaxPool,
    Mean,
    Pad,
    Resize,
    Silu,
    Slice,
    Softmax,
    Sum,
)

CHANNELS = (1, 3, 8, 16, 16, 24, 32, 32, 48)
MOST = 40_000  # elements of a value, so that a network runs in an instant


def skip_connections(batch: int, levels: int = 3, size: int = 96) -> Graph:
    """Maps that are kept, and joined much later with what comes back up from below."""
    g, rng = Builder("skips"), np.random.default_rng(0)

    def weights(o: int, i: int, k: int) -> Value:
        return g.constant((rng.standard_normal((o, i, k, k)) / (k * i**0.5)).astype(np.float32))

    def conv(x: Value) -> Value:
        return g.relu(g.emit(Conv((1, 1), ((1, 1), (1, 1)), (1, 1)), x, weights(32, x.shape[1], 3)))

    x, kept = g.input("x", TensorType((batch, 16, size, size))), []
    for _ in range(levels):
        x = conv(x)
        kept.append(x)
        x = g.emit(MaxPool((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)), x)
    for skip in reversed(kept):
        x = g.emit(ConvTranspose((2, 2), ((0, 0), (0, 0)), (1, 1)), x, weights(32, 32, 2))
        x = conv(g.concat([skip, x], 1))
    return g.finish({"y": x})


class Network:
    """Grows a graph from a seeded generator; every step takes values made so far, recent ones more often."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.g = Builder(f"random{seed}")
        self.values: list[Value] = []
        for i in range(int(self.rng.integers(1, 3))):
            size = int(self.rng.choice([5, 7, 8, 9, 14]))
            shape = (int(self.rng.integers(1, 3)), int(self.rng.choice(CHANNELS)), size, size + int(self.rng.integers(2)))
            self.values.append(self.g.input(f"x{i}", TensorType(shape)))

    def finish(self, steps: int) -> Graph:
        while steps:
            steps -= self.step()
        used = {v for n in self.g.finish({"all": self.values[-1]}).nodes for v in n.inputs}
        leaves = [v for v in self.values if v.id not in used][-3:]
        extra = [self.values[int(i)] for i in self.rng.integers(0, len(self.values), 2)]  # also read inside
        outs = list(dict.fromkeys([*leaves, *extra], None))
        return verify(self.g.finish({f"y{i}": v for i, v in enumerate(outs)}))

    # -- choices ------------------------------------------------------------------------------------------------
    def pick(self, rank: int | None = None) -> Value | None:
        fits = [v for v in self.values if rank is None or v.rank == rank]
        if not fits:
            return None
        back = int(self.rng.geometric(0.4))
        return fits[-min(back, len(fits))]

    def constant(self, *shape: int, low: float = -1.0, high: float = 1.0) -> Value:
        return self.g.constant(self.rng.uniform(low, high, shape).astype(np.float32))

    def step(self) -> bool:
        """Add one operator; False when the one drawn does not fit."""
        kind = str(self.rng.choice(
            ["conv", "conv", "conv", "depthwise", "norm", "unary", "unary", "binary", "binary", "pool", "concat",
             "slice", "mean", "matmul", "softmax", "layer_norm", "transpose", "reshape", "pad", "scale", "resize"]
        ))  # fmt: skip
        made = getattr(self, kind)()
        if made is None or made.type.size > MOST or 0 in made.shape:
            return False
        self.values.append(made)
        return True

    # -- operators ----------------------------------------------------------------------------------------------
    def conv(self) -> Value | None:
        x = self.pick(4)
        if x is None:
            return None
        kernel, stride, dilation = int(self.rng.choice([1, 1, 3, 3, 5])), int(self.rng.choice([1, 1, 2])), 1
        if kernel == 3:
            dilation = int(self.rng.choice([1, 1, 2]))
        reach = dilation * (kernel - 1) + 1
        pad = int(self.rng.choice([0, reach // 2, reach // 2]))
        if min(x.shape[2:]) + 2 * pad < reach:
            return None
        groups = int(self.rng.choice([1, 1, 1, 2])) if x.shape[1] % 2 == 0 else 1
        o = int(self.rng.choice([c for c in CHANNELS if c % groups == 0]))
        w = self.constant(o, x.shape[1] // groups, kernel, kernel) if groups else None
        assert w is not None
        scale = self.g.constant(np.float32(1 / np.sqrt(w.type.size / o)))
        w = self.g.constant(self.g.constant_array(w) * self.g.constant_array(scale))  # type: ignore[operator]
        bias = [self.constant(o)] if self.rng.random() < 0.5 else []
        return self.g.emit(Conv((stride,) * 2, ((pad, pad), (pad, pad)), (dilation,) * 2, groups), x, w, *bias)

    def depthwise(self) -> Value | None:
        x = self.pick(4)
        if x is None or min(x.shape[2:]) < 3:
            return None
        stride = int(self.rng.choice([1, 2]))
        w = self.constant(x.shape[1], 1, 3, 3, low=-0.4, high=0.4)
        return self.g.emit(Conv((stride,) * 2, ((1, 1), (1, 1)), (1, 1), x.shape[1]), x, w)

    def norm(self) -> Value | None:
        x = self.pick(4)
        if x is None:
            return None
        c = x.shape[1]
        parts = [self.constant(c), self.constant(c), self.constant(c), self.constant(c, low=0.5, high=2.0)]
        return self.g.emit(BatchNorm(), x, *parts)

    def unary(self) -> Value | None:
        x = self.pick()
        assert x is not None
        op = [OPS_RELU, Silu(), HardSwish(), Gelu(), Clip(0.0, 6.0), OPS_SIGMOID, OPS_TANH][int(self.rng.integers(7))]
        return self.g.emit(op, x)

    def binary(self) -> Value | None:
        x = self.pick()
        assert x is not None
        fits = [v for v in self.values if v.shape == x.shape]
        y = fits[int(self.rng.integers(len(fits)))]
        return [self.g.add, self.g.sub, self.g.mul, self.g.maximum][int(self.rng.integers(4))](x, y)

    def scale(self) -> Value | None:
        """With a constant or computed operand that broadcasts."""
        x = self.pick()
        assert x is not None
        if x.rank == 4 and self.rng.random() < 0.5:  # squeeze and excitation
            return self.g.mul(x, self.g.sigmoid(self.g.emit(Mean((2, 3), True), x)))
        shape = [d if self.rng.random() < 0.5 else 1 for d in x.shape]
        return self.g.mul(x, self.constant(*shape))

    def pool(self) -> Value | None:
        x = self.pick(4)
        if x is None or min(x.shape[2:]) < 3:
            return None
        k, s = int(self.rng.choice([2, 3])), int(self.rng.choice([1, 2]))
        pad = int(self.rng.integers(0, 2)) if k == 3 else 0
        cls = MaxPool if self.rng.random() < 0.5 else AvgPool
        return self.g.emit(cls((k, k), (s, s), ((pad, pad), (pad, pad))), x)

    def concat(self) -> Value | None:
        x = self.pick(4)
        if x is None:
            return None
        fits = [v for v in self.values if v.rank == 4 and v.shape[:1] + v.shape[2:] == x.shape[:1] + x.shape[2:]]
        others = [fits[int(i)] for i in self.rng.integers(0, len(fits), int(self.rng.integers(1, 3)))]
        return self.g.emit(Concat(1), x, *others)

    def slice(self) -> Value | None:
        x = self.pick()
        assert x is not None
        starts, stops, steps = [], [], []
        for d in x.shape:
            a = int(self.rng.choice([0, 0, d // 2])) if d > 1 else 0
            starts.append(a)
            stops.append(d)
            steps.append(int(self.rng.choice([1, 1, 2])))
        if x.rank == 4 and x.shape[1] % 32 == 0:
            starts[1], steps[1] = int(self.rng.choice([0, 16])), 1
        return self.g.emit(Slice(tuple(starts), tuple(stops), tuple(steps)), x)

    def mean(self) -> Value | None:
        x = self.pick()
        assert x is not None
        axes = tuple(sorted({int(a) for a in self.rng.integers(0, x.rank, 2)})) if x.rank else ()
        if not axes or len(axes) == x.rank:
            return None
        cls = [Mean, Sum, Max][int(self.rng.integers(3))]
        y = self.g.emit(cls(axes, bool(self.rng.integers(2))), x)
        return self.g.mul(y, self.g.constant(np.float32(0.1))) if cls is Sum else y

    def matmul(self) -> Value | None:
        x = self.pick()
        if x is None or x.rank < 2:
            return None
        n = int(self.rng.choice([1, 10, 16, 40]))
        return self.g.matmul(x, self.constant(x.shape[-1], n, low=-0.3, high=0.3))

    def softmax(self) -> Value | None:
        x = self.pick()
        assert x is not None
        return self.g.emit(Softmax(int(self.rng.integers(x.rank))), x) if x.rank else None

    def layer_norm(self) -> Value | None:
        x = self.pick()
        if x is None or x.rank < 2 or x.shape[-1] < 4:
            return None
        return self.g.emit(LayerNorm(x.rank - 1), x, self.constant(x.shape[-1]), self.constant(x.shape[-1]))

    def transpose(self) -> Value | None:
        x = self.pick()
        assert x is not None
        return self.g.transpose(x, tuple(int(i) for i in self.rng.permutation(x.rank)))

    def reshape(self) -> Value | None:
        x = self.pick()
        if x is None or x.rank < 2:
            return None
        at = int(self.rng.integers(0, x.rank - 1))
        return self.g.reshape(x, (*x.shape[:at], x.shape[at] * x.shape[at + 1], *x.shape[at + 2 :]))

    def pad(self) -> Value | None:
        x = self.pick(4)
        if x is None or min(x.shape[2:]) < 3:
            return None
        mode = ["constant", "reflect", "edge"][int(self.rng.integers(3))]
        return self.g.emit(Pad(((0, 0), (0, 0), (1, 2), (0, 1)), mode), x)

    def resize(self) -> Value | None:
        x = self.pick(4)
        if x is None:
            return None
        mode = ["nearest", "linear"][int(self.rng.integers(2))]
        return self.g.emit(Resize((2 * x.shape[2], 2 * x.shape[3]), mode), x)


def _scalar_operators() -> tuple[object, object, object]:
    from diptych.ops import Relu, Sigmoid, Tanh

    return Relu(), Sigmoid(), Tanh()


OPS_RELU, OPS_SIGMOID, OPS_TANH = _scalar_operators()
