"""`mx.mod`: training and inference with a symbol.

>>> import numpy as np, diptych.mxnet as mx
>>> net = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2), name="softmax")
>>> data = mx.io.NDArrayIter(np.eye(4, dtype="f"), np.array([0, 1, 0, 1]), batch_size=4)
>>> module = mx.mod.Module(net)
>>> module.fit(data, num_epoch=200, optimizer_params={"learning_rate": 1.0})
>>> module.score(data, "acc")
[('accuracy', 1.0)]
"""

from __future__ import annotations

from diptych.mxnet.module import executor_group
from diptych.mxnet.module.base_module import BaseModule
from diptych.mxnet.module.bucketing_module import BucketingModule
from diptych.mxnet.module.module import Module
from diptych.mxnet.module.python_module import PythonLossModule, PythonModule
from diptych.mxnet.module.sequential_module import SequentialModule

__all__ = ["BaseModule", "BucketingModule", "Module", "PythonLossModule", "PythonModule", "SequentialModule", "executor_group"]
