"""gluon: blocks, parameters, files, training; against MXNet itself where DIPTYCH_MXNET_PYTHON names it."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import weakref
from pathlib import Path

import gluon_programs
import numpy as np
import pytest

import diptych.mxnet as mx
from diptych.mxnet import autograd, gluon, nd
from diptych.mxnet.gluon import nn

PYTHON = os.environ.get("DIPTYCH_MXNET_PYTHON", "")
needs_mxnet = pytest.mark.skipif(not PYTHON, reason="DIPTYCH_MXNET_PYTHON names no interpreter with MXNet 1.9.1")


def on_mxnet(name, folder):
    """The numbers of a program on MXNet itself."""
    program = Path(__file__).parent / "gluon_programs.py"
    done = subprocess.run([PYTHON, str(program), name, str(folder)], capture_output=True, text=True,
                          env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def start(folder):
    """A file of parameters to begin with."""
    mx.random.seed(7)
    net = gluon_programs.network(mx)
    net.initialize(mx.init.Xavier())
    net(gluon_programs.images(mx))
    net.save_parameters(str(folder / "start.params"))


def close(a, b, tolerance):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for k in a:
            close(a[k], b[k], tolerance)
    elif isinstance(a, str):
        assert a == b
    elif isinstance(a, list) and any(isinstance(x, (list, str)) for x in a):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            close(x, y, tolerance)
    else:
        np.testing.assert_allclose(np.array(a), np.array(b), rtol=tolerance, atol=tolerance)


@needs_mxnet
def test_simple_network_trains_to_the_same_numbers(tmp_path):
    close(gluon_programs.simple_nn(mx, tmp_path), on_mxnet("simple_nn", tmp_path), 1e-5)


@needs_mxnet
def test_convolutional_network_trains_to_the_same_numbers(tmp_path):
    start(tmp_path)
    close(gluon_programs.train(mx, tmp_path), on_mxnet("train", tmp_path), 1e-3)


@needs_mxnet
def test_mxnet_reads_our_files(tmp_path):
    start(tmp_path)
    close(gluon_programs.write(mx, tmp_path), on_mxnet("read", tmp_path), 1e-4)


@needs_mxnet
def test_we_read_files_of_mxnet(tmp_path):
    start(tmp_path)
    expected = on_mxnet("write", tmp_path)
    close(gluon_programs.read(mx, tmp_path), expected, 1e-4)


@needs_mxnet
@pytest.mark.parametrize("program", [
    "contrib_cells", "dynamic_unroll", "symbol_cells", "unknown_attributes", "splits", "symbol_block_names", "hooks", "recorded_symbols",
    "image_operators",
])  # fmt: skip
def test_programs_give_the_numbers_of_mxnet(program, tmp_path):
    close(getattr(gluon_programs, program)(mx, tmp_path), on_mxnet(program, tmp_path), 2e-4)


def test_convolutional_cells_take_channels_last():
    first = gluon.contrib.rnn.Conv2DLSTMCell((2, 5, 6), 3, 3, (3, 1), i2h_pad=1, prefix="c_")
    last = gluon.contrib.rnn.Conv2DLSTMCell((5, 6, 2), 3, 3, (3, 1), i2h_pad=1, conv_layout="NHWC", prefix="c_")
    first.initialize(mx.init.Uniform(0.5))
    last.initialize()
    for name, p in last.collect_params().items():
        given = first.collect_params()[name].data()
        p.set_data(given if given.ndim == 1 else given.transpose((0, 2, 3, 1)))
    x = nd.random.normal(shape=(2, 3, 2, 5, 6))
    ours, _ = last.unroll(3, x.transpose((0, 1, 3, 4, 2)), merge_outputs=True)
    expected, _ = first.unroll(3, x, merge_outputs=True)
    np.testing.assert_allclose(ours.asnumpy(), expected.transpose((0, 1, 3, 4, 2)).asnumpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("modulated", [False, True])
def test_deformable_convolution_without_offsets_is_a_convolution(modulated):
    kind = gluon.contrib.cnn.ModulatedDeformableConvolution if modulated else gluon.contrib.cnn.DeformableConvolution
    layer = kind(4, kernel_size=(3, 2), strides=(2, 1), padding=(1, 0), activation="relu")
    layer.initialize(mx.init.Uniform(0.5))
    x = nd.random.normal(shape=(2, 3, 7, 6))
    weight = layer.collect_params()
    for hybrid in (False, True):
        layer.hybridize(hybrid)
        y = layer(x)
        w, b = (weight[layer.prefix + "deformable_conv_" + n].data() for n in ("weight", "bias"))
        plain = nd.relu(nd.Convolution(x, w, b, kernel=(3, 2), stride=(2, 1), pad=(1, 0), num_filter=4))
        np.testing.assert_allclose(y.asnumpy(), plain.asnumpy(), rtol=1e-4, atol=1e-5)
    layer.collect_params()[layer.prefix + "offset_bias"].set_data(nd.ones(24 if not modulated else 36)[: 12 if not modulated else 18] * 0.5)
    assert np.abs(layer(x).asnumpy() - plain.asnumpy()).max() > 1e-2


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_fused_layers_inside_of_hybridized_networks_infer_their_sizes(layers, bidirectional):
    net = nn.HybridSequential()
    net.add(gluon.rnn.LSTM(5, layers, bidirectional=bidirectional), nn.Dense(3))
    net.initialize()
    net.hybridize()
    assert net(nd.ones((2, 3, 7))).shape == (2, 3)
    layer = net[0]
    assert layer.l0_i2h_weight.shape == (20, 7)
    if bidirectional:
        assert layer.r0_i2h_weight.shape == (20, 7)


def test_rows_of_sparse_parameters_lie_in_their_context():
    weight = gluon.Parameter("w", shape=(4, 2), stype="row_sparse")
    weight.initialize(init="one", ctx=[mx.cpu(1), mx.cpu(2)])
    gluon.Trainer([weight], "sgd")
    for i in (1, 2):
        rows = weight.row_sparse_data(nd.array([0, 3], ctx=mx.cpu(i)))
        assert rows.context == mx.cpu(i)
        np.testing.assert_array_equal(rows.asnumpy(), [[1, 1], [0, 0], [0, 0], [1, 1]])


def test_a_network_of_float64_infers_its_shapes():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3), nn.BatchNorm(), nn.Dense(2))
    net.initialize()
    net.cast("float64")
    assert net(nd.ones((2, 3, 8, 8), dtype="float64")).dtype == np.float64


def test_a_network_made_under_numpys_shape_rules():
    with mx.util.np_shape(), mx.util.np_array():
        layer = nn.Dense(3)
        layer.initialize()
        assert layer.weight.shape == (3, -1)
        assert layer(mx.np.ones((2, 5))).shape == (2, 3)
        assert layer.weight.shape == (3, 5)


@pytest.mark.parametrize("call, message", [
    (lambda image, x: image.crop(x, 4, 0, 3, 2), "not inside"),
    (lambda image, x: image.normalize(x), "to_tensor"),
    (lambda image, x: image.resize(x, (0, 3)), "positive"),
    (lambda image, x: image.flip_left_right(nd.zeros((2, 4, 6, 3))), "height, width, channels"),
])  # fmt: skip
def test_image_operators_refuse_what_is_no_image(call, message):
    with pytest.raises(mx.MXNetError, match=message):
        call(mx.nd.image, nd.zeros((4, 6, 3))).asnumpy()


def test_simple_network_learns():
    losses = gluon_programs.simple_nn(mx, Path())["losses"]
    assert len(losses) == 100
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("layer", [
    nn.Dense(3, activation="tanh"), nn.Conv2D(4, 3, strides=2, padding=1, groups=1), nn.Conv2DTranspose(2, 3, strides=2),
    nn.BatchNorm(), nn.LayerNorm(), nn.InstanceNorm(), nn.PReLU(), nn.GELU(), nn.Swish(), nn.AvgPool2D(3, 2, ceil_mode=True),
    nn.MaxPool2D(2), nn.GlobalMaxPool2D(), nn.ReflectionPad2D(1), nn.HybridLambda(lambda F, x: F.relu(x) * 2),
], ids=lambda x: type(x).__name__)  # fmt: skip
def test_hybridized_layer_gives_the_same_outputs_and_gradients(layer):
    layer.initialize()
    rng = np.random.default_rng(3)
    value = rng.standard_normal((2, 3, 7, 5)).astype(np.float32)
    seen = []
    for hybrid in (False, True):
        layer.hybridize(hybrid)
        x = nd.array(value)
        x.attach_grad()
        with autograd.record():
            y = layer(x)
            (y * y).sum().backward()
        seen.append((y.asnumpy(), x.grad.asnumpy()))
    for a, b in zip(*seen):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [gluon.rnn.LSTM, gluon.rnn.GRU, gluon.rnn.RNN])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_layer_and_its_cells_agree(make, bidirectional):
    layer = make(4, num_layers=2, bidirectional=bidirectional, input_size=3)
    layer.initialize(mx.init.Uniform(0.5))
    x = nd.array(np.random.default_rng(5).standard_normal((6, 2, 3)))
    expected = layer(x)
    cells = layer._unfuse()
    outputs, _ = cells.unroll(6, x, layout="TNC", merge_outputs=True)
    np.testing.assert_allclose(outputs.asnumpy(), expected.asnumpy(), rtol=1e-5, atol=1e-5)


def test_parameters_by_structure_survive_a_file(tmp_path):
    net = gluon_programs.network(mx)
    net.initialize()
    expected = net(gluon_programs.images(mx)).asnumpy()
    net.save_parameters(str(tmp_path / "a.params"))
    other = gluon_programs.network(mx)
    other.load_parameters(str(tmp_path / "a.params"))
    np.testing.assert_array_equal(other(gluon_programs.images(mx)).asnumpy(), expected)
    with pytest.raises(AssertionError, match="another shape"):
        wrong = nn.HybridSequential()
        wrong.add(nn.Conv2D(7, 3, in_channels=3))
        wrong.load_parameters(str(tmp_path / "a.params"), ignore_extra=True)


def test_missing_and_extra_parameters_are_errors(tmp_path):
    small, large = nn.HybridSequential(), nn.HybridSequential()
    small.add(nn.Dense(2, in_units=3))
    large.add(nn.Dense(2, in_units=3), nn.Dense(2, in_units=2))
    small.initialize()
    large.initialize()
    small.save_parameters(str(tmp_path / "s"))
    large.save_parameters(str(tmp_path / "l"))
    with pytest.raises(AssertionError, match="allow_missing"):
        large.load_parameters(str(tmp_path / "s"))
    with pytest.raises(ValueError, match="ignore_extra"):
        small.load_parameters(str(tmp_path / "l"))


def test_parameter_before_its_shape_is_known():
    net = nn.Dense(2)
    with pytest.raises(RuntimeError, match="was never initialized"):
        net.weight.data()
    net.initialize()
    with pytest.raises(gluon.DeferredInitializationError, match="forward pass"):
        net.weight.data()
    net(nd.ones((1, 4)))
    assert net.weight.data().shape == (2, 4)


def test_trainer_states_survive_a_file(tmp_path):
    def trainer_of(w):
        return gluon.Trainer([w], "adam", {"learning_rate": 0.1})

    def step(w, trainer):
        with autograd.record():
            loss = (w.data() * w.data()).sum()
        loss.backward()
        trainer.step(1)

    w = gluon.Parameter("w", shape=(3,), init="ones")
    w.initialize()
    trainer = trainer_of(w)
    step(w, trainer)
    trainer.save_states(str(tmp_path / "t"))
    v = gluon.Parameter("w", shape=(3,))
    v.initialize()
    v.set_data(w.data())
    other = trainer_of(v)
    other.load_states(str(tmp_path / "t"))
    step(w, trainer)
    step(v, other)
    np.testing.assert_array_equal(w.data().asnumpy(), v.data().asnumpy())


@pytest.mark.parametrize("workers", [{}, {"num_workers": 2}, {"num_workers": 2, "thread_pool": True}])
def test_loader_gives_all_samples_in_order(workers):
    data = gluon.data.ArrayDataset(np.arange(20, dtype=np.float32).reshape(10, 2), np.arange(10, dtype=np.float32))
    seen = [b for _ in range(2) for b in gluon.data.DataLoader(data, 4, last_batch="keep", **workers)]
    assert [x.shape for x, _ in seen] == [(4, 2), (4, 2), (2, 2)] * 2
    np.testing.assert_array_equal(np.concatenate([y.asnumpy() for _, y in seen[:3]]), np.arange(10))


class _Broken(gluon.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, idx):
        raise KeyError("no such sample")


def test_an_error_in_a_worker_arrives():
    with pytest.raises(KeyError, match="no such sample"):
        list(gluon.data.DataLoader(_Broken(), 2, num_workers=1))


def test_a_loader_is_given_up_while_workers_send_large_batches():
    data = np.zeros((200, 40_000))  # results larger than what a pipe holds
    for _ in range(3):
        loader = gluon.data.DataLoader(data, batch_size=4, num_workers=2)
        assert next(iter(loader)).shape == (4, 40_000)
        del loader


class _Deadly(_Broken):
    def __getitem__(self, idx):
        os._exit(3)


def test_a_worker_that_dies_is_an_error():
    with pytest.raises(RuntimeError, match="worker process"):
        list(gluon.data.DataLoader(_Deadly(), 2, num_workers=1))


def test_norm_is_clipped_over_all_arrays():
    xs = [nd.array([3.0]), nd.array([4.0])]
    assert gluon.utils.clip_global_norm(xs, 1.0) == pytest.approx(5.0)
    np.testing.assert_allclose([x.asscalar() for x in xs], [0.6, 0.8], rtol=1e-5)
    with pytest.warns(UserWarning, match="not finite"):
        gluon.utils.clip_global_norm([nd.array([np.nan])], 1.0)


@pytest.mark.parametrize("name", ["resnet18_v1", "squeezenet1.1", "mobilenetv2_0.25"])
def test_models_infer(name):
    net = gluon.model_zoo.vision.get_model(name, classes=7)
    net.initialize()
    assert net(nd.ones((1, 3, 224, 224))).shape == (1, 7)


def test_unknown_model_lists_the_others():
    with pytest.raises(ValueError, match="resnet50_v1"):
        gluon.model_zoo.vision.get_model("resnet7")


def test_transforms_of_images():
    transforms = gluon.data.vision.transforms
    picture = nd.array(np.arange(6 * 8 * 3).reshape(6, 8, 3) % 256, dtype="uint8")
    whole = transforms.Compose([transforms.Resize(5), transforms.CenterCrop(4), transforms.RandomFlipLeftRight(),
                                transforms.RandomColorJitter(0.1, 0.1, 0.1, 0.1), transforms.RandomLighting(0.1),
                                transforms.ToTensor(), transforms.Normalize([0.5, 0.4, 0.3], [0.1, 0.2, 0.3])])  # fmt: skip
    assert whole(picture).shape == (3, 4, 4)
    tensor = transforms.ToTensor()(picture)
    np.testing.assert_allclose(tensor.asnumpy(), picture.asnumpy().transpose(2, 0, 1) / 255, rtol=1e-6)
    np.testing.assert_array_equal(transforms.CropResize(1, 2, 3, 4)(picture).asnumpy(), picture.asnumpy()[2:6, 1:4])
    with pytest.raises(mx.MXNetError, match="not inside"):
        transforms.CropResize(7, 2, 3, 4)(picture)
    with pytest.raises(mx.MXNetError, match="positive"):
        transforms.Resize(-1)(picture)


def test_summary_counts_layers_and_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    net = nn.HybridSequential()
    net.add(mx.gluon.nn.Dense(4, activation="relu"), mx.gluon.nn.BatchNorm(), mx.gluon.nn.Dense(2))
    net.initialize()
    net.summary(mx.nd.ones((3, 5)))
    printed = capsys.readouterr().out
    assert "Dense-2" in printed and "(3, 4)" in printed
    assert "Trainable params: 42" in printed and "Non-trainable params: 8" in printed
    net.hybridize()
    with pytest.raises(AssertionError, match="hybridized"):
        net.summary(mx.nd.ones((3, 5)))


def test_arrays_and_networks_are_freed_when_they_are_dropped():
    """Their memory comes back at once: nothing waits for Python's collector of reference cycles, which knows no sizes."""
    gc.collect()
    gc.disable()
    try:
        for hybridized in (False, True):
            net = nn.HybridSequential()
            with net.name_scope():
                net.add(nn.Dense(3, in_units=4), nn.BatchNorm(in_channels=3))
            net.initialize()
            if hybridized:
                net.hybridize()
            x = mx.nd.ones((2, 4))
            x.attach_grad()
            with mx.autograd.record():
                y = net(x)
            y.backward()
            y.wait_to_read()
            kept = [weakref.ref(v) for v in (x, x.grad, y, net, net[0].weight, net[0].weight.data())]
            del net, x, y
            assert [r() for r in kept] == [None] * len(kept)
    finally:
        gc.enable()
