"""An MXNet 1.x Module script: LeNet on handwritten digits. Only the import differs from one for MXNet itself.

    python examples/mxnet_module_lenet.py [DIGITS.npz] [LOSSES.json]

The digits are those of scikit-learn (1797 images of 8 x 8), or `images` and `labels` of an .npz file.
"""

import json
import logging
import sys

import numpy as np

import diptych.mxnet as mx


def lenet():
    data = mx.sym.Variable("data")
    net = mx.sym.Convolution(data, kernel=(3, 3), pad=(1, 1), num_filter=20, name="conv1")
    net = mx.sym.Activation(net, act_type="tanh", name="tanh1")
    net = mx.sym.Pooling(net, pool_type="max", kernel=(2, 2), stride=(2, 2), name="pool1")
    net = mx.sym.Convolution(net, kernel=(3, 3), num_filter=50, name="conv2")
    net = mx.sym.Activation(net, act_type="tanh", name="tanh2")
    net = mx.sym.Flatten(net)
    net = mx.sym.FullyConnected(net, num_hidden=100, name="fc1")
    net = mx.sym.Activation(net, act_type="tanh", name="tanh3")
    net = mx.sym.FullyConnected(net, num_hidden=10, name="fc2")
    return mx.sym.SoftmaxOutput(net, name="softmax")


def digits(path):
    if path is not None:
        found = np.load(path)
        return found["images"], found["labels"]
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images, bunch.target


def start(net, shape):
    """Initial parameters that do not depend on the generator of the library."""
    rng = np.random.RandomState(0)
    shapes = dict(zip(net.list_arguments(), net.infer_shape(data=shape)[0]))
    params = {}
    for name in sorted(set(shapes) - {"data", "softmax_label"}):
        if name.endswith("bias"):
            params[name] = mx.nd.zeros(shapes[name])
        else:
            scale = np.sqrt(3.0 / np.prod(shapes[name][1:]))
            params[name] = mx.nd.array(rng.uniform(-scale, scale, shapes[name]).astype("float32"))
    return params


def train(images, labels, epochs=8, batch=100):
    images = (images[:, None] / 16.0).astype("float32")
    np.random.seed(7)  # the order of the samples
    training = mx.io.NDArrayIter(images[:1500], labels[:1500], batch, shuffle=True)
    validation = mx.io.NDArrayIter(images[1500:], labels[1500:], batch)
    net = lenet()
    module = mx.mod.Module(net, context=mx.cpu())
    losses = []

    def note(param):
        if param.nbatch == 14:
            losses.append(dict(param.eval_metric.get_name_value())["cross-entropy"])

    module.fit(training, validation, eval_metric=["acc", "ce"], optimizer="sgd",
               optimizer_params={"learning_rate": 0.1, "momentum": 0.9, "wd": 1e-4}, arg_params=start(net, (batch, 1, 8, 8)),
               batch_end_callback=[mx.callback.Speedometer(batch, 10, auto_reset=False), note], num_epoch=epochs)  # fmt: skip
    return losses, dict(module.score(validation, "acc"))["accuracy"]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    losses, accuracy = train(*digits(sys.argv[1] if len(sys.argv) > 1 else None))
    if len(sys.argv) > 2:
        with open(sys.argv[2], "w") as file:
            json.dump({"losses": losses, "accuracy": accuracy}, file)
    print("loss by epoch:", " ".join(f"{x:.6f}" for x in losses), "accuracy:", accuracy)
