"""Programs that run alike on `diptych.mxnet` and on MXNet 1.9.1: PYTHON feature_programs.py PROGRAM FOLDER TARGET.npz."""

import importlib
import os
import random
import sys
import warnings

import numpy as np


def estimator(mx, folder):
    """An Estimator with validation, checkpoints and an early end: the metrics of every epoch, and the files."""
    gluon, est = mx.gluon, importlib.import_module(f"{mx.__name__}.gluon.contrib.estimator")
    rng = np.random.RandomState(7)
    x, y = rng.rand(20, 5).astype("f"), rng.randint(0, 3, 20).astype("f")
    loader = gluon.data.DataLoader(gluon.data.ArrayDataset(x, y), batch_size=6)
    net = gluon.nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(gluon.nn.Dense(7, activation="relu", in_units=5), gluon.nn.Dense(3, in_units=7))
    net.initialize()
    for p in net.collect_params().values():
        p.set_data(mx.nd.array(rng.rand(*p.shape) - 0.5))
    net.hybridize()
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.3, "momentum": 0.9})
    target = os.path.join(folder, mx.__name__)
    lines = []

    class Note(est.EpochEnd):
        def epoch_end(self, estimator, *args, **kwargs):
            lines.append([float(m.get()[1]) for m in estimator.train_metrics + estimator.val_metrics])

    one = est.Estimator(net, gluon.loss.SoftmaxCrossEntropyLoss(), trainer=trainer)
    one.logger.setLevel("ERROR")
    keep = est.CheckpointHandler(target, "m", monitor=one.val_metrics[1], save_best=True, mode="min", max_checkpoints=2)
    stop = est.EarlyStoppingHandler(one.val_metrics[1], min_delta=0.02, patience=2, mode="min")
    one.fit(loader, val_data=loader, epochs=12, event_handlers=[Note(), keep, stop])
    names = " ".join(m.name for m in one.train_metrics + one.val_metrics)
    found = {"lines": np.array(lines), "stopped": np.array(stop.stopped_epoch), "names": np.array(names)}
    again = est.CheckpointHandler(target, "m", resume_from_checkpoint=True)
    one.fit(loader, epochs=5, event_handlers=[again])
    return {**found, "resumed": np.array([again.trained_epoch, again.trained_batch]), "files": np.array(" ".join(sorted(os.listdir(target))))}


DETECTION = [
    {}, {"rand_crop": 0.9, "rand_mirror": True, "min_object_covered": [0.1, 0.5, 0.9]}, {"rand_pad": 0.9, "rand_mirror": True},
    {"resize": 50, "rand_crop": 0.5, "rand_pad": 0.5, "area_range": (0.3, 3.0), "rand_gray": 0.3, "inter_method": 1},
]  # fmt: skip


def detection(mx, folder):
    """Two epochs of ImageDetIter with several augmentations, on the images 0.png to 6.png."""
    rng = np.random.RandomState(0)
    listed = []
    for i in range(7):
        n = rng.randint(1, 4)
        boxes = rng.rand(n, 4) * 0.5
        boxes[:, 2:] = boxes[:, :2] + 0.2 + 0.3 * rng.rand(n, 2)
        listed.append([np.array([2, 5, *np.concatenate([rng.randint(0, 3, (n, 1)), boxes], 1).ravel()]), f"{i}.png"])
    out = {}
    for k, options in enumerate(DETECTION):
        random.seed(3)
        np.random.seed(3)
        batches = mx.image.ImageDetIter(3, (3, 32, 48), imglist=listed, path_root=folder, shuffle=bool(k % 2), **options)
        for epoch in range(2):
            for j, b in enumerate(batches):
                out[f"{k} {epoch} {j} label"] = np.append(b.label[0].asnumpy().ravel(), b.pad)
                out[f"{k} {epoch} {j} image"] = b.data[0].asnumpy()
            batches.reset()
    return out


RECORDS = [
    ("ImageRecordIter", {}), ("ImageRecordIter", {"resize": 16, "mean_r": 3, "std_g": 2, "scale": 0.1, "mirror": True}),
    ("ImageRecordIter", {"resize": 18, "inter_method": 2}), ("ImageRecordIter", {"pad": 3, "fill_value": 9}),
    ("ImageRecordUInt8Iter", {}), ("ImageRecordInt8Iter", {}),
]  # fmt: skip


def records(mx, folder):
    """Two epochs of the iterators over record files: images, labels and what fills the last batch up."""
    out = {}
    for n, (kind, options) in enumerate(RECORDS):
        batches = getattr(mx.io, kind)(path_imgrec=os.path.join(folder, "a.rec"), batch_size=3, data_shape=(3, 12, 16), **options)
        for epoch in range(2):
            for j, b in enumerate(batches):
                out[f"{n} {epoch} {j} label"] = np.append(b.label[0].asnumpy(), b.pad)
                out[f"{n} {epoch} {j} image"] = b.data[0].asnumpy().astype("f")
            batches.reset()
    for n, options in enumerate([{"mean_r": 1, "std_g": 2, "scale": 0.5, "label_pad_width": 30}, {"rand_mirror_prob": 1.0}]):
        batches = mx.io.ImageDetRecordIter(path_imgrec=os.path.join(folder, "d.rec"), batch_size=2, data_shape=(3, 12, 16), **options)
        for j, b in enumerate(batches):
            out[f"d{n} {j} label"] = np.append(b.label[0].asnumpy(), b.pad)
            out[f"d{n} {j} image"] = b.data[0].asnumpy()
    return out


def image_operators(mx, _):
    """Random operators on images with one possible outcome, and transforms as hybridized, exported blocks."""
    transforms = importlib.import_module(f"{mx.__name__}.gluon.data.vision").transforms
    image = mx.nd.array(np.random.RandomState(0).randint(0, 256, (24, 30, 3)), dtype="uint8")
    out = {}
    for name in ("brightness", "contrast", "saturation", "hue"):
        for factor in (0.0, 0.37, 1.0, 1.6):
            for dtype in ("uint8", "float32"):
                changed = getattr(mx.nd.image, f"random_{name}")(image.astype(dtype), factor, factor)
                out[f"{name} {factor} {dtype} image"] = changed.asnumpy().astype("f")
    net = mx.gluon.nn.HybridSequential()
    net.add(transforms.CropResize(2, 3, 10, 12), transforms.ToTensor(), transforms.Normalize((0.1, 0.2, 0.3), (1, 2, 3)), transforms.Cast("float16"))
    net.hybridize()
    out["net"], out["several"] = net(image).asnumpy(), net(mx.nd.stack(image, image)).asnumpy()
    return out


def monitor(mx, _):
    """What a monitor sees: the names, and the gradients that MXNet does not overwrite while it goes on."""
    data, label = mx.nd.array([[0.05, 0.10]]), mx.nd.array([[0.01, 0.99]])
    batches = mx.io.NDArrayIter(data, label, batch_size=1)
    x = mx.sym.FullyConnected(mx.sym.Variable("data"), name="fc_0", num_hidden=2)
    x = mx.sym.Activation(x, name="act_0", act_type="sigmoid")
    x = mx.sym.FullyConnected(x, name="fc_1", num_hidden=2)
    x = mx.sym.LinearRegressionOutput(x, name="softmax", grad_scale=2)
    seen = mx.mon.Monitor(1, stat_func=lambda a: a, sort=False)
    module = mx.mod.Module(x)
    module.bind(batches.provide_data, batches.provide_label)
    module.install_monitor(seen)
    weights = {"fc_0_weight": [[0.15, 0.2], [0.25, 0.3]], "fc_0_bias": [0.35, 0.35], "fc_1_weight": [[0.4, 0.45], [0.5, 0.55]], "fc_1_bias": [0.6, 0.6]}
    module.init_params(arg_params={k: mx.nd.array(v) for k, v in weights.items()})
    seen.tic()
    module.forward_backward(next(iter(batches)))
    found = seen.toc()
    texts = {name: text for _, name, text in found if name.endswith(("_output", "_output1", "_output2", "weight", "bias")) and "softmax_b" not in name}
    values = {name: np.array([float(v) for v in text.replace("[", " ").replace("]", " ").split()]) for name, text in texts.items()}
    return {**values, "names": np.array(" ".join(name for _, name, _ in found))}


def old_operator(mx, _):
    """NumpyOp and NDArrayOp: results and gradients."""
    out = {}
    for kind in ("NumpyOp", "NDArrayOp"):

        class Cube(getattr(mx.operator, kind)):
            def forward(self, in_data, out_data):
                out_data[0][:] = in_data[0] * in_data[0] * in_data[0]

            def backward(self, out_grad, in_data, out_data, in_grad):
                in_grad[0][:] = out_grad[0] * in_data[0] * in_data[0] * 3

        x = mx.nd.array([[1.0, -2.0, 3.0]])
        executor = Cube()(mx.sym.Variable("x"), name="cube").bind(mx.cpu(), {"x": x}, {"x": mx.nd.zeros(x.shape)})
        out[f"{kind} result"] = executor.forward(is_train=True)[0].asnumpy()
        executor.backward([mx.nd.array([[1.0, 2.0, 3.0]])])
        out[f"{kind} gradient"] = executor.grad_dict["x"].asnumpy()
    return out


PROGRAMS = {f.__name__: f for f in (estimator, detection, records, image_operators, monitor, old_operator)}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    np.savez(sys.argv[3], **PROGRAMS[sys.argv[1]](importlib.import_module("mxnet"), sys.argv[2]))
