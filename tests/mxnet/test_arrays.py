"""NDArray: memory that is shared and memory that is not, types, files, errors."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

import diptych.mxnet as mx
from diptych.mxnet import nd
from diptych.mxnet.base import MXNetError


def test_contiguous_slices_and_reshapes_share_memory_others_do_not() -> None:
    x = nd.zeros((4, 6))
    x[1:3][:] = 1
    x.reshape((6, 4))[0] = 2
    assert x.asnumpy()[1:3].sum() == 12 and x.asnumpy()[0, :4].tolist() == [2] * 4
    before = x.asnumpy()
    x[:, 1][:] = 9
    x[nd.array([0, 1])][:] = 9
    x[::2][:] = 9
    np.testing.assert_array_equal(x.asnumpy(), before)
    assert x[0].shape == (6,) and x[0, 0].shape == (1,)


def test_results_share_no_memory_with_operands() -> None:
    x = nd.ones((2, 3))
    for y in (x.transpose(), nd.reshape(x, shape=(3, 2)), nd.identity(x), nd.broadcast_to(x, shape=(2, 3)), nd.BlockGrad(x)):
        y[:] = 5
    assert x.asnumpy().tolist() == [[1] * 3] * 2


def test_types_follow_mxnet() -> None:
    assert nd.array(np.arange(3)).dtype == np.float32  # whatever NumPy's type is
    assert nd.array(nd.arange(3, dtype="int32")).dtype == np.int32
    x = nd.array([1, 5, 2])
    assert (x > 1).dtype == np.float32 and x.argmax(axis=0).dtype == np.float32
    assert x.topk(k=1, dtype="int32").dtype == np.int32
    assert (nd.array([3], dtype="int32") * 0.5).asnumpy().tolist() == [0]
    assert x.sum().shape == (1,)


def test_reshape_codes() -> None:
    x = nd.zeros((2, 3, 4))
    assert x.reshape((-3, 0)).shape == (6, 4)
    assert x.reshape((0, -4, 3, 1, -2)).shape == (2, 3, 1, 4)
    assert x.reshape((-1, 0), reverse=True).shape == (6, 4)
    with pytest.raises(ValueError):
        x.reshape((5, 5))


def test_save_load_and_pickle(tmp_path: Path) -> None:
    content = {"w": nd.array([[1, 2], [3, 4]]), "n": nd.arange(3, dtype="int64")}
    nd.save(str(tmp_path / "x.params"), content)
    back = nd.load(str(tmp_path / "x.params"))
    assert back.keys() == content.keys() and back["n"].dtype == np.int64
    np.testing.assert_array_equal(back["w"].asnumpy(), content["w"].asnumpy())
    assert pickle.loads(pickle.dumps(content["w"])).asnumpy().tolist() == [[1, 2], [3, 4]]
    nd.save(str(tmp_path / "list"), [content["w"], nd.zeros((2, 3)).tostype("row_sparse")])
    loaded = nd.load(str(tmp_path / "list"))
    assert [a.stype for a in loaded] == ["default", "row_sparse"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: nd.clip(nd.ones((2,)), 0, 1, slope=1), "takes no argument 'slope'"),
        (lambda: nd.FullyConnected(nd.ones((2, 3)), nd.ones((2, 3)), no_bias=True), "needs the argument num_hidden"),
        (lambda: nd.Pooling(nd.ones((1, 1, 4, 4)), kernel=(2, 2), pool_type="median"), "not one of"),
        (lambda: nd.ones((2, 3)) + nd.ones((4, 5)), "broadcast"),
        (lambda: nd.ones((2,), ctx=mx.gpu()), "there is no GPU support"),
        (lambda: nd.zeros((0, 3)), "np_shape"),
    ],
)
def test_errors_say_what_is_wrong(call: object, words: str) -> None:
    with pytest.raises(MXNetError, match=words):
        call()  # type: ignore[operator]


def test_unknown_operators_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no_such_operator"):
        nd.no_such_operator  # noqa: B018


def test_random_numbers_follow_the_seed() -> None:
    mx.random.seed(3)
    first = nd.random.normal(2, 3, shape=(20000,)).asnumpy()
    mx.random.seed(3)
    np.testing.assert_array_equal(first, nd.random.normal(2, 3, shape=(20000,)).asnumpy())
    assert abs(first.mean() - 2) < 0.1 and abs(first.std() - 3) < 0.1
    rows = nd.random.uniform(nd.array([0.0, 10.0]), nd.array([1.0, 20.0]), shape=(500,)).asnumpy()
    assert rows.shape == (2, 500) and rows[0].max() < 1 and rows[1].min() >= 10


def test_numpy_like_interface() -> None:
    np_ = mx.np
    x = np_.array([[1.0, 2.0], [3.0, 4.0]])
    assert x.sum().shape == () and (x > 2).dtype == np.bool_
    assert x[x > 2].asnumpy().tolist() == [3, 4]
    assert (np_.arange(3, dtype="int32") / 2).dtype == np.float32
    assert np_.concatenate([x, x], axis=1).shape == (2, 4)
    x.attach_grad()
    with mx.autograd.record():
        y = np_.dot(x, x).sum()
    with pytest.raises(MXNetError, match="no gradient here"), mx.autograd.record():
        np_.percentile(x, 50)
    y.backward()
    assert x.grad.asnumpy().tolist() == [[3 + 4, 7 + 4], [3 + 6, 7 + 6]]
