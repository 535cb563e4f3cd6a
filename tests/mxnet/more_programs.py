"""More programs for `programs.py`: operators, integer gradients, and the NumPy-like interface."""

from __future__ import annotations

import itertools
import tempfile
import warnings
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, Any]


def _keeper(mx: Any) -> tuple[Arrays, Any]:
    """A dictionary, and a function that puts an operator's result and the gradients of its operands into it."""
    out: Arrays = {}

    def keep(name: str, f: Any, *xs: Any, wrt: int | None = None) -> None:
        chosen = xs[: len(xs) if wrt is None else wrt]
        for x in chosen:
            x.attach_grad()
        with mx.autograd.record():
            y = f(*xs)
            y = y[0] if isinstance(y, (list, tuple)) else y
        y.backward()
        out[f"{name}_y"] = y.asnumpy()
        for i, x in enumerate(chosen):
            out[f"{name}_d{i}"] = x.grad.asnumpy()

    return out, keep


def windows(mx: Any) -> Arrays:
    """Columns of patches and back, correlation, sampling, regions."""
    nd, rng = mx.nd, np.random.RandomState(3)
    out, keep = _keeper(mx)

    def draw(*shape: int) -> Any:
        return nd.array(rng.randn(*shape))

    for i, kw in enumerate([{"kernel": (3, 3)}, {"kernel": (2, 3), "stride": (2, 1), "pad": (1, 2), "dilate": (2, 1)}]):
        keep(f"im2col{i}", lambda x, kw=kw: nd.im2col(x, **kw), draw(2, 3, 7, 6))
        columns = nd.im2col(draw(2, 3, 7, 6), **kw)
        keep(f"col2im{i}", lambda x, kw=kw: nd.col2im(x, output_size=(7, 6), **kw), draw(*columns.shape))
    for i, kw in enumerate([{"kernel_size": 1, "max_displacement": 2, "pad_size": 2},
                            {"kernel_size": 3, "max_displacement": 2, "stride1": 2, "stride2": 2, "pad_size": 3},
                            {"kernel_size": 1, "max_displacement": 1, "pad_size": 1, "is_multiply": False}]):  # fmt: skip
        keep(f"correlation{i}", lambda x, y, kw=kw: nd.Correlation(x, y, **kw), draw(2, 3, 8, 9), draw(2, 3, 8, 9))
    grid = nd.array(rng.uniform(-1.2, 1.2, (2, 2, 4, 5)))
    keep("sampler", lambda x, g: nd.BilinearSampler(x, g), draw(2, 3, 6, 7), grid)
    affine = nd.array([[0.9, 0.1, 0.05, -0.2, 1.1, 0.03]] * 2)
    keep("transformer", lambda x, t: nd.SpatialTransformer(x, t, target_shape=(4, 5), transform_type="affine",
                                                           sampler_type="bilinear"), draw(2, 3, 6, 7), affine)  # fmt: skip
    rois = nd.array([[0, 1, 2, 10, 12], [1, 0, 0, 13, 9], [0, 3, 3, 4, 4]])
    keep("roi_pool", lambda x: nd.ROIPooling(x, rois, pooled_size=(2, 3), spatial_scale=0.5), draw(2, 4, 8, 8))
    keep("roi_align", lambda x: nd.contrib.ROIAlign(x, rois, pooled_size=(2, 3), spatial_scale=0.5, sample_ratio=2), draw(2, 4, 8, 8))
    keep("psroi", lambda x: nd.contrib.PSROIPooling(data=x, rois=rois, output_dim=2, pooled_size=3, group_size=3, spatial_scale=0.5),
         draw(2, 18, 8, 8))  # fmt: skip
    return out


def regions(mx: Any) -> Arrays:
    """Region proposals, rotated regions, pooling of one axis with the "same" convention, recurrence with a projection."""
    nd, rng = mx.nd, np.random.RandomState(7)
    out, keep = _keeper(mx)
    scores, moves = nd.array(rng.rand(2, 12, 9, 7)), nd.array(rng.rand(2, 24, 9, 7) - 0.5)
    info = nd.array([[130, 100, 0.8], [90, 110, 1.0]])
    cases: list[dict[str, Any]] = [
        {}, {"rpn_pre_nms_top_n": 100, "rpn_post_nms_top_n": 50}, {"iou_loss": True, "rpn_post_nms_top_n": 700},
        {"rpn_min_size": 40, "threshold": 0.3},
    ]  # fmt: skip
    for i, kw in enumerate(cases):
        kw = {"scales": (2, 4), "ratios": (0.5, 1, 2), "feature_stride": 16, **kw}
        found = nd.contrib.MultiProposal(scores, moves, info, output_score=True, **kw)
        out[f"boxes{i}"], out[f"scores{i}"] = found[0].asnumpy(), found[1].asnumpy()
        out[f"single{i}"] = nd.contrib.Proposal(scores[:1], moves[:1], info[:1], **kw).asnumpy()
    keep("stopped", lambda p: nd.contrib.MultiProposal(p, moves, info, scales=(2, 4), rpn_post_nms_top_n=5), scores)
    rois = nd.array(np.concatenate([rng.randint(0, 3, (9, 1)), rng.rand(9, 2) * 180, rng.rand(9, 2) * 200, rng.rand(9, 1) * 180], 1))
    for n in (-1, 2):
        turned = nd.contrib.RROIAlign(nd.array(rng.rand(3, 2, 13, 11)), rois, pooled_size=(3, 4), spatial_scale=1 / 16, sampling_ratio=n)
        out[f"turned{n}"] = turned.asnumpy()
    for kernel, stride in ((3, 2), (3, 3), (2, 3)):  # where windows reach beyond the axis, oneDNN's pooling fails at random
        for kind in ("max", "avg", "sum") if stride == 3 else ("sum",):
            keep(f"same{kernel}{stride}{kind}", lambda x, kw={"kernel": kernel, "stride": stride, "pool_type": kind}: nd.Pooling(
                x, pad=(0, 0, 0), pooling_convention="same", **kw), nd.array(rng.rand(2, 3, 9)))  # fmt: skip
    for directions in (1, 2):
        size = sum(directions * (4 * 6 * (width + 3 + 2) + 3 * 6) for width in (5, 3 * directions))
        xs = [nd.array(rng.uniform(-0.5, 0.5, s)) for s in ((4, 2, 5), (size,), (2 * directions, 2, 3), (2 * directions, 2, 6))]
        made = nd.RNN(*xs, state_size=6, num_layers=2, bidirectional=directions == 2, mode="lstm", projection_size=3, state_outputs=True)
        out |= {f"projected{directions}_{i}": y.asnumpy() for i, y in enumerate(made)}
    return out


def clipped(mx: Any) -> Arrays:
    """LSTM with limits of its cells' states. MXNet itself has them on GPUs only: there the layer is written out, with clip."""
    nd, rng = mx.nd, np.random.RandomState(6)
    out, keep = _keeper(mx)
    steps, rows, inner, hidden = 5, 2, 3, 4
    sizes = (4 * hidden * inner, 4 * hidden * hidden, 4 * hidden, 4 * hidden)
    shapes = ((steps, rows, inner), (sum(sizes),), (1, rows, hidden), (1, rows, hidden))
    xs = [nd.array(rng.uniform(-1, 1, s)) for s in shapes]

    def operator(*xs: Any, **limits: Any) -> Any:
        return nd.RNN(*xs, state_size=hidden, num_layers=1, mode="lstm", state_outputs=True, **limits)

    def written_out(x: Any, packed: Any, h: Any, c: Any, low: float, high: float) -> Any:
        ends = np.cumsum((0, *sizes))
        w, u, b, d = (nd.slice_axis(packed, axis=0, begin=int(i), end=int(j)) for i, j in itertools.pairwise(ends))
        w, u, h, c = w.reshape((4 * hidden, inner)), u.reshape((4 * hidden, hidden)), h[0], c[0]
        ys = []
        for t in range(steps):
            gates = nd.FullyConnected(x[t], w, b, num_hidden=4 * hidden) + nd.FullyConnected(h, u, d, num_hidden=4 * hidden)
            i, f, g, o = nd.split(gates, 4, axis=1)
            c = nd.clip(nd.sigmoid(f) * c + nd.sigmoid(i) * nd.tanh(g), low, high)
            h = nd.sigmoid(o) * nd.tanh(c)
            ys.append(h)
        return nd.stack(*ys), h.expand_dims(0), c.expand_dims(0)

    def layer(*xs: Any) -> Any:
        if mx.__name__ == "diptych.mxnet":
            found = operator(*xs, lstm_state_clip_min=-0.1, lstm_state_clip_max=0.15)
        else:
            found = written_out(*xs, -0.1, 0.15)
        return nd.concat(*(y.reshape((-1,)) for y in found), dim=0)

    keep("limited", layer, *xs)
    wide = operator(*xs, lstm_state_clip_min=-50, lstm_state_clip_max=50, lstm_state_clip_nan=True)
    return out | {f"wide{i}": y.asnumpy() for i, y in enumerate(wide)}


def densities(mx: Any) -> Arrays:
    """Densities of distributions and special functions, with gradients."""
    nd, rng = mx.nd, np.random.RandomState(4)
    out, keep = _keeper(mx)
    positive, counts = rng.uniform(0.3, 2, (2, 3)), rng.randint(0, 5, (2, 3))
    cases = {
        "uniform": ([[0.1, 0.2], [2.5, 2.0]], positive), "normal": ([[0.1, 0.5], [1.0, 2.0]], positive),
        "gamma": ([[2.0, 3.0], [1.5, 0.7]], positive), "exponential": ([[1.0, 2.0]], positive),
        "poisson": ([[1.0, 2.0]], counts), "negative_binomial": ([[3.0, 2.0], [0.4, 0.6]], counts),
        "generalized_negative_binomial": ([[3.0, 2.0], [0.4, 0.6]], counts),
    }  # fmt: skip
    for name, (parameters, x) in cases.items():
        for log in (False, True):
            keep(f"{name}{log}", lambda *xs, name=name, log=log: getattr(nd, f"random_pdf_{name}")(*xs, is_log=log),
                 nd.array(x), *map(nd.array, parameters))  # fmt: skip
    keep("dirichlet", lambda x, a: nd.random_pdf_dirichlet(x, a), nd.array(rng.dirichlet([1, 2, 3], (2, 4))),
         nd.array([[1.0, 2, 3], [2, 2, 1.5]]))  # fmt: skip
    keep("gamma_function", nd.gamma, nd.array([0.3, 1.5, 4.2]))
    keep("gammaln", nd.gammaln, nd.array([0.3, 1.5, 40.2]))
    return out


def integers(mx: Any) -> Arrays:
    """Gradients of arrays of integers; operators whose types are integers."""
    nd = mx.nd
    out, keep = _keeper(mx)

    def x() -> Any:
        return nd.array([[3, 1, 2], [7, 5, 6]], dtype="int32")

    keep("product", lambda a: a * a + 3 * a, x())
    keep("topk", lambda a: nd.topk(a, k=2, ret_typ="value"), x())
    keep("cast", lambda a: a.astype("float32") * 2.5, x())
    keep("where", lambda a: nd.where(a > 2, a, a * 5), x())
    keep("take", lambda a: nd.take(a, nd.array([1, 1])), x())
    out["arange"] = nd.arange(1.3, 20.6, 1.3, dtype="int32").asnumpy()
    out["unravel"] = nd.unravel_index(nd.array([5, 17, 3]), shape=(-1, 4)).asnumpy()
    out["gather"] = nd.gather_nd(nd.array([[0, 1, 2], [3, 4, 5]]), nd.array([[0, 1, -1], [0, 1, -2]])).asnumpy()
    quantized = nd.contrib.quantize(nd.array([[0.1392, 0.5928], [-0.6027, 0.8579]]), nd.array([-0.7]), nd.array([1.0]), out_type="int8")
    out["quantized"], out["low"], out["high"] = (q.asnumpy() for q in quantized)
    out["restored"] = nd.contrib.dequantize(*quantized, out_type="float32").asnumpy()
    return out


def shapes(mx: Any) -> Arrays:
    """Diagonals, products along other axes, several results."""
    nd, rng = mx.nd, np.random.RandomState(5)
    out, keep = _keeper(mx)

    def draw(*shape: int) -> Any:
        return nd.array(rng.randn(*shape))

    for k in (-1, 0, 2):
        keep(f"diag{k}", lambda x, k=k: nd.diag(x, k=k), draw(3, 5))
        keep(f"diag3{k}", lambda x, k=k: nd.diag(x, k=k, axis1=2, axis2=0), draw(4, 2, 5))
        keep(f"extract{k}", lambda x, k=k: nd.linalg.extractdiag(x, offset=k), draw(2, 4, 4))
        keep(f"make{k}", lambda x, k=k: nd.linalg.makediag(x, offset=k), draw(2, 3))
    keep("gemm", lambda a, b, c: nd.linalg.gemm(a, b, c, axis=0, alpha=2.0, beta=0.5), draw(3, 2, 4), draw(4, 2, 5), draw(3, 2, 5))
    square = rng.randn(4, 4)
    keep("syevd", lambda x: nd.linalg.syevd(x)[1], nd.array(square + square.T))
    out["vectors"] = nd.linalg.syevd(nd.array(square + square.T))[0].asnumpy()
    for i, y in enumerate(nd.GroupNorm(draw(2, 6, 3, 3), nd.ones((3,)), nd.zeros((3,)), num_groups=3, output_mean_var=True)):
        out[f"group{i}"] = y.asnumpy()
    keep("prelu", lambda x, g: nd.LeakyReLU(x, g, act_type="prelu"), draw(2, 3, 4, 5), draw(2, 3))
    return out


def numpy_like(mx: Any) -> Arrays:
    """`mx.np`: movement, sums of products and linear algebra, with gradients."""
    np_, rng = mx.np, np.random.RandomState(6)
    mx.npx.set_np()
    try:
        out, keep = _keeper(mx)

        def draw(*shape: int) -> Any:
            return np_.array(rng.randn(*shape))

        keep("trace", lambda x: np_.trace(x, offset=1), draw(3, 4))
        keep("diagonal", lambda x: np_.diagonal(x, offset=-1, axis1=2, axis2=0), draw(4, 2, 5))
        keep("diag", lambda x: np_.diag(x, k=1), draw(3))
        keep("rot90", lambda x: np_.rot90(x, 2, axes=(0, 1)) * draw(3, 5), draw(3, 5))
        keep("tril", lambda x: np_.tril(x, k=-1), draw(2, 4, 4))
        out["delete"] = np_.delete(draw(3, 4), slice(1, 3), axis=1).asnumpy()
        out["insert"] = np_.insert(draw(3, 4), 1, draw(4), axis=0).asnumpy()
        keep("diff", lambda x: np_.diff(x, n=2, axis=0) ** 2, draw(5, 3))
        keep("average", lambda x, w: np_.average(x, axis=1, weights=w), draw(3, 4), np_.array(rng.uniform(1, 2, (3, 4))))
        keep("polyval", lambda p, x: np_.polyval(p, x), draw(4), draw(2, 3))
        keep("einsum", lambda a, b, c: np_.einsum("ij,jk,kl->il", a, b, c), draw(2, 3), draw(3, 4), draw(4, 2))
        keep("einsum_spread", lambda a, b: np_.einsum("ij,ijk->ik", a, b), draw(2, 1), draw(1, 3, 4))
        keep("einsum_trace", lambda a: np_.einsum("ii", a), draw(3, 3))
        square, positive = rng.randn(2, 3, 3), rng.randn(2, 3, 3)
        positive = positive @ np.swapaxes(positive, 1, 2) + 3 * np.eye(3)
        keep("inv", np_.linalg.inv, np_.array(square))
        keep("det", np_.linalg.det, np_.array(square))
        keep("cholesky", np_.linalg.cholesky, np_.array(positive))
        keep("solve", np_.linalg.solve, np_.array(positive), draw(2, 3, 2))
        keep("values", lambda x: np_.linalg.svd(x)[1], draw(3, 4))
        keep("reshape", lambda x: mx.npx.reshape(x, (-4, -1, 3, -6), reverse=True), draw(8, 5, 4, 6))
        for mode in ("reflect", "symmetric", "minimum", "maximum", "edge"):
            for i, shape in enumerate(((1, 3), (2, 2), (3, 4))):
                out[f"pad_{mode}{i}"] = np_.pad(draw(*shape), ((2, 3), (4, 5)), mode=mode).asnumpy()
        keep("mean_of_integers", lambda x: np_.mean(x, axis=1, dtype="int32"), draw(3, 4) * 9)
        keep("mean_cast", lambda x: np_.mean(x, axis=(), dtype="int32"), draw(3, 4) * 9)
        keep("relu", mx.npx.relu, np_.array([float("nan"), -1, 0, 2, float("inf")]))
        keep("far_trace", lambda x: np_.trace(x, offset=5, axis1=2), draw(3, 2, 4))
        out["delete_outside"] = np_.delete(draw(5), np_.array([-1, 0, 9, 0], dtype="int64")).asnumpy()
        out["eye_narrow"] = np_.eye(4, 2, -1).asnumpy()
        out["var_of_nothing"] = np_.var(draw(2, 3), axis=(), ddof=1).asnumpy()
        mask = np_.array([[True, False, True], [False, True, False]], dtype=np_.bool)
        for start, x in ((0, draw(2, 3, 4)), (1, draw(4, 2, 3))):
            mx.nd.np._internal.boolean_mask_assign_scalar(x, mask, 7.0, start_axis=start, out=x)
            out[f"assigned{start}"] = x.asnumpy()
            value = draw(3, 4) if start == 0 else draw(4, 1)
            mx.nd.np._internal.boolean_mask_assign_tensor(x, mask, value, start_axis=start, out=x)
            out[f"assigned_tensor{start}"] = x.asnumpy()
        out["mean"] = np_.mean(np_.array([[1, 2], [4, 7]], dtype="int32")).asnumpy()
        out["both"] = np_.add(np_.array([True, False]), np_.array([True, True])).asnumpy()
        return out
    finally:
        mx.npx.reset_np()


def rows(mx: Any) -> Arrays:
    """Convolutions over whole rows, and the largest of each channel, as networks for sentences have them."""
    rng, out = np.random.RandomState(4), {}
    cases = {"words": ((3, 1, 11, 20), (3, 20), (1, 1), (0, 0), (1, 1)), "padded": ((2, 2, 9, 17), (4, 17), (2, 1), (2, 0), (1, 1)),
             "spread": ((2, 3, 12, 16), (3, 16), (1, 3), (1, 0), (2, 1)), "wide_pad": ((1, 1, 6, 18), (2, 18), (1, 1), (0, 1), (1, 1))}  # fmt: skip
    for name, (shape, kernel, stride, pad, dilate) in cases.items():
        x, w, b = (mx.nd.array(rng.randn(*s)) for s in (shape, (5, shape[1], *kernel), (5,)))
        for a in (x, w, b):
            a.attach_grad()
        with mx.autograd.record():
            y = mx.nd.Convolution(x, w, b, kernel=kernel, num_filter=5, stride=stride, pad=pad, dilate=dilate)
            z = mx.nd.Pooling(y, kernel=y.shape[2:], pool_type="max")
        z.backward(mx.nd.array(rng.randn(*z.shape)))
        out.update({f"{name}_{k}": v.asnumpy() for k, v in {"y": y, "z": z, "dx": x.grad, "dw": w.grad, "db": b.grad}.items()})
    return out


def vectors(mx: Any) -> Arrays:
    """Vectors of tokens from files, put together for a vocabulary, and changed."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, two = Path(folder, "one"), Path(folder, "two")
        one.write_text("3 2\n" "a 0.5 1\n" "b -1 2\n" "a 9 9\n" "Cc 3 4\n")
        two.write_text("<unk>:7:8:9\n" "b:1:2:3\n" "d:4:5:6\n")
        text = mx.contrib.text
        first = text.embedding.CustomEmbedding(str(one), init_unknown_vec=mx.nd.ones)
        second = text.embedding.CustomEmbedding(str(two), ":")
        words = text.vocab.Vocabulary(Counter(["b", "b", "d", "Cc", "q"]), reserved_tokens=["<pad>"])
        both = text.embedding.CompositeEmbedding(words, [first, second])
        out = {"first": first.idx_to_vec, "second": second.idx_to_vec, "both": both.idx_to_vec, "one": first.get_vecs_by_tokens("b"),
               "some": first.get_vecs_by_tokens(["zz", "CC", "A", "b"]), "lower": first.get_vecs_by_tokens(["zz", "CC", "A", "b"], True),
               "of_words": text.embedding.CustomEmbedding(str(one), vocabulary=words).idx_to_vec}  # fmt: skip
        out = {k: v.asnumpy() for k, v in out.items()}
        out["numbers"] = np.array([*first.to_indices(["a", "b", "Cc", "x"]), len(first), first.vec_len, len(both), both.vec_len])
        both.update_token_vectors(["d", "b"], mx.nd.array(np.arange(10).reshape(2, 5)))
        first.update_token_vectors("a", mx.nd.array([7, 6]))
        out.update(changed=both.idx_to_vec.asnumpy(), changed_one=first.idx_to_vec.asnumpy())
        return out


def variance_reduced(mx: Any, contexts: int = 1, epochs: int = 3, update_freq: int = 5) -> Arrays:
    """SVRGModule: a linear regression with a batch that is filled up."""
    module_of = import_module(f"{mx.__name__}.contrib.svrg_optimization.svrg_module").SVRGModule
    rng = np.random.RandomState(7)
    data = mx.io.NDArrayIter(rng.randn(22, 3).astype("float32"), rng.randn(22).astype("float32"), 4, label_name="lro_label")
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=1, name="fc")
    net = mx.sym.LinearRegressionOutput(net, mx.sym.Variable("lro_label"), name="lro")
    module = module_of(net, label_names=["lro_label"], context=[mx.cpu(i) for i in range(contexts)], update_freq=update_freq)
    start = {"fc_weight": mx.nd.array([[0.1, -0.2, 0.3]]), "fc_bias": mx.nd.array([0.5])}
    module.fit(data, eval_metric="mse", optimizer="sgd", optimizer_params={"learning_rate": 0.05}, num_epoch=epochs, arg_params=start)
    out = {k: v.asnumpy() for k, v in module.get_params()[0].items()} | {f"full_{k}": v.asnumpy() for k, v in module._param_dict[0].items()}
    return out | {"mse": np.array([module.score(data, "mse")[0][1]])}


MORE = {f.__name__: f for f in (windows, regions, densities, integers, shapes, numpy_like, rows, vectors, variance_reduced)}
