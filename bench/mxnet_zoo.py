"""Networks of MXNet's own model zoo with seeded random weights, written as checkpoints by real MXNet.

Runs under the interpreter that has MXNet 1.9.1: `python bench/mxnet_zoo.py resnet50_v1 FOLDER`.
"""

from __future__ import annotations

import os
import sys

NAMES = ("resnet18_v1", "resnet50_v1", "vgg16", "densenet121", "squeezenet1.1", "mobilenetv2_1.0", "mobilenet1.0")
SEED = 20260


def write(name: str, folder: str) -> None:
    """Build, initialise and export one network for images of 224 by 224."""
    import mxnet as mx
    import numpy as np

    mx.random.seed(SEED)
    np.random.seed(SEED)
    rng = np.random.RandomState(SEED)
    net = mx.gluon.model_zoo.vision.get_model(name, pretrained=False)
    net.initialize(mx.init.Xavier(magnitude=2.2))
    image = mx.nd.zeros((1, 3, 224, 224))
    net(image)
    for key, parameter in sorted(net.collect_params().items()):
        # Statistics as after training, so that folding them wrongly cannot go unseen.
        if key.endswith(("running_var", "gamma")):
            parameter.set_data(mx.nd.array(rng.uniform(0.75, 1.25, parameter.shape)))
        elif key.endswith(("running_mean", "beta")):
            parameter.set_data(mx.nd.array(rng.standard_normal(parameter.shape) * 0.1))
    net.hybridize()
    net(image)
    net.export(os.path.join(folder, name), 0)


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2])
