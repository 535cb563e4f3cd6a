"""Optimizers: `mx.optimizer`, `mx.opt`.

>>> import diptych.mxnet as mx
>>> sgd = mx.optimizer.create("sgd", learning_rate=0.5)
>>> w, g = mx.nd.ones((2,)), mx.nd.ones((2,))
>>> sgd.update(0, w, g, sgd.create_state(0, w))
>>> w.asnumpy().tolist()
[0.5, 0.5]
"""

from __future__ import annotations

from diptych.mxnet.optimizer import contrib, optimizer
from diptych.mxnet.optimizer.adaptive import FTML, AdaDelta, AdaGrad, Adam, Adamax, Ftrl, Nadam, RMSProp
from diptych.mxnet.optimizer.base import Optimizer, create, register
from diptych.mxnet.optimizer.layerwise import LAMB, LARS, LBSGD
from diptych.mxnet.optimizer.sgd import DCASGD, NAG, SGD, SGLD, Signum, Test, ccSGD
from diptych.mxnet.optimizer.updater import Updater, get_updater

__all__ = [
    "DCASGD", "FTML", "LAMB", "LARS", "LBSGD", "NAG", "SGD", "SGLD", "AdaDelta", "AdaGrad", "Adam", "Adamax", "Ftrl", "Nadam",
    "Optimizer", "RMSProp", "Signum", "Test", "Updater", "ccSGD", "contrib", "create", "get_updater", "optimizer", "register",
]  # fmt: skip
