"""The optimizers under the module path they have in MXNet, which files of states name."""

from __future__ import annotations

from diptych.mxnet.optimizer.adaptive import FTML, AdaDelta, AdaGrad, Adam, Adamax, Ftrl, Nadam, RMSProp
from diptych.mxnet.optimizer.base import Optimizer, create, register
from diptych.mxnet.optimizer.layerwise import LAMB, LARS, LBSGD
from diptych.mxnet.optimizer.sgd import DCASGD, NAG, SGD, SGLD, Signum, Test, ccSGD
from diptych.mxnet.optimizer.updater import Updater, get_updater

__all__ = [
    "DCASGD", "FTML", "LAMB", "LARS", "LBSGD", "NAG", "SGD", "SGLD", "AdaDelta", "AdaGrad", "Adam", "Adamax", "Ftrl", "Nadam",
    "Optimizer", "RMSProp", "Signum", "Test", "Updater", "ccSGD", "create", "get_updater", "register",
]  # fmt: skip
