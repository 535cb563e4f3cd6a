"""What real MXNet 1.9.1 says about files: run by its own interpreter, it shares nothing with the tests but a folder.

``mxnet_worker.py write FOLDER`` makes files with MXNet; ``mxnet_worker.py read FOLDER`` reads what the tests wrote there and
reports in ``report.json`` and ``arrays.npz``.
"""

import json
import os
import sys

import mxnet as mx
import numpy as np


def write_params(folder):
    rng = np.random.RandomState(5)
    kinds = ("float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool")
    arrays = {"arg:" + k: mx.nd.array(rng.randint(0, 2, (2, 3)), dtype=k) for k in kinds}
    csr = mx.nd.sparse.csr_matrix((np.array([7, 8], "f"), [2, 0], [0, 1, 2]), shape=(2, 3))
    rows = mx.nd.sparse.row_sparse_array((np.array([[1, 2], [3, 4]], "f"), [1, 3]), shape=(4, 2))
    empty = mx.nd.sparse.zeros("row_sparse", (3, 2))
    mx.nd.waitall()
    expected = {name: a.asnumpy() for name, a in arrays.items()}
    mx.nd.save(os.path.join(folder, "dense.params"), arrays)
    mx.nd.save(os.path.join(folder, "list.params"), list(arrays.values()))
    mx.nd.save(os.path.join(folder, "sparse.params"), {"csr": csr, "rows": rows, "empty": empty})
    expected.update({"csr": csr.asnumpy(), "rows": rows.asnumpy(), "empty": empty.asnumpy()})
    mx.npx.set_np()
    scalars = {"scalar": mx.np.array(2.5), "none": mx.np.zeros((0, 3)), "plain": mx.np.ones((2,))}
    mx.npx.save(os.path.join(folder, "np.params"), scalars)
    expected.update({name: a.asnumpy() for name, a in scalars.items()})
    mx.npx.reset_np()
    np.savez(os.path.join(folder, "expected.npz"), **expected)


def write_records(folder, payloads):
    writer = mx.recordio.MXIndexedRecordIO(os.path.join(folder, "a.idx"), os.path.join(folder, "a.rec"), "w")
    for key, payload in enumerate(payloads):
        writer.write_idx(key * 10, payload)
    for label in (3.0, np.array([1, 2, 3], "f")):
        writer.write_idx(1000 + int(np.size(label)), mx.recordio.pack(mx.recordio.IRHeader(0, label, 7, 1), b"image"))
    writer.close()


def graphs():
    sym, x = mx.sym, mx.sym.Variable("x")
    data = mx.sym.Variable("data", shape=(1, 3, 8, 8), lr_mult=2, init=mx.init.Xavier())
    conv = sym.Convolution(data, kernel=(3, 3), num_filter=4, name="conv", lr_mult=3)
    norm = sym.BatchNorm(conv, name="bn", output_mean_var=True)
    parts = sym.SliceChannel(norm[0], num_outputs=2, name="parts")
    out = sym.SoftmaxOutput(sym.FullyConnected(parts[1], num_hidden=3), name="softmax")
    yield "mixed", sym.Group([parts[0], norm[1], out, data])
    pool = [
        sym.Pooling(x, kernel=k, pool_type=t, name=t + str(len(k)))
        for k in ((2, 2), (3,), ())
        for t in ("max", "avg")
        if k
    ]
    yield "pooling", sym.Group(pool)
    yield "prelu", sym.LeakyReLU(x, act_type="prelu")
    yield "rrelu", sym.LeakyReLU(x, act_type="rrelu")
    yield "topk", sym.Group([sym.topk(x, ret_typ=k, name=k)[0] for k in ("value", "indices", "mask", "both")])
    yield "rnn", sym.RNN(x, state_size=3, num_layers=1, mode="lstm", state_outputs=True, name="rnn")
    yield (
        "norms",
        sym.Group(
            [sym.LayerNorm(x), sym.InstanceNorm(x), sym.GroupNorm(x), sym.LRN(x, nsize=3), sym.L2Normalization(x)]
        ),
    )
    yield (
        "misc",
        sym.Group(
            [sym.Dropout(x), sym.CTCLoss(x), sym.sort(x), sym.ROIPooling(x, pooled_size=(1, 1), spatial_scale=1)]
        ),
    )
    yield "bilinear", sym.UpSampling(x, scale=2, sample_type="bilinear", num_filter=2)
    yield "sparse", sym.IdentityAttachKLSparseReg(x)
    shared = [sym.Variable(n) for n in "gbmv"]
    yield "shared", sym.BatchNorm(sym.BatchNorm(x, *shared, name="p"), *shared, name="q")
    with mx.AttrScope(ctx_group="a", __force_mirroring__="True"):
        yield "scope", sym.relu(x) + sym.Variable("y")
    loop, states = sym.contrib.foreach(lambda d, s: (d + s[0] * sym.Variable("w"), [d]), x, [sym.Variable("s")])
    yield "foreach", sym.Group([loop, states[0]])
    yield "cond", sym.contrib.cond(sym.Variable("p"), lambda: x * 2, lambda: x + 1)
    yield "deconv", sym.Deconvolution(x, kernel=(2, 2), num_filter=3)
    yield "quantized", mx.sym.contrib.quantize_v2(x)
    yield "detect", sym.contrib.Proposal(x, output_score=True)
    for name in ("resnet18_v2", "mobilenet_v2_0_5", "squeezenet1_1", "densenet121", "inception_v3"):
        net = getattr(mx.gluon.model_zoo.vision, "mobilenet_v2_0_5" if "mobile" in name else name)()
        yield name, net(mx.sym.Variable("data"))
    fused = sym.BatchNorm(sym.Convolution(mx.sym.Variable("data"), kernel=(3, 3), num_filter=4, name="conv"), name="bn")
    yield "fused", sym.FullyConnected(sym.relu(fused), num_hidden=3, name="fc").get_backend_symbol("MKLDNN")
    layer = mx.gluon.rnn.LSTM(4, 2, bidirectional=True, input_size=3)
    yield "lstm", layer(mx.sym.Variable("data"))


def describe(symbol):
    return {"json": symbol.tojson(), "arguments": symbol.list_arguments(), "states": symbol.list_auxiliary_states(),
            "outputs": symbol.list_outputs()}  # fmt: skip


def load(path):
    values = mx.nd.load(path)
    return values if isinstance(values, dict) else {str(i): a for i, a in enumerate(values)}


def read(folder):
    report, arrays = {"symbols": {}, "records": {}}, {}
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.endswith(".json"):
            report["symbols"][name] = describe(mx.sym.load(path))
        elif name.endswith(".params"):
            with mx.util.np_shape(name.startswith("np")):
                arrays.update({name + ":" + key: a.asnumpy() for key, a in load(path).items()})
        elif name.endswith(".rec"):
            reader = mx.recordio.MXIndexedRecordIO(path[:-4] + ".idx", path, "r")
            report["records"] = {str(k): reader.read_idx(k).hex() for k in reader.keys}
            header, data = mx.recordio.unpack(reader.read_idx(reader.keys[-1]))
            report["label"], report["image"] = np.asarray(header.label).tolist(), data.hex()
    np.savez(os.path.join(folder, "arrays.npz"), **arrays)
    return report


def main(command, folder):
    if command == "write":
        write_params(folder)
        with open(os.path.join(folder, "payloads.json")) as file:
            write_records(folder, [bytes.fromhex(p) for p in json.load(file)])
        report = {name: describe(symbol) for name, symbol in graphs()}
    else:
        report = read(folder)
    with open(os.path.join(folder, "report.json"), "w") as file:
        json.dump(report, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
