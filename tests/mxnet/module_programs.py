"""Programs that run alike on `diptych.mxnet` and on MXNet 1.9.1: PYTHON module_programs.py PROGRAM TARGET.npz [ARGUMENT]."""

import importlib
import sys

import numpy as np

OPTIMIZERS = {
    "sgd": {"momentum": 0.9, "wd": 0.01}, "nag": {"momentum": 0.8}, "signum": {"wd_lh": 0.01, "wd": 0.1}, "signsgd": {},
    "ftml": {}, "lars": {"momentum": 0.9}, "lbsgd": {"momentum": 0.9, "batch_scale": 2}, "lamb": {"wd": 0.1},
    "dcasgd": {}, "adam": {"clip_gradient": 0.5}, "adagrad": {"wd": 0.01}, "rmsprop": {},
    "rmsprop_centered": {"centered": True, "clip_weights": 0.9}, "adadelta": {}, "ftrl": {}, "adamax": {}, "nadam": {"wd": 0.1},
}  # fmt: skip


def optimizers(mx, _=None):
    """Weights and states of every optimizer after some steps, with float32 and with float16 weights."""
    out = {}
    for name, options in OPTIMIZERS.items():
        if name == "signsgd":
            kind, options = "signum", {"momentum": 0.0}
        else:
            kind = name.split("_")[0]
        for dtype in ("float32", "float16"):
            if dtype == "float16" and kind in ("lbsgd", "dcasgd", "lars"):
                continue
            rng = np.random.RandomState(3)
            optimizer = mx.optimizer.create(kind, param_idx2name={0: "a_weight", 1: "a_bias"}, learning_rate=0.05,
                                            rescale_grad=0.5, multi_precision=dtype == "float16", **options)  # fmt: skip
            updater = mx.optimizer.get_updater(optimizer)
            weights = [mx.nd.array(rng.uniform(-1, 1, s), dtype=dtype) for s in ((4, 3), (5,))]
            for _ in range(5):
                for i, w in enumerate(weights):
                    updater(i, mx.nd.array(rng.uniform(-1, 1, w.shape), dtype=dtype), w)
            for i, w in enumerate(weights):
                out[f"{name} {dtype} {i}"] = w.asnumpy().astype("float32")
    return out


def schedulers(mx, _=None):
    """Learning rates over the updates."""
    s = mx.lr_scheduler
    made = {
        "factor": s.FactorScheduler(step=3, factor=0.5, stop_factor_lr=0.1, base_lr=1.0, warmup_steps=4, warmup_begin_lr=0.1),
        "multi": s.MultiFactorScheduler(step=[4, 9], factor=0.1, base_lr=1.0),
        "poly": s.PolyScheduler(max_update=12, base_lr=1.0, pwr=2, final_lr=0.01, warmup_steps=2),
        "cosine": s.CosineScheduler(max_update=12, base_lr=1.0, final_lr=0.1, warmup_steps=2, warmup_mode="constant"),
    }
    return {k: np.array([v(t) for t in range(20)]) for k, v in made.items()}


def metrics(mx, _=None):
    """Local and global values of the metrics after batches and a local reset."""
    m = mx.metric
    made = {"acc": m.create("acc"), "top": m.create("top_k_accuracy", top_k=3), "mae": m.MAE(), "mse": m.MSE(), "rmse": m.RMSE(),
            "ce": m.create("ce"), "nll": m.create("nll_loss"), "perplexity": m.Perplexity(ignore_label=2), "loss": m.Loss(),
            "pcc": m.create("pcc"), "own": m.np(lambda label, pred: float((label - pred.argmax(1)).sum()))}  # fmt: skip
    binary = {"f1": m.F1(), "f1 micro": m.F1(average="micro"), "mcc": m.MCC(), "mcc micro": m.MCC(average="micro")}
    rows = {"mae", "mse", "rmse"}
    pearson = {"pearson": m.PearsonCorrelation(), "pearson micro": m.PearsonCorrelation(average="micro")}
    rng, out = np.random.RandomState(5), {}
    for batch in range(4):
        scores, labels = rng.uniform(0.01, 1, (12, 5)).astype("f"), rng.randint(0, 5, 12).astype("f")
        scores /= scores.sum(1, keepdims=True)
        two = rng.uniform(0, 1, (12, 2)).astype("f")
        for name, metric in made.items():
            pred = scores[:, :1] if name in rows else scores
            metric.update([mx.nd.array(labels)], [mx.nd.array(pred)])
        for metric in binary.values():
            metric.update([mx.nd.array(labels % 2)], [mx.nd.array(two)])
        for metric in pearson.values():
            metric.update([mx.nd.array(two[:, 0])], [mx.nd.array(two[:, 0] * 2 + two[:, 1])])
        if batch == 1:
            for metric in (*made.values(), *binary.values()):
                metric.reset_local()
    for name, metric in {**made, **binary, **pearson}.items():
        out[name], out[name + " global"] = np.float64(metric.get()[1]), np.float64(metric.get_global()[1])
    return out


def iterators(mx, folder):
    """All batches of the iterators, over two epochs."""
    out = {}

    def note(name, it):
        for epoch in range(2):
            for k, b in enumerate(it):
                out[f"{name} {epoch} {k}"] = np.concatenate([x.asnumpy()[: len(x) - b.pad].ravel() for x in [*b.data, *b.label]] + [[b.pad]])
            it.reset()

    x, y = np.arange(22, dtype="f").reshape(11, 2), np.arange(11, dtype="f")
    for handle in ("pad", "discard", "roll_over"):
        np.random.seed(1)
        note(handle, mx.io.NDArrayIter({"b": x, "a": x * 2}, y, 4, shuffle=True, last_batch_handle=handle))
    note("resize", mx.io.ResizeIter(mx.io.NDArrayIter(x, y, 4), 4))
    note("prefetch", mx.io.PrefetchingIter([mx.io.NDArrayIter(x, y, 5), mx.io.NDArrayIter(x + 1, y, 5, label_name="l2")]))
    np.savetxt(f"{folder}/x.csv", x, delimiter=",")
    np.savetxt(f"{folder}/y.csv", y, delimiter=",")
    for turn in (True, False):
        note(f"csv {turn}", mx.io.CSVIter(data_csv=f"{folder}/x.csv", data_shape=(2,), label_csv=f"{folder}/y.csv", batch_size=4,
                                          round_batch=turn))  # fmt: skip
    return out


def checkpoint(mx, folder):
    """Train a little, and write a checkpoint with the states of the optimizer (and the optimizer itself)."""
    data = mx.sym.Variable("data")
    net = mx.sym.FullyConnected(mx.sym.BatchNorm(data, name="bn", fix_gamma=False), num_hidden=4, name="fc")
    net = mx.sym.SoftmaxOutput(net, name="softmax")
    rng = np.random.RandomState(0)
    it = mx.io.NDArrayIter(rng.rand(12, 3).astype("f"), rng.randint(0, 4, 12).astype("f"), 4)
    module = mx.mod.Module(net)
    module.fit(it, num_epoch=2, optimizer="adam", initializer=mx.init.One(), allow_missing=True,
               arg_params={"fc_weight": mx.nd.array(rng.rand(4, 3))}, aux_params={})
    module.save_checkpoint(f"{folder}/net", 2, save_optimizer_states=True)
    with open(f"{folder}/net.optimizer", "wb") as file:
        file.write(module._updater.get_states(dump_optimizer=True))
    writer = mx.recordio.MXIndexedRecordIO(f"{folder}/a.idx", f"{folder}/a.rec", "w")
    for i in range(3):
        writer.write_idx(i, mx.recordio.pack(mx.recordio.IRHeader(0, [i, 2.0 * i], i, 0), b"x" * i))
    writer.close()
    return resume(mx, folder, 0)


def resume(mx, folder, steps=1):
    """Read that checkpoint, train on, and say what came of it."""
    rng = np.random.RandomState(1)
    it = mx.io.NDArrayIter(rng.rand(12, 3).astype("f"), rng.randint(0, 4, 12).astype("f"), 4)
    module = mx.mod.Module.load(f"{folder}/net", 2, load_optimizer_states=True)
    module.bind(it.provide_data, it.provide_label)
    module.init_optimizer(optimizer="adam", optimizer_params={"learning_rate": 0.01})
    with open(f"{folder}/net.optimizer", "rb") as file:
        module._updater.set_states(file.read())
    for _ in range(steps):
        for batch in it:
            module.forward_backward(batch)
            module.update()
        it.reset()
    # MXNet's engine does not order the reading of moving averages after the backward pass that updates them.
    mx.nd.waitall()
    args, aux = module.get_params()
    out = {k: v.asnumpy() for k, v in {**args, **aux}.items()}
    out["updates"] = np.array(module._updater.optimizer.num_update)
    out["predicted"] = module.predict(it).asnumpy()
    reader = mx.recordio.MXIndexedRecordIO(f"{folder}/a.idx", f"{folder}/a.rec", "r")
    for i in reader.keys:
        header, content = mx.recordio.unpack(reader.read_idx(i))
        out[f"record {i}"] = np.array([*header.label, header.id, len(content)])
    return out


PROGRAMS = {f.__name__: f for f in (optimizers, schedulers, metrics, iterators, checkpoint, resume)}

if __name__ == "__main__":
    argument = sys.argv[3] if len(sys.argv) > 3 else None
    np.savez(sys.argv[2], **PROGRAMS[sys.argv[1]](importlib.import_module("mxnet"), argument))
